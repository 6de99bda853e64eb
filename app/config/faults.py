"""Faults of a configuration as lines for people: place, value, rule, and the nearest known name."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from app.config.patterns import RULES

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
    "int_parsing": "needs a whole number",
    "int_parsing_size": "needs a whole number of at most 4,300 digits",
    "int_from_float": "needs a whole number",
    "float_parsing": "needs a number",
    "finite_number": "needs a number that is not infinite",
    "bool_parsing": "needs true or false",
    "string_type": "needs text",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "string_too_short": "needs at least {min_length} characters",
    "string_too_long": "needs at most {max_length} characters",
}
"""pydantic's error types, in words for authors of YAML and of variables; fields are those of the error's context."""


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
    context = fault.get("ctx", {})
    if fault["type"] == "string_type" and isinstance(given, bool | int | float):
        return "needs text: put it in quotes" + ("" if isinstance(given, bool) else f', as in "{given}"')
    if fault["type"] == "literal_error":
        return _one_of(re.findall(r"'(.*?)'", context["expected"]), given)
    if fault["type"] == "string_pattern_mismatch":
        return RULES[context["pattern"]]
    if fault["type"] in _NEEDS:
        return _NEEDS[fault["type"]].format_map({name: _plain(value) for name, value in context.items()})
    return fault["msg"].removeprefix("Value error, ")


def _one_of(words: list[str], given: object) -> str:
    """Return the rule that a value must be one of some words, and the nearest of them."""
    near = nearest(given.strip().lower(), words) if isinstance(given, str) else None
    return f"needs {', '.join(words[:-1])} or {words[-1]}{did_you_mean(near)}"


def _plain(value: object) -> str:
    return f"{value:.15g}" if isinstance(value, int | float) else str(value)
