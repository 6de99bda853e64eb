"""JSON Schemas of the texts that parsers of this package accept, for the description of the admin API.

A schema accepts everything that its parser accepts. The parser may refuse more: a pattern cannot say which characters
are printable.
"""

from __future__ import annotations

from typing import Any, Final

JsonSchema = dict[str, Any]

NULL: Final[JsonSchema] = {"type": "null"}
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*$"
NOT_BLANK: Final = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*$"
"""Printable text that is not empty or all spaces."""


def or_null(schema: JsonSchema) -> JsonSchema:
    """Return a schema that also accepts null."""
    return {"anyOf": [schema, NULL]}
