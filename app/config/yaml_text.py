"""YAML text -> plain values and the line of each. Nothing is guessed: what is ambiguous or doubled is a fault.

PyYAML's parser in Python on purpose, not libyaml's: a reload parses in a thread beside the event loop and must let go
of the interpreter's lock, which a call into C keeps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from app.config.faults import shown

LARGEST_FILE_BYTES: Final = 4 << 20
MOST_VALUES: Final = 250_000
"""Of the whole file, every use of an alias counted: a short text can say a very long one."""

YamlPath = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
_PLAIN: Final = frozenset(_TAG + kind for kind in ("null", "bool", "int", "float"))
_LONGEST_INTEGER_BITS: Final = 64
"""Longer ones cannot always be shown: Python refuses to write out those of more than 4,300 digits."""
_LONGEST_NUMBER: Final = 64
"""Characters. YAML has numbers to base 60, 1:1:1, which take a time that grows with the square of their length."""
_COLLECTIONS: Final = frozenset({_TAG + "map", _TAG + "seq"})


@dataclass
class Document:
    """The values of a file, where each stands (line from 1, by path), and what is wrong: line, path, rule."""

    value: Any = None
    line_of: dict[YamlPath, int] = field(default_factory=dict)
    faults: list[tuple[int, YamlPath, str]] = field(default_factory=list)


def read_yaml(source: bytes, keys: tuple[str, str] = ("frontends", "backends")) -> Document:
    """Read one YAML document. What cannot be read is a fault of the answer; raises nothing.

    `keys` are two that it is about: an empty document is told to have them.
    """
    document = Document()
    line, rule = 1, ""
    try:
        if len(source) > LARGEST_FILE_BYTES:
            raise _TooMuchError(f"is larger than {LARGEST_FILE_BYTES >> 20} MiB")
        _Builder(document).build_root(_compose(source.decode("utf-8-sig")), keys)
        return document
    except UnicodeDecodeError as error:
        line, rule = source.count(b"\n", 0, error.start) + 1, f"byte {source[error.start]:#04x} is not UTF-8"
    except ReaderError as error:
        before = source.decode("utf-8-sig")[: error.position]
        line, rule = before.count("\n") + 1, f"character {error.character:#x} is not allowed in YAML"
    except yaml.MarkedYAMLError as error:
        line, rule = _syntax(error)
    except RecursionError:
        rule = "is nested too deeply"
    except _TooMuchError as error:
        rule = str(error)
    return Document(faults=[(line, (), rule)])


class _TooMuchError(Exception):
    """The text says more than any configuration needs."""


def _compose(text: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # PyYAML lets those of chr() out
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=loader.get_mark()) from None
    finally:
        loader.dispose()


def _syntax(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return 1, str(error)
    if isinstance(error, ComposerError) and error.context == "expected a single document in the stream":
        return mark.line + 1, "a second document begins here; needs exactly one"
    problem = error.problem or error.context or "no YAML"
    if error.context == "while scanning an alias":
        problem = f"{problem}; text that begins with * needs quotes"
    if "'\\t'" in problem:
        problem = "a tab; YAML is indented with spaces"
    return mark.line + 1, f"column {mark.column + 1}: {problem}"


def _is_unicode(text: str) -> bool:
    """Say whether a text has no lone surrogates, which YAML's escapes can write and nothing can print."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Builder:
    """Builds the values of composed nodes, aliases and merge keys written out."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = yaml.constructor.SafeConstructor()
        self._values = 0
        self._open: set[int] = set()

    def build_root(self, node: yaml.Node | None, keys: tuple[str, str]) -> None:
        """Build the whole document, which is to be a mapping. Raises _TooMuchError, RecursionError."""
        if node is None or node.tag == _TAG + "null":
            self._refuse(node, (), f"is empty: needs {' and '.join(keys)}")
        elif not isinstance(node, yaml.MappingNode):
            self._refuse(node, (), f"needs keys and values, such as {': and '.join(keys)}:")
        else:
            self._document.line_of[()] = node.start_mark.line + 1
            self._document.value = self._build(node, ())

    def _refuse(self, node: yaml.Node | None, path: YamlPath, rule: str) -> None:
        self._document.faults.append((node.start_mark.line + 1 if node else 1, path, f": {rule}"))

    def _build(self, node: yaml.Node, path: YamlPath) -> Any:
        self._values += 1
        if self._values > MOST_VALUES:
            raise _TooMuchError(f"says more than {MOST_VALUES:,} values, aliases written out")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTIONS:
            self._refuse(node, path, f"the tag {node.tag.removeprefix(_TAG)} has no meaning here")
        if id(node) in self._open:
            self._refuse(node, path, "contains itself")
            return None
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, path: YamlPath) -> Any:
        if node.tag == _TAG + "str" and _is_unicode(node.value):
            return node.value
        try:
            is_plain = node.tag in _PLAIN and len(node.value) <= _LONGEST_NUMBER
            value = self._constructor.construct_object(node) if is_plain else node
        except (ValueError, LookupError, ArithmeticError):
            value = node
        if value is node or (isinstance(value, int) and value.bit_length() > _LONGEST_INTEGER_BITS):
            rule = f"={shown(node.value)}: is neither text nor a number here: put text in quotes"
            self._document.faults.append((node.start_mark.line + 1, path, rule))
            return None
        return value

    def _sequence(self, node: yaml.Node, path: YamlPath) -> list[Any]:
        values = []
        for index, item in enumerate(node.value):
            self._document.line_of[(*path, index)] = item.start_mark.line + 1
            values.append(self._build(item, (*path, index)))
        return values

    def _mapping(self, node: yaml.MappingNode, path: YamlPath) -> dict[str, Any]:
        values: dict[str, Any] = {}
        merged: list[yaml.MappingNode] = []
        for key, item in node.value:
            if key.tag == _TAG + "merge":
                merged += self._mergeable(item, path)
            elif not isinstance(key, yaml.ScalarNode) or not _is_unicode(key.value):
                self._refuse(key, path, "a key must be a word")
            elif key.value in values:
                here = (*path, key.value)
                self._refuse(key, here, f"is given twice, first in line {self._document.line_of[here]}")
            else:
                self._document.line_of[(*path, key.value)] = key.start_mark.line + 1
                values[key.value] = self._build(item, (*path, key.value))
        for source in merged:
            self._merge(source, path, values)
        return values

    def _mergeable(self, node: yaml.Node, path: YamlPath) -> list[yaml.MappingNode]:
        """Return the sources of a merge key, those that are none refused."""
        sources: list[yaml.MappingNode] = []
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                sources.append(source)
            else:
                self._refuse(source, path, "<< needs an alias of keys and values")
        return sources

    def _merge(self, source: yaml.MappingNode, path: YamlPath, values: dict[str, Any]) -> None:
        """Add what the source has and the mapping has not; sources named earlier go before later ones."""
        lines = self._document.line_of
        kept = {name: lines[(*path, name)] for name in values}
        for name, value in (self._build(source, path) or {}).items():
            values.setdefault(name, value)
        lines.update({(*path, name): line for name, line in kept.items()})
