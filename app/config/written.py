"""Plain scalars of YAML, kept as they are written. The type of the key decides what a scalar means.

YAML 1.1 reads 010 as 8, 1:30 as 90 and no as false, YAML 1.2 as 10 and as text. Here a number is a number where one is
asked for, text where text is asked for; a form that the versions read differently is a fault where it would matter.
"""

from __future__ import annotations

import re
from typing import Final

_WHOLE: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})")
"""What every version of YAML reads alike (1.2.2, section 10.3.2, without octal and hexadecimal)."""
_NUMBER: Final = re.compile(r"[-+]?(0|[1-9][0-9]{0,18})?(\.[0-9]{0,30})?")
_BOOLEANS: Final = {"true": True, "on": True, "false": False, "off": False}
"""on and off in addition to YAML 1.2; yes and no are text there."""


class Written(str):
    """A plain scalar that is a number or a boolean in some version of YAML. Faults quote it as it is written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def whole(value: object) -> object:
    """Return the whole number that a scalar is, other values unchanged. Raises ValueError."""
    if isinstance(value, Written):
        if not _WHOLE.fullmatch(value):
            raise ValueError("needs a whole number in decimal digits, without a leading 0")
        return int(value)
    return value


def is_number(text: str) -> bool:
    """Return whether every version of YAML reads a scalar as the same number."""
    return _NUMBER.fullmatch(text) is not None and any(character.isdigit() for character in text)


def number(value: object) -> object:
    """Return the number that a scalar is, other values unchanged. Raises ValueError."""
    if isinstance(value, Written):
        if not is_number(value):
            raise ValueError("needs a number in decimal digits, without a leading 0")
        return float(value)
    return value


def switch(value: object) -> object:
    """Return whether a scalar, or the text on or off, is on; other values unchanged."""
    if isinstance(value, Written):
        return _BOOLEANS.get(value.lower(), value)
    return {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
