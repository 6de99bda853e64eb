"""Parses YAML text into plain values and their line numbers. Ambiguous and duplicate keys and values are faults.

Uses PyYAML's parser in Python instead of libyaml's: a reload parses in a thread beside the event loop and must release
the GIL, which a call into C holds.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from yaml.composer import ComposerError
from yaml.reader import ReaderError

from app.config.faults import shown
from app.config.written import Written

MAX_FILE_BYTES: Final = 4 << 20
MAX_VALUES: Final = 250_000
"""Values of the whole file, counted after expanding aliases, with which a short text can describe a huge one."""

YamlPath = tuple[str | int, ...]

_TAG: Final = "tag:yaml.org,2002:"
_SCALARS: Final = re.compile(r"0o[0-7]+|0x[0-9A-Fa-f]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
"""Numbers of YAML 1.2 (1.2.2, section 10.3.2); PyYAML knows those of 1.1."""
_WORDS: Final = ("yes", "no")
"""Booleans in YAML 1.1, text in 1.2."""
_SCALAR_TAGS: Final = frozenset(_TAG + kind for kind in ("bool", "int", "float"))
_COLLECTIONS: Final = frozenset({_TAG + "map", _TAG + "seq"})


@dataclass
class Document:
    """The values of a file, the line of each path (from 1), and the faults: line, path, rule."""

    value: Any = None
    line_of: dict[YamlPath, int] = field(default_factory=dict)
    faults: list[tuple[int, YamlPath, str]] = field(default_factory=list)


def read_yaml(source: bytes, keys: tuple[str, str] = ("frontends", "backends")) -> Document:
    """Parse one YAML document. Syntax errors are faults of the returned document; raises nothing.

    `keys` are two required keys, which the fault of an empty document names.
    """
    document = Document()
    line, rule = 1, ""
    try:
        if len(source) > MAX_FILE_BYTES:
            raise _TooMuchError(f"is larger than {MAX_FILE_BYTES >> 20} MiB")
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


_PROBLEMS: Final = {
    "'\\t'": "a tab; indent YAML with spaces",
    "scanning an alias": "a name must follow *; put text that begins with * in quotes",
    "undefined alias": "* refers to an anchor (&) that is not there; put text that begins with * in quotes",
    "mapping values are not allowed": "a key is not expected here; see the indentation, or put text with : in quotes",
    "<stream end>": "the file ends within a value; a bracket or a quote is not closed",
    "could not find expected ':'": "a key without a colon",
    "but found '<block": "the indentation differs from the lines above",
    "expected <block end>": "the indentation differs from the lines above, or text with , or ] needs quotes",
    "expected ',' or": "a comma or a closing bracket is missing",
    "unexpected end of stream": "the file ends within a text; a quote is not closed",
    "cannot start any token": "text that begins with this character needs quotes",
    "chr() arg": "an escape that is no character of Unicode",
    "unknown escape": "an unknown escape in a text with double quotes; single quotes have none",
    "incompatible YAML document": "needs YAML 1",
}
"""What PyYAML says, and what is to be said; the first that fits."""


class _TooMuchError(Exception):
    """The text is larger than any configuration needs."""


def _compose(text: str) -> yaml.Node | None:
    loader = yaml.SafeLoader(text)
    try:
        return loader.get_single_node()
    except (ValueError, OverflowError) as error:  # PyYAML does not catch those of chr()
        raise yaml.MarkedYAMLError(problem=str(error), problem_mark=loader.get_mark()) from None
    finally:
        loader.dispose()


def _syntax(error: yaml.MarkedYAMLError) -> tuple[int, str]:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return 1, str(error)
    if isinstance(error, ComposerError) and error.context == "expected a single document in the stream":
        return mark.line + 1, "a second document begins here; exactly one is allowed"
    problem = f"{error.context or ''}: {error.problem or 'is not YAML'}"
    words = next((words for part, words in _PROBLEMS.items() if part in problem), error.problem or problem)
    return mark.line + 1, f"column {mark.column + 1}: {words}"


def _is_unicode(text: str) -> bool:
    """Return whether a text has no lone surrogates, which escapes in YAML can write but which cannot be encoded."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class _Builder:
    """Builds the values of composed nodes, expanding aliases and merge keys."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._resolve_plain: Callable[..., Any] = yaml.resolver.Resolver().resolve
        self._values = 0
        self._open: set[int] = set()

    def build_root(self, node: yaml.Node | None, keys: tuple[str, str]) -> None:
        """Build the whole document, which must be a mapping. Raises _TooMuchError, RecursionError."""
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
        if self._values > MAX_VALUES:
            raise _TooMuchError(f"has more than {MAX_VALUES:,} values after expanding aliases")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if node.tag not in _COLLECTIONS:
            self._refuse(node, path, f"the tag {node.tag.removeprefix(_TAG)} is not supported")
        if id(node) in self._open:
            self._refuse(node, path, "contains itself")
            return None
        self._open.add(id(node))
        try:
            return self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        finally:
            self._open.discard(id(node))

    def _scalar(self, node: yaml.ScalarNode, path: YamlPath) -> Any:
        text = node.value
        if not _is_unicode(text):
            self._refuse(node, path, f"{shown(text)} is not Unicode")
            return None
        if node.tag == _TAG + "str":
            is_number = node.style is None and _SCALARS.fullmatch(text)
            return Written(text) if is_number else text
        if node.style is not None or node.tag != self._resolve(text):
            self._refuse(node, path, f"the tag {node.tag.removeprefix(_TAG)} is not supported")
        if node.tag == _TAG + "null":
            return None
        is_scalar = node.tag in _SCALAR_TAGS and text.lower() not in _WORDS
        return Written(text) if is_scalar else text

    def _resolve(self, text: str) -> str:
        """Return the tag that a plain scalar has in YAML 1.1."""
        return str(self._resolve_plain(yaml.ScalarNode, text, (True, False)))

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
                self._refuse(key, path, "a key must be plain text")
            elif key.value in values:
                here = (*path, key.value)
                self._refuse(key, here, f"is a duplicate of the key in line {self._document.line_of[here]}")
            else:
                self._document.line_of[(*path, key.value)] = key.start_mark.line + 1
                values[key.value] = self._build(item, (*path, key.value))
        for source in merged:
            self._merge(source, path, values)
        return values

    def _mergeable(self, node: yaml.Node, path: YamlPath) -> list[yaml.MappingNode]:
        """Return the mappings that a merge key refers to; anything else is a fault."""
        sources: list[yaml.MappingNode] = []
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(source, yaml.MappingNode):
                sources.append(source)
            else:
                self._refuse(source, path, "<< needs an alias of a mapping")
        return sources

    def _merge(self, source: yaml.MappingNode, path: YamlPath, values: dict[str, Any]) -> None:
        """Add the keys that the mapping does not have, so that earlier sources take precedence over later ones."""
        lines = self._document.line_of
        kept = {name: lines[(*path, name)] for name in values}
        for name, value in (self._build(source, path) or {}).items():
            values.setdefault(name, value)
        lines.update({(*path, name): line for name, line in kept.items()})
