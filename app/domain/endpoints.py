"""What an endpoint is: the requests it takes by domain, path and method, its limits, and the one validation of it.

The path is a rule of werkzeug's: `/users/<int:id>/files/<path:name>`. Of its syntax only what cannot go wrong later is
accepted: one parameter a segment, one of kind `path` a rule, arguments that the parameter's kind knows.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from app.domain.model import Fault

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
LONGEST_TIMEOUT_SECONDS: Final = 3600.0
DEFAULT_CONCURRENCY: Final = 100
DEFAULT_BODY_BYTES: Final = 1 << 20
MOST_BODY_BYTES: Final = 1 << 30
LONGEST_RULE: Final = 500
_LARGEST_COUNT: Final = 10_000
"""Of what a parameter's argument may count: characters, digits."""

_ID: Final = re.compile(r"[a-z0-9](?:[a-z0-9_-]{0,62})")
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_LITERAL: Final = re.compile(r"[^<>%?#|\\\s]*")
_SEGMENT: Final = re.compile(
    r"(?P<before>[^<>]*)<(?:(?P<kind>[a-z]+)(?:\((?P<arguments>[^()<>]+)\))?:)?(?P<name>[A-Za-z]\w*)>(?P<after>[^<>]*)",
    re.ASCII,
)
_ARGUMENT: Final = re.compile(
    r"""\s*(?:(?P<name>[a-z_]+)=(?P<value>True|False|\d+(?:\.\d+)?)|(?P<word>[A-Za-z_]\w*)|"(?P<quoted>[^"]+)")\s*""",
    re.ASCII,
)
_COUNTS: Final = ("fixed_digits", "minlength", "maxlength", "length")
_KINDS: Final[Mapping[str, frozenset[str]]] = {
    # kind of parameter: the arguments it knows, as werkzeug's converters do; `any` takes words instead
    "string": frozenset({"minlength", "maxlength", "length"}),
    "int": frozenset({"fixed_digits", "min", "max", "signed"}),
    "float": frozenset({"min", "max", "signed"}),
    "any": frozenset(),
    "uuid": frozenset(),
    "path": frozenset(),
}
_NOT_WORDS: Final = ("True", "False", "None")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Requests that one handler answers, validated.

    `domain` is a host name, `*.` and a host name for everything below it, or None for every host. `path` is a rule
    without a slash at its end: a request may have one or not. GET takes HEAD too. `max_concurrency` 0 is unlimited.
    """

    id: str
    name: str
    path: str
    domain: str | None = None
    methods: tuple[str, ...] = ("GET",)
    timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS
    max_concurrency: int = DEFAULT_CONCURRENCY
    max_body_bytes: int = DEFAULT_BODY_BYTES
    is_enabled: bool = True

    @property
    def shape(self) -> str:
        """The path without the names of its parameters: two rules of one shape match the same paths."""
        return "/".join(map(_shape, self.path.split("/")))

    @property
    def effective_methods(self) -> frozenset[str]:
        """The methods, and HEAD where GET is among them."""
        return frozenset(self.methods) | ({"HEAD"} if "GET" in self.methods else set())


COLUMNS: Final = tuple(column.name for column in dataclasses.fields(Endpoint))


class BadEndpoint(ValueError):
    """What was given is no endpoint. `faults` names everything wrong with it, at least one."""

    def __init__(self, endpoint_id: object, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"endpoint {endpoint_id!r}: " + "; ".join(map(str, faults)))
        self.endpoint_id = endpoint_id
        self.faults = faults


class EndpointConflict(ValueError):
    """Two endpoints would take the same requests: `endpoint_id` what `taken_by` has already."""

    def __init__(self, endpoint_id: str, taken_by: str, methods: Iterable[str]) -> None:
        self.endpoint_id = endpoint_id
        self.taken_by = taken_by
        self.methods = tuple(sorted(methods))
        super().__init__(
            f"endpoint {endpoint_id!r} conflicts with {taken_by!r}: same domain, same path, {', '.join(self.methods)}"
        )


class Match(NamedTuple):
    """Which endpoint takes a request, and what its path says."""

    endpoint_id: str
    params: Mapping[str, Any]


class MethodNotAllowed(NamedTuple):
    """The path is an endpoint's, the method is not: these are (the Allow header, RFC 9110, section 10.2.1)."""

    methods: tuple[str, ...]


class Routes(Protocol):
    """Finds the endpoint that takes a request."""

    def match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        """`host` as in the Host header, `path` as in the request line, without the query. Never raises."""
        ...


def check_conflicts(endpoints: Iterable[Endpoint]) -> None:
    """Raise EndpointConflict, if two endpoints have the same domain, the same shape of path and a method in common."""
    taken: dict[tuple[str | None, str, str], str] = {}
    for endpoint in endpoints:
        place, methods = (endpoint.domain, endpoint.shape), endpoint.effective_methods
        others = {method: taken[*place, method] for method in methods if (*place, method) in taken}
        if others:
            other = min(others.values())
            raise EndpointConflict(endpoint.id, other, (method for method in others if others[method] == other))
        taken.update({(*place, method): endpoint.id for method in methods})


def parse_endpoint(given: Mapping[str, object]) -> Endpoint:
    """Make an Endpoint of what an operator or the database says; what is absent or None has its default.

    `id` and `path` have none; `name` is the id by default. Raises BadEndpoint with every fault.
    """
    reader = _Reader(given)
    endpoint_id = reader.id()
    endpoint = Endpoint(
        id=endpoint_id,
        name=reader.name(endpoint_id),
        path=reader.path(),
        domain=reader.domain(),
        methods=reader.methods(),
        timeout_seconds=reader.seconds(),
        max_concurrency=reader.number("max_concurrency", DEFAULT_CONCURRENCY, 1_000_000),
        max_body_bytes=reader.number("max_body_bytes", DEFAULT_BODY_BYTES, MOST_BODY_BYTES),
        is_enabled=reader.flag("is_enabled", True),
    )
    for key in given:
        if key not in COLUMNS:
            reader.fault(str(key), f"is unknown; known: {', '.join(COLUMNS)}")
    if reader.faults:
        raise BadEndpoint(given.get("id"), tuple(reader.faults))
    return endpoint


@dataclass
class _Reader:
    """Reads one field after the other, collecting every fault; a faulty field yields a placeholder."""

    given: Mapping[str, object]
    faults: list[Fault] = field(default_factory=list)

    def fault(self, key: str, rule: str) -> None:
        self.faults.append(Fault(key, self.given.get(key), rule))

    def id(self) -> str:
        value = self.given.get("id")
        if isinstance(value, str) and _ID.fullmatch(value):
            return value
        self.fault("id", "must be 1 to 63 of a-z, 0-9, - and _, the first a letter or digit")
        return ""

    def name(self, default: str) -> str:
        value = self.given.get("name")
        if value is None:
            return default
        if isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= 200:
            return value.strip()
        self.fault("name", "must be printable text of 1 to 200 characters")
        return ""

    def domain(self) -> str | None:
        value = self.given.get("domain")
        if value is None:
            return None
        if isinstance(value, str) and len(value) <= 253 and _DOMAIN.fullmatch(value.lower()):
            return value.lower()
        self.fault("domain", "must be a host name such as api.example.com or *.example.com, in ASCII, without a port")
        return None

    def path(self) -> str:
        value = self.given.get("path")
        if not isinstance(value, str) or not value.startswith("/") or len(value) > LONGEST_RULE:
            self.fault("path", f"must be text that begins with / and has at most {LONGEST_RULE} characters")
            return "/"
        for wrong in path_faults(value):
            self.fault("path", wrong)
        return value.rstrip("/") or "/"

    def methods(self) -> tuple[str, ...]:
        value = self.given.get("methods")
        if value is None:
            return ("GET",)
        if isinstance(value, list | tuple) and value and all(isinstance(one, str) for one in value):
            methods = {str(one).upper() for one in value}
            if methods <= set(METHODS):
                return tuple(sorted(methods))
        self.fault("methods", f"must be a list of at least one of {', '.join(METHODS)}")
        return ()

    def seconds(self) -> float:
        value = self.given.get("timeout_seconds")
        if value is None:
            return DEFAULT_TIMEOUT_SECONDS
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= LONGEST_TIMEOUT_SECONDS:
            return float(value)
        self.fault("timeout_seconds", f"must be seconds, more than 0 and at most {LONGEST_TIMEOUT_SECONDS:.0f}")
        return 0.0

    def number(self, key: str, default: int, highest: int) -> int:
        value = self.given.get(key)
        if value is None:
            return default
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= highest:
            return value
        self.fault(key, f"must be a whole number from 0 to {highest}")
        return 0

    def flag(self, key: str, default: bool) -> bool:
        value = self.given.get(key)
        if value is None:
            return default
        if isinstance(value, bool):
            return value
        self.fault(key, "must be true or false")
        return default


def path_faults(rule: str) -> list[str]:
    """Say what is wrong with a path rule that begins with a slash."""
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
                f"{segment!r} must have one parameter such as <name> or <int:name>, its name without a first _"
            )
            continue
        faults += [wrong for text in (found["before"], found["after"]) if text for wrong in _literal_faults(text)]
        names.append(found["name"])
        kinds.append(found["kind"] or "string")
        faults += _kind_faults(kinds[-1], found["arguments"])
    faults += [f"<{name}> is there twice" for name in sorted({name for name in names if names.count(name) > 1})]
    if kinds.count("path") > 1:
        faults.append("only one parameter may be a path")
    return faults


def _literal_faults(text: str) -> list[str]:
    if text in ("", ".", ".."):
        return [f"a segment must not be {text!r}"]
    if not text.isprintable() or not _LITERAL.fullmatch(text):
        return [f"{text!r} must be printable, not percent-encoded, without spaces and any of ? # | \\"]
    return []


def _kind_faults(kind: str, arguments: str | None) -> list[str]:
    """Say what is wrong with a parameter's kind and the arguments to it."""
    if kind not in _KINDS:
        return [f"{kind!r} is no kind of parameter: {', '.join(sorted(_KINDS))}"]
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
                f"{kind}({arguments}): knows {', '.join(sorted(_KINDS[kind])) or 'no arguments'}, as name=value, once"
            ]
        values[name] = found["value"]
    return [f"{kind}({arguments}): {wrong}" for wrong in _value_faults(kind, values)]


def _choice_faults(arguments: str) -> list[str]:
    found = [_ARGUMENT.fullmatch(text) for text in arguments.split(",")]
    if all(one is not None and (one["quoted"] or one["word"]) for one in found) and not any(
        one is not None and one["word"] in _NOT_WORDS for one in found
    ):
        return []
    return [f'any({arguments}): needs words such as any(one,two,"in quotes")']


def _value_faults(kind: str, values: Mapping[str, str]) -> list[str]:
    faults = []
    for name, value in values.items():
        is_whole: Callable[[str], bool] = str.isdecimal
        if name == "signed":
            if value not in ("True", "False"):
                faults.append("signed must be True or False")
        elif value in ("True", "False") or (kind != "float" and not is_whole(value)):
            faults.append(f"{name} must be a {'number' if kind == 'float' else 'whole number'}")
        elif name in _COUNTS and not 1 <= int(value) <= _LARGEST_COUNT:
            faults.append(f"{name} must be from 1 to {_LARGEST_COUNT}")
    if faults:
        return faults
    if "length" in values and len(values) > 1:
        return ["length goes alone"]
    for low, high in (("minlength", "maxlength"), ("min", "max")):
        if low in values and high in values and float(values[low]) > float(values[high]):
            return [f"{low} is above {high}"]
    return []


def _shape(segment: str) -> str:
    """Return a segment with nothing of its parameter but kind and arguments, in one order."""
    found = _SEGMENT.fullmatch(segment)
    if found is None:
        return segment
    arguments = ",".join(sorted(text.strip() for text in (found["arguments"] or "").split(",")))
    return f"{found['before']}<{found['kind'] or 'string'}({arguments})>{found['after']}"
