"""Finds frontends that would connect to themselves, directly or through other frontends of the same edge."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from app.config.values import ListenAddress
from app.domain.host_name import is_host_name

LOCALHOST: Final = "localhost"
"""Always this machine (RFC 6761, section 6.3)."""


class Hop(NamedTuple):
    """A server that a frontend listens on: the frontend that dials, the number of its server, the one that accepts."""

    dialling: int
    server: int
    accepting: int


def loops(
    listens: Sequence[Sequence[ListenAddress]],
    servers: Sequence[Sequence[ListenAddress]],
    is_here: Callable[[str], bool],
) -> list[Hop]:
    """Return the hops that lead back to the frontend that dials.

    `listens` and `servers` have the addresses of each frontend. `is_here` says whether a host, given as an IP address,
    is one of this machine, on which a wildcard accepts.
    """
    hops = list(_hops(listens, servers, is_here))
    following: dict[int, set[int]] = {}
    for hop in hops:
        following.setdefault(hop.dialling, set()).add(hop.accepting)
    return [hop for hop in hops if hop.dialling in _reached(hop.accepting, following)]


def _hops(
    listens: Sequence[Sequence[ListenAddress]],
    servers: Sequence[Sequence[ListenAddress]],
    is_here: Callable[[str], bool],
) -> Iterator[Hop]:
    by_port: dict[int, list[tuple[int, ListenAddress]]] = {}
    for frontend, addresses in enumerate(listens):
        for address in addresses:
            by_port.setdefault(address.port, []).append((frontend, address))
    for frontend, dialled in enumerate(servers):
        for number, server in enumerate(dialled):
            for accepting, address in by_port.get(server.port, ()):
                if _accepts(address, server.host, is_here):
                    yield Hop(frontend, number, accepting)


def _accepts(listening: ListenAddress, host: str, is_here: Callable[[str], bool]) -> bool:
    if host == LOCALHOST:
        return listening.is_wildcard or is_loopback(listening.host)
    if not listening.is_wildcard:
        return listening.host == host
    return bool(host) and not is_host_name(host) and (":" in listening.host) == (":" in host) and is_here(host)


def _reached(start: int, following: dict[int, set[int]]) -> set[int]:
    found, waiting = {start}, [start]
    while waiting:
        fresh = following.get(waiting.pop(), set()) - found
        found |= fresh
        waiting += fresh
    return found


def loop_rule(dialling: object, accepting: object) -> str:
    """Return the rule that a server breaks which a hop leads to. The frontends are given by name."""
    way = "its own address" if dialling == accepting else f"the address of frontend {accepting}, which leads back to it"
    return f"frontend {dialling} would connect to itself: this is {way}"


def is_loopback(host: str) -> bool:
    """Return whether a host is a loopback address; a name is none."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
