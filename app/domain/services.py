"""The specification of services that handlers use, and its validation. Secrets never appear in a repr."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final

from app.domain.model import Fault

MASK: Final = "********"
"""Replaces a secret wherever it is displayed. In an update it means: keep the present secret."""

DEFAULT_MAX_ROWS: Final = 10_000
DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024
"""Signing this much takes 13 ms, during which the event loop is blocked."""

NAME_PATTERN: Final = "^[A-Za-z0-9_.-]{1,63}$"

_NAME: Final = re.compile(NAME_PATTERN)
_HOST_NAME: Final = re.compile(r"(?!.{254})[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?")
_ENDPOINT: Final = re.compile(r"https?://([^/:@\[\]\s]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?")
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_MAILBOX: Final = re.compile(r"[^@\s<>]+@[^@\s<>]+")
_REQUIRED: Final = object()


class Secret:
    """A text that is hidden in a repr; `reveal` returns it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


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


# Validation


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be non-empty printable text")
    return value.strip()


def _secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be non-empty text")
    return Secret(value)


def _host(value: object) -> str:
    text = _text(value)
    try:
        return str(ip_address(text))
    except ValueError:
        if _HOST_NAME.fullmatch(text) and not text.rstrip(".").rpartition(".")[2].isdigit():
            return text
        raise ValueError("must be a host name or an IP address, without port or brackets") from None


def _matching(pattern: re.Pattern[str], rule: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or not pattern.fullmatch(value) or not value.isprintable():
            raise ValueError(rule)
        return value

    return read


def _whole(lowest: int, highest: int) -> Callable[[object], int]:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return read


def _seconds(lowest: float, highest: float) -> Callable[[object], float]:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise ValueError(f"must be a number of seconds from {lowest:g} to {highest:g}")
        return float(value)

    return read


def _one_of(*words: str) -> Callable[[object], str]:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return read


def _path(value: object) -> str:
    text = _text(value)
    if text.startswith(":") or text.startswith("file:"):
        raise ValueError("must be the path of a file: each connection would have its own database in memory")
    return text


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an engine. `read` returns the value or raises ValueError with the rule that it breaks."""

    read: Callable[[object], object]
    default: object = _REQUIRED
    needs: str | None = None
    """Another setting that this one requires."""

    @property
    def is_required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def is_secret(self) -> bool:
        return self.read is _secret


_COMMON: Final = {
    "connections": Setting(_whole(1, 100), 8),
    "backlog": Setting(_whole(0, 100_000), 128),
    "timeout_seconds": Setting(_seconds(0.01, 3600), 5.0),
    "connect_timeout_seconds": Setting(_seconds(0.01, 60), 3.0),
}
_USER: Final = {"user": Setting(_text, None)}
_LOGIN: Final = _USER | {"password": Setting(_secret, None, needs="user")}
_ROWS: Final = {"max_rows": Setting(_whole(1, 1_000_000), DEFAULT_MAX_ROWS)}
_TLS: Final = Setting(_one_of("off", "require", "verify"), "off")
"""require encrypts without authentication; verify checks the certificate against the system's authorities."""


def _server(port: int) -> dict[str, Setting]:
    return {"host": Setting(_host), "port": Setting(_whole(1, 65535), port)}


def _sql_server(port: int) -> dict[str, Setting]:
    login = _LOGIN | {"user": Setting(_text)}
    return _COMMON | _server(port) | {"database": Setting(_text)} | login | {"tls": _TLS} | _ROWS


ENGINES: Final[Mapping[str, Mapping[str, Mapping[str, Setting]]]] = {
    "database": {
        "sqlite": _COMMON | {"connections": Setting(_whole(1, 100), 4), "path": Setting(_path)} | _ROWS,
        "postgresql": _sql_server(5432),
        "mysql": _sql_server(3306),
    },
    "cache": {
        "redis": _COMMON
        | _server(6379)
        | {"database": Setting(_whole(0, 65535), 0)}
        | _USER
        | {"password": Setting(_secret, None), "tls": _TLS},
        "memcached": _COMMON | _server(11211),
    },
    "storage": {
        "s3": _COMMON
        | {
            "endpoint": Setting(_matching(_ENDPOINT, "must be http:// or https://, a host and an optional port")),
            "bucket": Setting(_matching(_BUCKET, "must be 3 to 63 lower-case letters, digits, dots and hyphens")),
            "region": Setting(_matching(_NAME, "must be a region's name"), "us-east-1"),
            "access_key": Setting(_text, None, needs="secret_key"),
            "secret_key": Setting(_secret, None, needs="access_key"),
            "max_object_bytes": Setting(_whole(1, 2**32), DEFAULT_MAX_BYTES),
        },
    },
    "email": {
        "smtp": _COMMON
        | {"connections": Setting(_whole(1, 100), 2), "timeout_seconds": Setting(_seconds(0.01, 3600), 30.0)}
        | _server(587)
        | _LOGIN
        | {
            "tls": Setting(_one_of("off", "starttls", "tls"), "starttls"),
            "sender": Setting(_matching(_MAILBOX, "must be a mail address")),
        },
    },
}
"""kind -> engine -> its settings."""


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
            settings[key] = setting.read(value)
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
