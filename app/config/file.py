"""Reads the configuration file, YAML, into a FileConfig. Reports every fault with line, path, value and rule."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import getitem
from typing import Any, Final, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from app.config.clashes import Taken
from app.config.faults import ConfigError, did_you_mean, nearest, rule_of, shown
from app.config.loops import is_loopback, loop_rule, loops
from app.config.model import EXTENSION, FileConfig
from app.config.values import ListenAddress, listen_addresses, one_listen_address, server_address
from app.config.yaml_text import Document, YamlPath, read_yaml

T = TypeVar("T")

MAX_SUGGESTIONS: Final = 20
"""Faults that suggest the nearest name. One search among thousands of names takes milliseconds."""
_CONSEQUENCE: Final = "default_factory_not_called"
"""pydantic's error for a default that depends on an invalid value. Only the invalid value is reported."""
METRICS: Final = "EDGEPROXY_METRICS_LISTEN_ADDR"
"""The listener that overrides that of the file."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A rule that one place of the file breaks."""

    path: YamlPath
    rule: str


Listeners = Sequence[tuple[str, ListenAddress]]
"""Addresses that the process listens on beside its frontends: the variable of each, and the address."""


def read_file(source: bytes, name: str, *, listeners: Listeners = ()) -> FileConfig:
    """Parse the text of a configuration file. Raises ConfigError naming every fault.

    `name` is the file's name in faults. `listeners` are taken already; one of them may override the file's metrics.
    """
    return read_document(read_yaml(source), name, lambda values: validate(values, listeners=listeners))


def read_document(document: Document, name: str, parse: Callable[[Mapping[str, Any]], T]) -> T:
    """Return the result of `parse`, which may raise Faults, on a document. Raises ConfigError naming every fault."""
    located = list(document.faults)
    try:
        if document.value is not None:
            parsed = parse(document.value)
    except Faults as found:
        unread = {path for _, path, _ in document.faults}
        located += [
            (_line_of(document, fault.path), fault.path, fault.rule)
            for fault in found.faults
            if not any(fault.path[:length] in unread for length in range(len(fault.path) + 1))
        ]
    if located:
        raise ConfigError([_line(name, *fault) for fault in sorted(located, key=_by_line)])
    return parsed


def read_mapping(values: Mapping[str, Any], *, listeners: Listeners = ()) -> FileConfig:
    """Validate the content of a configuration file given as a mapping. Raises ConfigError naming every fault."""
    try:
        plain = json.loads(json.dumps(values))
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigError([f"must be JSON-like keys and values: {error}"]) from None
    try:
        return validate(plain, listeners=listeners)
    except Faults as found:
        raise ConfigError([f"{path_text(fault.path)}{fault.rule}" for fault in found.faults]) from None


class Faults(Exception):
    """Values of a file break rules."""

    def __init__(self, faults: list[Fault]) -> None:
        super().__init__(faults)
        self.faults = faults


def validate(values: Mapping[str, Any], *, listeners: Listeners) -> FileConfig:
    """Validate the values of a file. Raises Faults."""
    values = {key: value for key, value in values.items() if not key.startswith(EXTENSION)}
    faults = list(_conflicts(values, listeners))
    try:
        config = FileConfig.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        raise Faults([*faults_in(error, FileConfig, values), *faults]) from None
    if faults:
        raise Faults(faults)
    return config


def warnings_of(config: FileConfig) -> list[str]:
    """Return a line for each setting that is valid but probably a mistake."""
    used = {frontend.backend for frontend in config.frontends}
    listed = {pool.name for pool in config.backends if pool.servers}
    warnings = [f"backend {pool.name} is used by no frontend" for pool in config.backends if pool.name not in used]
    for pool in config.backends:
        headers = {frontend.tcp.send_proxy for frontend in config.frontends if frontend.backend == pool.name}
        if len(headers) > 1 and pool.health_check.type != "off":
            warnings.append(
                f"backend {pool.name}: its frontends differ in send_proxy, so its probes send no PROXY header"
            )
        if pool.servers and not any(server.weight for server in pool.servers):
            warnings.append(f"backend {pool.name}: every server has weight 0, so it takes no new clients")
    for frontend in config.frontends:
        if frontend.algorithm == "geo" and frontend.backend in listed:
            warnings.append(
                f"frontend {frontend.name}: algorithm geo needs locations, which listed servers do not have"
            )
    return warnings


# Faults as text


def _by_line(fault: tuple[int, YamlPath, str]) -> int:
    return fault[0]


def _line(name: str, line: int, path: YamlPath, rule: str) -> str:
    return f"{name}:{line}: {path_text(path)}{rule if path else rule.removeprefix(': ')}"


def _line_of(document: Document, path: YamlPath) -> int:
    """Return the line of a path, or of its nearest ancestor that is written in the file."""
    while path not in document.line_of:
        path = path[:-1]
    return document.line_of[path]


def path_text(path: YamlPath) -> str:
    """Return a path as text: frontends[0].listen."""
    parts = (part if isinstance(part, int) or part.isprintable() else ascii(part) for part in path)
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts).removeprefix(".")


def faults_in(error: ValidationError, model: type[BaseModel], values: Mapping[str, Any]) -> list[Fault]:
    """Return the faults of a failed validation of values by a model. Values are quoted as they are written."""
    return [_fault(fault, model, values) for fault in error.errors() if fault["type"] != _CONSEQUENCE]


def _fault(fault: ErrorDetails, model: type[BaseModel], values: Any) -> Fault:
    path = fault["loc"]
    if fault["type"] == "extra_forbidden":
        return Fault(path, f": no such key{did_you_mean(nearest(str(path[-1]), _keys_at(path[:-1], model)))}")
    given = fault["input"]
    with suppress(LookupError, TypeError):
        given = reduce(getitem, path, values)
    is_shown = fault["type"] != "missing" and given is not None and not isinstance(given, Mapping)
    return Fault(path, f"={shown(given)}: {rule_of(fault)}" if is_shown else f": {rule_of(fault)}")


def _keys_at(path: YamlPath, model: type[BaseModel]) -> list[str]:
    """Return the keys that the model allows below a path."""
    for part in path:
        fields = {str(field.validation_alias or name): field for name, field in model.model_fields.items()}
        if part in fields:
            below = next(_models_in(fields[str(part)].annotation), None)
            if below is None:
                return []
            model = below
    return [str(field.validation_alias or name) for name, field in model.model_fields.items()]


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)


# Contradictions between values. These checks read raw values, so they run even if other values are invalid.


def _conflicts(values: Mapping[str, Any], listeners: Listeners) -> Iterator[Fault]:
    yield from duplicate_names(values, "frontends")
    yield from duplicate_names(values, "backends")
    yield from _unknown_pools(values)
    yield from _clashes(values, listeners)
    yield from _loops(values)


def items_of(values: Mapping[str, Any], key: str) -> Iterator[tuple[YamlPath, Mapping[str, Any]]]:
    """Yield the items of a list that are mappings, each with its path."""
    items = values.get(key)
    if isinstance(items, list | tuple):
        for index, item in enumerate(items):
            if isinstance(item, Mapping):
                yield (key, index), item


def duplicate_names(values: Mapping[str, Any], key: str) -> Iterator[Fault]:
    """Yield a fault for each item of a list whose name an earlier item has."""
    first: dict[str, YamlPath] = {}
    for path, item in items_of(values, key):
        name = item.get("name")
        if isinstance(name, str) and first.setdefault(name, path) != path:
            yield Fault((*path, "name"), f"={shown(name)}: {path_text(first[name])} already has this name")


def _unknown_pools(values: Mapping[str, Any]) -> Iterator[Fault]:
    names = {name for _, item in items_of(values, "backends") if isinstance(name := item.get("name"), str)}
    faults = 0
    for path, item in items_of(values, "frontends"):
        wanted = item.get("backend")
        if isinstance(wanted, str) and wanted not in names:
            faults += 1
            near = nearest(wanted, sorted(names)) if faults <= MAX_SUGGESTIONS else None
            yield Fault((*path, "backend"), f"={shown(wanted)}: no backend has this name{did_you_mean(near)}")


def _clashes(values: Mapping[str, Any], listeners: Listeners) -> Iterator[Fault]:
    """Yield a fault for each address on which Linux would refuse to listen because of an earlier one."""
    taken = Taken()
    for user, address in listeners:
        taken.take(address, user)
    for here, address in _addresses(values, has_metrics=METRICS not in dict(listeners)):
        other = taken.take(address, path_text(here))
        if other is not None:
            yield Fault(here, f": {address} clashes with {other[0]} of {other[1]}")


def _addresses(values: Mapping[str, Any], *, has_metrics: bool) -> Iterator[tuple[YamlPath, ListenAddress]]:
    """Yield the addresses that the file lets the process listen on, each with its path."""
    if has_metrics:
        yield from ((("global", "metrics", "listen"), address) for address in _metrics_of(values))
    for path, item in items_of(values, "frontends"):
        yield from (((*path, "listen"), address) for address in _parsed(listen_addresses, item.get("listen")))


def _metrics_of(values: Mapping[str, Any]) -> tuple[ListenAddress, ...]:
    settings: Any = values.get("global", {})
    for key in ("metrics", "listen"):
        settings = settings.get(key, {}) if isinstance(settings, Mapping) else {}
    return _parsed(one_listen_address, settings or "127.0.0.1:9090")


def _loops(values: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield a fault for each server on which the frontend that dials it listens itself."""
    frontends = [item for _, item in items_of(values, "frontends")]
    pools = {str(item.get("name")): list(_servers(path, item)) for path, item in items_of(values, "backends")}
    servers = [pools.get(str(item.get("backend")), []) for item in frontends]
    listens = [_parsed(listen_addresses, item.get("listen")) for item in frontends]
    rules = {}
    for hop in loops(listens, [[address for _, address in one] for one in servers], is_loopback):
        path, address = servers[hop.dialling][hop.server]
        dialling, accepting = (frontends[one].get("name") for one in (hop.dialling, hop.accepting))
        rules[path] = f"={shown(str(address))}: {loop_rule(dialling, accepting)}"
    yield from (Fault(path, rule) for path, rule in rules.items())


def _servers(path: YamlPath, pool: Mapping[str, Any]) -> Iterator[tuple[YamlPath, ListenAddress]]:
    """Yield the valid addresses of a pool's servers, each with its path."""
    for at, server in items_of(pool, "servers"):
        for address in _parsed(server_address, server.get("address")):
            yield (*path, *at, "address"), address


def _parsed(parse: Any, value: object) -> tuple[ListenAddress, ...]:
    try:
        parsed = parse(value)
    except ValueError:
        return ()
    return parsed if isinstance(parsed, tuple) else (parsed,)
