"""Looks host names up as the system would: in its hosts file, then by its name servers, which say for how long."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import dns.exception
import dns.resolver

HOSTS_FILE: Final = Path("/etc/hosts")
RESOLVER_FILE: Final = Path("/etc/resolv.conf")
HOSTS_SECONDS: Final = 5.0
"""How long a line of the hosts file is good: it has no time to live."""
DEADLINE_SECONDS: Final = 5.0
"""For one name, all servers and attempts together."""
MOST_ADDRESSES: Final = 64
"""Of one name: each is tried at once, and an answer may have thousands."""


class NameNotFound(Exception):
    """A name has no address, or nobody could say. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a name, IPv6 first (RFC 6724), else as they came, and for how many seconds they are good."""

    addresses: tuple[str, ...]
    seconds: float


class NameLookup:
    """Reads both files anew for each name: they may change."""

    def __init__(self, hosts: Path = HOSTS_FILE, resolver: Path = RESOLVER_FILE, port: int = 53) -> None:
        self._hosts = hosts
        self._resolver = resolver
        self._port = port

    def find(self, name: str) -> Found:
        """Return what a name stands for. Parks the greenlet, never the loop. Raises NameNotFound."""
        addresses = _in_hosts(self._hosts, name)
        return _found(addresses, HOSTS_SECONDS) if addresses else self._ask(name)

    def _ask(self, name: str) -> Found:
        try:
            resolver = dns.resolver.Resolver(str(self._resolver))
            resolver.port = self._port
            answers = list(resolver.resolve_name(name, lifetime=DEADLINE_SECONDS).values())
        except dns.resolver.NXDOMAIN:
            raise NameNotFound("there is no such name") from None
        except dns.resolver.NoAnswer:
            raise NameNotFound("the name has no address") from None
        except dns.resolver.LifetimeTimeout:
            raise NameNotFound("no name server answers") from None
        except dns.exception.DNSException as error:
            raise NameNotFound(" ".join(str(error).split())) from None
        addresses = [str(record) for answer in answers for record in answer]
        seconds = min(answer.chaining_result.minimum_ttl for answer in answers)
        return _found(addresses, float(seconds))


def _found(addresses: list[str], seconds: float) -> Found:
    ordered = sorted(dict.fromkeys(addresses), key=lambda address: ":" not in address)
    return Found(tuple(ordered[:MOST_ADDRESSES]), seconds)


def _in_hosts(path: Path, name: str) -> list[str]:
    """Return the addresses that the hosts file gives a name, hosts(5)."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        address, *names = line.partition("#")[0].lower().split() or [""]
        if name.removesuffix(".") in names and _is_address(address):
            found.append(str(ipaddress.ip_address(address)))
    return found


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
