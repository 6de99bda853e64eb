"""Assigns places to names in a range too small for hashes alone, as in IPv4. An assigned place is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping


def assign_places(names: Iterable[str], size: int, taken: Mapping[str, int]) -> dict[str, int]:
    """Assign every name its own place from 0 to size - 1; names in `taken` keep theirs.

    New names, in sorted order, get the place given by their hash, or the next free one. The result depends only on the
    arguments. Raises OverflowError if there are more names than places.
    """
    assigned = dict(taken)
    used = set(taken.values())
    for name in sorted({*names} - assigned.keys()):
        if len(used) >= size:
            raise OverflowError(f"only {size} fit")
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()) % size
        while place in used:
            place = (place + 1) % size
        assigned[name] = place
        used.add(place)
    return assigned
