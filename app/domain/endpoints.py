"""Endpoints: the requests that each takes (by domain, path and method), its limits, and its validation."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from app.domain.model import Fault
from app.domain.path_rules import path_faults, shape_of

METHODS: Final = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT")
DEFAULT_TIMEOUT_SECONDS: Final = 30.0
MIN_TIMEOUT_SECONDS: Final = 0.01
MAX_TIMEOUT_SECONDS: Final = 3600.0
DEFAULT_CONCURRENCY: Final = 100
MAX_CONCURRENCY: Final = 1_000_000
DEFAULT_BODY_BYTES: Final = 1 << 20
MAX_BODY_BYTES: Final = 1 << 30
MAX_RULE_CHARACTERS: Final = 500

MAX_NAME_CHARACTERS: Final = 200
MAX_DOMAIN_CHARACTERS: Final = 253

_LABEL: Final = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
ID_PATTERN: Final = "^[a-z0-9][a-z0-9_-]{0,62}$"
DOMAIN_PATTERN: Final = rf"^(\*\.)?{_LABEL}(\.{_LABEL})*$"

_ID: Final = re.compile(ID_PATTERN)
_DOMAIN: Final = re.compile(DOMAIN_PATTERN)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A validated endpoint: the requests for one handler.

    `domain` is a host name, `*.` followed by a host name for all its subdomains, or None for every host. `path` is a
    rule without a trailing slash; a request may have one. GET includes HEAD. `max_concurrency` 0 is unlimited.
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
        """The path without parameter names: two rules of the same shape match the same paths."""
        return shape_of(self.path)

    @property
    def effective_methods(self) -> frozenset[str]:
        """The methods, plus HEAD if GET is among them."""
        return frozenset(self.methods) | ({"HEAD"} if "GET" in self.methods else set())


COLUMNS: Final = tuple(column.name for column in dataclasses.fields(Endpoint))


class BadEndpoint(ValueError):
    """An endpoint is invalid. `faults` lists everything that is wrong, at least one entry."""

    def __init__(self, endpoint_id: object, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"endpoint {endpoint_id!r}: " + "; ".join(map(str, faults)))
        self.endpoint_id = endpoint_id
        self.faults = faults


class EndpointConflict(ValueError):
    """Two endpoints would take the same requests: `endpoint_id` claims what `taken_by` already has."""

    def __init__(self, endpoint_id: str, taken_by: str, methods: Iterable[str]) -> None:
        self.endpoint_id = endpoint_id
        self.taken_by = taken_by
        self.methods = tuple(sorted(methods))
        super().__init__(
            f"endpoint {endpoint_id!r} conflicts with {taken_by!r}: same domain, same path, {', '.join(self.methods)}"
        )


class Match(NamedTuple):
    """The endpoint that takes a request, and the parameters in its path."""

    endpoint_id: str
    params: Mapping[str, Any]


class MethodNotAllowed(NamedTuple):
    """An endpoint has the path but not the method. `methods` are for the Allow header (RFC 9110, section 10.2.1)."""

    methods: tuple[str, ...]


class Routes(Protocol):
    """Finds the endpoint that takes a request."""

    def match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        """Match a request: `host` as in the Host header, `path` as in the request line without query. Never raises."""
        ...


def check_conflicts(endpoints: Iterable[Endpoint]) -> None:
    """Raise EndpointConflict if two endpoints have the same domain, the same path shape and a method in common."""
    taken: dict[tuple[str | None, str, str], str] = {}
    for endpoint in endpoints:
        place, methods = (endpoint.domain, endpoint.shape), endpoint.effective_methods
        others = {method: taken[*place, method] for method in methods if (*place, method) in taken}
        if others:
            other = min(others.values())
            raise EndpointConflict(endpoint.id, other, (method for method in others if others[method] == other))
        taken.update({(*place, method): endpoint.id for method in methods})


def parse_endpoint(given: Mapping[str, object]) -> Endpoint:
    """Make an Endpoint from an operator's input or a database row. Absent and None values take their defaults.

    `id` and `path` are required; `name` defaults to the id. Raises BadEndpoint with every fault.
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
        max_concurrency=reader.number("max_concurrency", DEFAULT_CONCURRENCY, MAX_CONCURRENCY),
        max_body_bytes=reader.number("max_body_bytes", DEFAULT_BODY_BYTES, MAX_BODY_BYTES),
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
    """Reads the fields one by one and collects every fault; a faulty field yields a placeholder."""

    given: Mapping[str, object]
    faults: list[Fault] = field(default_factory=list)

    def fault(self, key: str, rule: str) -> None:
        self.faults.append(Fault(key, self.given.get(key), rule))

    def id(self) -> str:
        value = self.given.get("id")
        if isinstance(value, str) and _ID.fullmatch(value):
            return value
        self.fault("id", "must be 1 to 63 characters of a-z, 0-9, - and _, starting with a letter or digit")
        return ""

    def name(self, default: str) -> str:
        value = self.given.get("name")
        if value is None:
            return default
        if isinstance(value, str) and value.isprintable() and 0 < len(value.strip()) <= MAX_NAME_CHARACTERS:
            return value.strip()
        self.fault("name", f"must be printable text of 1 to {MAX_NAME_CHARACTERS} characters")
        return ""

    def domain(self) -> str | None:
        value = self.given.get("domain")
        if value is None:
            return None
        if isinstance(value, str) and len(value) <= MAX_DOMAIN_CHARACTERS and _DOMAIN.fullmatch(value):
            return value.lower()
        self.fault("domain", "must be a host name such as api.example.com or *.example.com, in ASCII, without a port")
        return None

    def path(self) -> str:
        value = self.given.get("path")
        if not isinstance(value, str) or not value.startswith("/") or len(value) > MAX_RULE_CHARACTERS:
            self.fault("path", f"must start with / and have at most {MAX_RULE_CHARACTERS} characters")
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
        self.fault("methods", f"must be a list with at least one of {', '.join(METHODS)}")
        return ()

    def seconds(self) -> float:
        value = self.given.get("timeout_seconds")
        if value is None:
            return DEFAULT_TIMEOUT_SECONDS
        lowest, highest = MIN_TIMEOUT_SECONDS, MAX_TIMEOUT_SECONDS
        if isinstance(value, int | float) and not isinstance(value, bool) and lowest <= value <= highest:
            return float(value)
        self.fault("timeout_seconds", f"must be a number of seconds from {lowest:g} to {highest:g}")
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
