"""The bit fields of an address in the private network (6PN), composed from names and read back.

::

    bits   0-7     8-47      48-63     64-79    80-127
         | 0xfd | network | region  |  POP   | instance |
                                  /64      /80       /128

The network's 40 bits are a hash of its name (RFC 4193, section 3.2: a collision with another network is unlikely). The
other fields are the numbers of names. Instance 1 is the point of presence itself; other instances have the number of
their name plus one, so they start at 2. Instance 0 is unused.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from app.domain.mesh.names import number_of, short_name_of

NETWORK_BITS: Final = 40
REGION_BITS: Final = 16
POP_BITS: Final = 16
INSTANCE_BITS: Final = 48

NETWORK_PREFIX: Final = 48
POP_PREFIX: Final = 80

_UNIQUE_LOCAL: Final = 0xFD


@dataclass(frozen=True, slots=True)
class Fields:
    """The numbers in an address."""

    network: int
    region: int
    pop: int
    instance: int

    @property
    def names(self) -> tuple[str | None, str | None, str | None]:
        """Region, POP and instance as far as the numbers tell: None for a hashed name, "" for the POP itself."""
        instance = short_name_of(self.instance - 1, INSTANCE_BITS) if self.instance else None
        return short_name_of(self.region, REGION_BITS), short_name_of(self.pop, POP_BITS), instance


def network_of(name: str) -> IPv6Network:
    """Return the /48 for a network's name."""
    number = int.from_bytes(hashlib.sha256(f"6pn {name}".encode()).digest()[: NETWORK_BITS // 8])
    return IPv6Network((_compose(Fields(number, 0, 0, 0)), NETWORK_PREFIX))


def pop_network(network: IPv6Network, region: str, pop: str) -> IPv6Network:
    """Return the /80 of a point of presence."""
    fields = Fields(
        fields_of(network.network_address).network, number_of(region, REGION_BITS), number_of(pop, POP_BITS), 0
    )
    return IPv6Network((_compose(fields), POP_PREFIX))


def instance_address(pop: IPv6Network, instance: str) -> IPv6Address:
    """Return the address of an instance within its POP's /80; "" is the POP itself."""
    return pop.network_address + 1 + number_of(instance, INSTANCE_BITS)


def fields_of(address: IPv6Address) -> Fields:
    """Return the fields of an address. Raises ValueError if it is not a unique local address (fd00::/8)."""
    value = int(address)
    if value >> 120 != _UNIQUE_LOCAL:
        raise ValueError(f"{address} does not begin with fd")
    fields = []
    for bits in (INSTANCE_BITS, POP_BITS, REGION_BITS, NETWORK_BITS):
        fields.append(value & (2**bits - 1))
        value >>= bits
    return Fields(*reversed(fields))


def _compose(fields: Fields) -> int:
    value = _UNIQUE_LOCAL
    for number, bits in (
        (fields.network, NETWORK_BITS),
        (fields.region, REGION_BITS),
        (fields.pop, POP_BITS),
        (fields.instance, INSTANCE_BITS),
    ):
        value = value << bits | number
    return value
