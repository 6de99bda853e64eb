"""Faults of a configuration as lines for people: place, value, rule, and the nearest known name."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_MAX_VALUE_LENGTH: Final = 120
"""Characters of a value that a fault quotes."""

_NEEDS: Final = {
    "missing": "is required",
    "model_type": "needs keys and values below it",
    "dict_type": "needs keys and values below it",
    "tuple_type": "needs a list",
    "int_type": "needs a whole number, without quotes",
    "float_type": "needs a number, without quotes",
    "bool_type": "needs on or off",
}
"""pydantic's error types, in words for authors of YAML."""


class ConfigError(ValueError):
    """The configuration is invalid. `faults` has one line per fault: place, value, rule."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar, or None if none is close."""
    return next(iter(difflib.get_close_matches(name, [*known], n=1)), None)


def did_you_mean(name: str | None) -> str:
    """Return the suggestion that ends a fault; empty for None."""
    return f", did you mean {name}?" if name else ""


def shown(value: object) -> str:
    """Return a value as faults quote it: its repr, the middle of a long one left out."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = short.maxlong = _MAX_VALUE_LENGTH
    return short.repr(value)


def rule_of(fault: ErrorDetails) -> str:
    """Return the rule that a value broke."""
    given = fault["input"]
    if given is None:
        return "has no value: set one, or remove the key"
    if fault["type"] in _NEEDS:
        return _NEEDS[fault["type"]]
    if fault["type"] == "string_type" and isinstance(given, bool | int | float):
        return "needs text: put it in quotes" + ("" if isinstance(given, bool) else f', as in "{given}"')
    return fault["msg"].removeprefix("Value error, ")
