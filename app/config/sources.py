"""Where the values of a configuration file stand: each key that differs from its default, with its line."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import getitem
from typing import Any, NamedTuple

from pydantic import BaseModel

from app.config.file import path_text, validate
from app.config.yaml_text import Document, YamlPath, read_yaml


class WrittenKey(NamedTuple):
    """A key of the file, the value as it is written, and where: file:line."""

    key: str
    value: str
    source: str


def written_keys(source: bytes, name: str) -> Iterator[WrittenKey]:
    """Yield the keys of a valid file called `name` whose values differ from the defaults, in the order of the file."""
    document = read_yaml(source)
    content = validate(document.value, listeners=())
    for path in sorted(_different(content, (), document), key=document.line_of.__getitem__):
        written = reduce(getitem, path, document.value)
        yield WrittenKey(path_text(path), _text(written), f"{name}:{document.line_of[path]}")


def _different(model: BaseModel, path: YamlPath, document: Document) -> Iterator[YamlPath]:
    """Yield the paths of a model's keys that are written in the file and differ from their defaults."""
    for name, field in type(model).model_fields.items():
        here, value = (*path, str(field.validation_alias or name)), getattr(model, name)
        if here not in document.line_of:
            continue
        if isinstance(value, BaseModel):
            yield from _different(value, here, document)
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                yield from _different(item, (*here, index), document)
        elif field.is_required() or str(value) != str(field.get_default()):
            yield here


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {item}" for key, item in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
