"""Path rules of endpoints: `/users/<int:id>/files/<path:name>`, in werkzeug's syntax.

Only the safe part of that syntax is accepted: one parameter per segment, one parameter of kind `path` per rule, and
arguments that the kind knows. So every accepted rule can be routed, in time proportional to the length of the path.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

_MAX_COUNT: Final = 10_000
"""Maximum value of an argument that counts characters or digits."""

_LITERAL: Final = re.compile(r"[^<>%?#|\\\s]*")
_SEGMENT: Final = re.compile(
    r"(?P<before>[^<>]*)<(?:(?P<kind>[a-z]+)(?:\((?P<arguments>[^()<>]+)\))?:)?(?P<name>[A-Za-z]\w*)>(?P<after>[^<>]*)",
    re.ASCII,
)
_ARGUMENT: Final = re.compile(
    r"""\s*(?:(?P<name>[a-z_]+)=(?P<value>True|False|\d+(?:\.\d+)?)|(?P<word>[A-Za-z_]\w*)|"(?P<quoted>[^"]+)")\s*""",
    re.ASCII,
)
_TEXT: Final = r"[^\x00-\x20\x7f<>%?#|\\/]"
_PARAMETER: Final = r"<((string|int|float|any|uuid|path)(\([^()<>/]+\))?:)?[A-Za-z][A-Za-z0-9_]*>"
PATTERN: Final = rf"^/$|^(/({_TEXT}+|{_TEXT}*{_PARAMETER}{_TEXT}*))+/?$"
"""Matches every valid rule, and some that break a rule which no pattern can express: `/<a>/<a>`."""
_COUNTS: Final = ("fixed_digits", "minlength", "maxlength", "length")
_KINDS: Final[Mapping[str, frozenset[str]]] = {
    # kind of parameter: the arguments of werkzeug's converter; `any` takes words instead
    "string": frozenset({"minlength", "maxlength", "length"}),
    "int": frozenset({"fixed_digits", "min", "max", "signed"}),
    "float": frozenset({"min", "max", "signed"}),
    "any": frozenset(),
    "uuid": frozenset(),
    "path": frozenset(),
}
_NOT_WORDS: Final = ("True", "False", "None")


def path_faults(rule: str) -> list[str]:
    """Return what is wrong with a path rule that begins with a slash."""
    faults: list[str] = []
    names: list[str] = []
    kinds: list[str] = []
    segments = rule[1:].split("/")
    if segments[-1] == "":  # a slash at the end, or the root
        segments.pop()
    for segment in segments:
        if "<" not in segment and ">" not in segment:
            faults += _literal_faults(segment)
            continue
        found = _SEGMENT.fullmatch(segment)
        if found is None:
            faults.append(
                f"{segment!r} must have one parameter such as <name> or <int:name>, whose name does not start with _"
            )
            continue
        faults += [wrong for text in (found["before"], found["after"]) if text for wrong in _literal_faults(text)]
        names.append(found["name"])
        kinds.append(found["kind"] or "string")
        faults += _kind_faults(kinds[-1], found["arguments"])
    faults += [f"<{name}> occurs twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if kinds.count("path") > 1:
        faults.append("only one parameter may be a path")
    return faults


def _literal_faults(text: str) -> list[str]:
    if text in ("", ".", ".."):
        return [f"a segment must not be {text!r}"]
    if not text.isprintable() or not _LITERAL.fullmatch(text):
        return [f"{text!r} must be printable and not percent-encoded, without spaces and without ? # | \\"]
    return []


def _kind_faults(kind: str, arguments: str | None) -> list[str]:
    """Return what is wrong with the kind of a parameter or its arguments."""
    if kind not in _KINDS:
        return [f"{kind!r} is not a kind of parameter; use one of {', '.join(sorted(_KINDS))}"]
    if kind == "any":
        return _choice_faults(arguments or "")
    if arguments is None:
        return []
    values: dict[str, str] = {}
    for text in arguments.split(","):
        found = _ARGUMENT.fullmatch(text)
        name = found["name"] if found is not None else None
        if found is None or name not in _KINDS[kind] or name in values:
            return [
                f"{kind}({arguments}): takes {', '.join(sorted(_KINDS[kind])) or 'no arguments'}, once, as name=value"
            ]
        values[name] = found["value"]
    return [f"{kind}({arguments}): {wrong}" for wrong in _value_faults(kind, values)]


def _choice_faults(arguments: str) -> list[str]:
    found = [_ARGUMENT.fullmatch(text) for text in arguments.split(",")]
    if all(one is not None and (one["quoted"] or one["word"]) for one in found) and not any(
        one is not None and one["word"] in _NOT_WORDS for one in found
    ):
        return []
    return [f'any({arguments}): must list words, such as any(one,two,"in quotes")']


def _value_faults(kind: str, values: Mapping[str, str]) -> list[str]:
    faults = []
    for name, value in values.items():
        is_whole: Callable[[str], bool] = str.isdecimal
        if name == "signed":
            if value not in ("True", "False"):
                faults.append("signed must be True or False")
        elif value in ("True", "False") or (kind != "float" and not is_whole(value)):
            faults.append(f"{name} must be a {'number' if kind == 'float' else 'whole number'}")
        elif name in _COUNTS and not 1 <= int(value) <= _MAX_COUNT:
            faults.append(f"{name} must be from 1 to {_MAX_COUNT}")
    if faults:
        return faults
    if "length" in values and len(values) > 1:
        return ["length must be the only argument"]
    for low, high in (("minlength", "maxlength"), ("min", "max")):
        if low in values and high in values and float(values[low]) > float(values[high]):
            return [f"{low} is above {high}"]
    return []


def shape_of(rule: str) -> str:
    """Return a rule without parameter names. Two rules of the same shape match the same paths."""
    return "/".join(map(_shape, rule.split("/")))


def _shape(segment: str) -> str:
    """Return a segment with only the kind and the sorted arguments of its parameter."""
    found = _SEGMENT.fullmatch(segment)
    if found is None:
        return segment
    arguments = ",".join(sorted(text.strip() for text in (found["arguments"] or "").split(",")))
    return f"{found['before']}<{found['kind'] or 'string'}({arguments})>{found['after']}"
