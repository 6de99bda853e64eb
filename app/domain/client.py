"""A client: its address, and the key under which it is bound and limited."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Final

from app.domain.model import GeoInfo

_MAPPED_PREFIX: Final = "::ffff:"


@dataclass(frozen=True, slots=True)
class Client:
    """A client: its address in canonical text, its key (see `client_key`) and its location."""

    address: str
    key: str
    geo: GeoInfo | None


def unmapped(address: str) -> str:
    """Convert an IPv4-mapped IPv6 address (RFC 4291, 2.5.5.2) to IPv4; return any other address unchanged."""
    if address.startswith(_MAPPED_PREFIX):
        mapped = ipaddress.IPv6Address(address).ipv4_mapped
        if mapped is not None:
            return str(mapped)
    return address


def client_key(pool: str, address: str, ipv6_prefix: int) -> str:
    """Return the key of a client in a pool: pool and address, an IPv6 address cut to `ipv6_prefix` bits (1-128).

    `address` is canonical text, as the kernel reports it. The key is a plain string for the sake of the garbage
    collector (see app.domain.affinity).
    """
    if ":" in address:
        address = address.partition("%")[0]  # a scope id identifies our interface, not the client
        if ipv6_prefix < 128:
            address = str(ipaddress.IPv6Network((address, ipv6_prefix), strict=False).network_address)
    return f"{pool} {address}"
