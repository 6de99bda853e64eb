"""Looks up host names like the system: first in the hosts file, then at its name servers, whose TTLs it respects."""

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
"""TTL of a line of the hosts file."""
DEADLINE_SECONDS: Final = 5.0
"""Time limit for one name, over all servers and attempts."""
MAX_ADDRESSES: Final = 64
"""Addresses of one name. All are probed at the same time, and a response may have thousands."""


class NameNotFound(Exception):
    """A name has no address, or could not be looked up. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Found:
    """The addresses of a name, IPv6 first (RFC 6724), otherwise in the order received, and their TTL in seconds."""

    addresses: tuple[str, ...]
    seconds: float


class NameLookup:
    """Reads both files again for each name, as they may change."""

    def __init__(self, hosts: Path = HOSTS_FILE, resolver: Path = RESOLVER_FILE, port: int = 53) -> None:
        self._hosts = hosts
        self._resolver = resolver
        self._port = port

    def find(self, name: str) -> Found:
        """Return the addresses of a name. Blocks the greenlet, not the event loop. Raises NameNotFound."""
        addresses = _in_hosts(self._hosts, name)
        return _found(addresses, HOSTS_SECONDS) if addresses else self._ask(name)

    def _ask(self, name: str) -> Found:
        try:
            resolver = dns.resolver.Resolver(str(self._resolver))
            resolver.port = self._port
            answers = list(resolver.resolve_name(name, lifetime=DEADLINE_SECONDS).values())
        except dns.resolver.NXDOMAIN:
            raise NameNotFound("the name does not exist") from None
        except dns.resolver.NoAnswer:
            raise NameNotFound("the name has no address") from None
        except dns.resolver.LifetimeTimeout:
            raise NameNotFound("no name server responds") from None
        except dns.exception.DNSException as error:
            raise NameNotFound(" ".join(str(error).split())) from None
        addresses = [str(record) for answer in answers for record in answer]
        seconds = min(answer.chaining_result.minimum_ttl for answer in answers)
        return _found(addresses, float(seconds))


def _found(addresses: list[str], seconds: float) -> Found:
    ordered = sorted(dict.fromkeys(addresses), key=lambda address: ":" not in address)
    return Found(tuple(ordered[:MAX_ADDRESSES]), seconds)


def _in_hosts(path: Path, name: str) -> list[str]:
    """Return the addresses of a name in the hosts file, hosts(5)."""
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
