"""Places for names where there are too few for hashes alone, as in IPv4: once given, a place is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def places(names: Iterable[str], size: int, taken: Mapping[str, int]) -> dict[str, int]:
    """Give every name a place from 0 to size - 1 of its own; those that have one (`taken`) keep it.

    A new name gets the place that its hash says or the next free one, in the order of the names. The same names and
    the same places taken give the same answer. Raises OverflowError when there are more names than places.
    """
    given = dict(taken)
    used = set(taken.values())
    for name in sorted({*names} - given.keys()):
        if len(used) >= size:
            raise OverflowError(f"there is room for {size}")
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()) % size
        while place in used:
            place = (place + 1) % size
        given[name] = place
        used.add(place)
    return given
