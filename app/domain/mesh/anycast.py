"""The BGP announcements of a POP. IPv4 prefixes go to neighbours with an IPv4 address; the same holds for IPv6."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Literal

Version = Literal[4, 6]


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A BGP neighbour. `local_address` is our address towards it, and the next hop of the announced prefixes."""

    address: IPv4Address | IPv6Address
    as_number: int
    local_address: IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Announcement:
    """The announcement of one POP."""

    pop: str
    as_number: int
    router_id: IPv4Address
    prefixes: tuple[IPv4Network | IPv6Network, ...]
    neighbours: tuple[Neighbour, ...]

    def prefixes_of(self, version: Version) -> tuple[IPv4Network | IPv6Network, ...]:
        """Return the prefixes of one IP version."""
        return tuple(prefix for prefix in self.prefixes if prefix.version == version)

    def neighbours_of(self, version: Version) -> tuple[Neighbour, ...]:
        """Return the neighbours that get the prefixes of one IP version; none if there are no such prefixes."""
        return tuple(one for one in self.neighbours if one.address.version == version and self.prefixes_of(version))
