"""The specification of services that handlers use, and its validation. Secrets never appear in a repr."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from app.domain.model import Fault
from app.domain.service_settings import ENGINES, MASK, Secret, Setting

NAME_PATTERN: Final = "^[A-Za-z0-9_.-]{1,63}$"

_NAME: Final = re.compile(NAME_PATTERN)


class BadService(ValueError):
    """An invalid service specification. `faults` has every fault, at least one; secrets are masked."""

    def __init__(self, name: object, faults: tuple[Fault, ...]) -> None:
        super().__init__(f"service {name!r}: " + "; ".join(map(str, faults)))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """A service that handlers may use. Only `parse_service` makes it, so every setting is present and valid."""

    name: str
    kind: str
    """database, cache, storage or email."""
    engine: str
    """The protocol or product: sqlite, postgresql, mysql; redis, memcached; s3; smtp."""
    settings: Mapping[str, Any] = field(hash=False)

    @property
    def connections(self) -> int:
        """How many connections are kept open, which is also the number of concurrent calls."""
        return int(self.settings["connections"])

    @property
    def backlog(self) -> int:
        """How many calls may wait for a connection."""
        return int(self.settings["backlog"])

    @property
    def timeout_seconds(self) -> float:
        """The timeout of a call, including its wait for a connection, unless the call asks for a shorter one."""
        return float(self.settings["timeout_seconds"])

    @property
    def connect_timeout_seconds(self) -> float:
        return float(self.settings["connect_timeout_seconds"])

    def secret(self, name: str) -> str | None:
        """Return a secret in clear text, None if it was not given."""
        value = self.settings[name]
        return value.reveal() if isinstance(value, Secret) else None

    def masked(self) -> dict[str, object]:
        """Return the specification with masked secrets, ready for JSON."""
        return self._as_row({name: _masked(value) for name, value in self.settings.items()})

    def stored(self) -> dict[str, object]:
        """Return the specification with secrets in clear text, ready for JSON, as parse_service reads it."""
        clear = {name: v.reveal() if isinstance(v, Secret) else v for name, v in self.settings.items()}
        return self._as_row(clear)

    def _as_row(self, settings: dict[str, object]) -> dict[str, object]:
        return {"name": self.name, "kind": self.kind, "settings": {"engine": self.engine, **settings}}


def _masked(value: object) -> object:
    return MASK if isinstance(value, Secret) else value


@dataclass(frozen=True, slots=True)
class ServiceCounts:
    """The state of a service's connections, and counts since they were set up."""

    is_up: bool
    reason: str
    """Why it is down; empty while it is up."""
    connected: int
    """Open connections."""
    in_use: int
    depth: int
    """Calls waiting for a connection."""
    served: int
    errors: int
    """Calls that the service refused."""
    timeouts: int
    busy: int
    """Calls refused because the backlog was full."""
    down: int
    """Calls that failed because the service could not be reached."""
    opened: int
    """Connections opened, including replacements."""


@dataclass(frozen=True, slots=True)
class ServiceView:
    """A service as an operator sees it."""

    spec: ServiceSpec
    counts: ServiceCounts
    is_being_replaced: bool


def parse_service(row: Mapping[str, object], former: ServiceSpec | None = None) -> ServiceSpec:
    """Make a ServiceSpec from name, kind and settings, which include the engine if the kind has several.

    An absent or null setting takes its default. A masked secret is taken from the `former` spec. Raises BadService with
    every fault.
    """
    faults = [
        Fault(key, row[key], "is unknown; known: name, kind, settings")
        for key in row
        if key not in ("name", "kind", "settings")
    ]
    name, kind, given = row.get("name"), row.get("kind"), row.get("settings", {})
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        faults.append(Fault("name", name, "must be 1 to 63 letters, digits, dots, hyphens and underscores"))
    if not isinstance(kind, str) or kind not in ENGINES:
        faults.append(Fault("kind", kind, f"must be one of {', '.join(ENGINES)}"))
    if not isinstance(given, Mapping):
        faults.append(Fault("settings", "…", "must be a mapping"))
    if faults or not isinstance(given, Mapping):
        raise BadService(name, tuple(faults))
    engines = ENGINES[str(kind)]
    engine = given.get("engine") or (next(iter(engines)) if len(engines) == 1 else None)
    if not isinstance(engine, str) or engine not in engines:
        raise BadService(name, (Fault("engine", engine, f"must be one of {', '.join(engines)}"),))
    is_same = former is not None and (former.kind, former.engine) == (kind, engine)
    settings, faults = _read_settings(engines[engine], given, former if is_same else None)
    if faults:
        raise BadService(name, tuple(faults))
    return ServiceSpec(str(name), str(kind), engine, settings)


def _read_settings(
    known: Mapping[str, Setting], given: Mapping[object, object], former: ServiceSpec | None
) -> tuple[dict[str, object], list[Fault]]:
    faults = [
        Fault(str(key), _shown(key, given[key]), f"is unknown; known: engine, {', '.join(known)}")
        for key in given
        if key not in known and key != "engine"
    ]
    settings: dict[str, object] = {}
    for key, setting in known.items():
        value = given.get(key)
        if setting.is_secret and value == MASK and former is not None:
            value = former.settings[key]
        if value is None:
            if setting.is_required:
                faults.append(Fault(key, None, "is required"))
            settings[key] = None if setting.is_required else setting.default
            continue
        try:
            if setting.is_secret and value == MASK:
                raise ValueError("is the mask, but there is no former secret to keep; give the secret")
            settings[key] = setting.rule.read(value)
        except ValueError as error:
            faults.append(Fault(key, MASK if setting.is_secret else value, str(error)))
    for key, setting in known.items():
        other = setting.needs
        if other and settings.get(key) is not None and settings.get(other) is None and given.get(other) is None:
            faults.append(Fault(other, None, f"is required with {key}"))
    return settings, faults


def _shown(key: object, value: object) -> object:
    """Return the value of an unknown setting as an error may show it: it may be a secret under a misspelt name."""
    may_be_secret = isinstance(value, str) and not re.search("user|host|port|path|name|engine", str(key))
    return MASK if may_be_secret else value
