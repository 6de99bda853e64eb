"""Whether the description of the admin API allows a value that a parser accepts."""

from __future__ import annotations

from functools import cache
from typing import Any

from jsonschema import Draft202012Validator
from pydantic import BaseModel


@cache
def _validator(model: type[BaseModel]) -> Draft202012Validator:
    described = model.model_json_schema()
    Draft202012Validator.check_schema(described)
    return Draft202012Validator(described, format_checker=Draft202012Validator.FORMAT_CHECKER)


def is_described(model: type[BaseModel], value: dict[str, Any]) -> bool:
    """Return whether a value matches the schema of a model of the API."""
    return bool(_validator(model).is_valid(value))
