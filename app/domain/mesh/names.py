"""Names as numbers of a fixed width: short names can be read back from the number, longer ones are hashed.

Short names of a-z, 0-9 and hyphen are enumerated (bijective base 37), so no two of them share a number: up to three
characters in 16 bits, up to nine in 48. All other names get a higher number by SHA-256, without regard to other names;
the caller checks for collisions.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from typing import Final

_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz0123456789-"
_SHORT: Final = re.compile(r"[a-z0-9-]*")


def number_of(name: str, bits: int) -> int:
    """Return the number of a name, 0 for the empty name; always below 2**bits - 1."""
    longest, first_hashed = _short_names(bits)
    if len(name) <= longest and _SHORT.fullmatch(name):
        number = 0
        for character in name:
            number = number * len(_ALPHABET) + _ALPHABET.index(character) + 1
        return number
    hashed = int.from_bytes(hashlib.sha256(name.encode()).digest())
    return first_hashed + hashed % ((1 << bits) - 1 - first_hashed)


def short_name_of(number: int, bits: int) -> str | None:
    """Return the short name of a number, None if the number belongs to a hashed name."""
    if number >= _short_names(bits)[1]:
        return None
    characters = ""
    while number:
        number, digit = divmod(number - 1, len(_ALPHABET))
        characters = _ALPHABET[digit] + characters
    return characters


@cache
def _short_names(bits: int) -> tuple[int, int]:
    """Return the maximum length of short names, and the first number above all of them."""
    length, count = 0, 1
    while count + len(_ALPHABET) ** (length + 1) < 1 << bits:
        length += 1
        count += len(_ALPHABET) ** length
    return length, count
