"""The settings of every engine of services: their rules, defaults, and JSON Schemas. Secrets never appear in a repr."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from app.domain.json_schema import NOT_BLANK, JsonSchema, or_null

MASK: Final = "********"
"""Replaces a secret wherever it is displayed. In an update it means: keep the present secret."""

DEFAULT_MAX_ROWS: Final = 10_000
DEFAULT_MAX_BYTES: Final = 16 * 1024 * 1024
"""Signing this much takes 13 ms, during which the event loop is blocked."""

_HOST_NAME: Final = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_][A-Za-z0-9_-]{0,62})*\.?"
_MAX_HOST_CHARACTERS: Final = 253
_REGION: Final = r"[A-Za-z0-9_.-]{1,63}"
_ENDPOINT: Final = r"https?://([^/:@\[\]\s]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?/?"
_BUCKET: Final = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"
_MAILBOX: Final = r"[^@\s<>]+@[^@\s<>]+"
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


@dataclass(frozen=True, slots=True)
class Rule:
    """What a setting may be. `read` returns the value or raises ValueError with the rule that it breaks."""

    read: Callable[[object], object]
    schema: JsonSchema = field(hash=False)


def _read_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError("must be non-empty printable text")
    return value.strip()


def _read_secret(value: object) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be non-empty text")
    return Secret(value)


def _read_host(value: object) -> str:
    text = _read_text(value)
    try:
        return str(ip_address(text))
    except ValueError:
        is_name = len(text) <= _MAX_HOST_CHARACTERS and re.fullmatch(_HOST_NAME, text)
        if is_name and not text.rstrip(".").rpartition(".")[2].isdigit():
            return text
        raise ValueError("must be a host name or an IP address, without port or brackets") from None


def _read_path(value: object) -> str:
    text = _read_text(value)
    if text.startswith(":") or text.startswith("file:"):
        raise ValueError("must be the path of a file: each connection would have its own database in memory")
    return text


_ANY_TEXT: Final[JsonSchema] = {"type": "string", "pattern": NOT_BLANK}
_ADDRESSES: Final = [{"type": "string", "format": version} for version in ("ipv4", "ipv6")]
_NAME_SCHEMA: Final = {"type": "string", "pattern": f"^{_HOST_NAME}$", "maxLength": _MAX_HOST_CHARACTERS}

_TEXT: Final = Rule(_read_text, _ANY_TEXT)
_SECRET: Final = Rule(_read_secret, {"type": "string", "pattern": r"^[^\x00]+$", "format": "password"})
_HOST: Final = Rule(_read_host, {"anyOf": [*_ADDRESSES, _NAME_SCHEMA]})
_PATH: Final = Rule(_read_path, _ANY_TEXT)


def _matching(pattern: str, rule: str) -> Rule:
    def read(value: object) -> str:
        if not isinstance(value, str) or not re.fullmatch(pattern, value) or not value.isprintable():
            raise ValueError(rule)
        return value

    return Rule(read, {"type": "string", "pattern": f"^({pattern})$"})


def _whole(lowest: int, highest: int) -> Rule:
    def read(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
            raise ValueError(f"must be a whole number from {lowest} to {highest}")
        return value

    return Rule(read, {"type": "integer", "minimum": lowest, "maximum": highest})


def _seconds(lowest: float, highest: float) -> Rule:
    def read(value: object) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not lowest <= value <= highest:
            raise ValueError(f"must be a number of seconds from {lowest:g} to {highest:g}")
        return float(value)

    return Rule(read, {"type": "number", "minimum": lowest, "maximum": highest})


def _one_of(*words: str) -> Rule:
    def read(value: object) -> str:
        if not isinstance(value, str) or value not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return value

    return Rule(read, {"enum": list(words)})


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting of an engine. One without a default is required; the others may be null, which is their default."""

    rule: Rule
    default: object = _REQUIRED
    needs: str | None = None
    """Another setting that this one requires."""

    @property
    def is_required(self) -> bool:
        return self.default is _REQUIRED

    @property
    def is_secret(self) -> bool:
        return self.rule is _SECRET

    @property
    def schema(self) -> JsonSchema:
        """The JSON Schema of the setting."""
        return self.rule.schema if self.is_required else {**or_null(self.rule.schema), "default": self.default}


_COMMON: Final = {
    "connections": Setting(_whole(1, 100), 8),
    "backlog": Setting(_whole(0, 100_000), 128),
    "timeout_seconds": Setting(_seconds(0.01, 3600), 5.0),
    "connect_timeout_seconds": Setting(_seconds(0.01, 60), 3.0),
}
_USER: Final = {"user": Setting(_TEXT, None)}
_LOGIN: Final = _USER | {"password": Setting(_SECRET, None, needs="user")}
_ROWS: Final = {"max_rows": Setting(_whole(1, 1_000_000), DEFAULT_MAX_ROWS)}
_TLS: Final = Setting(_one_of("off", "require", "verify"), "off")
"""require encrypts without authentication; verify checks the certificate against the system's authorities."""


def _server(port: int) -> dict[str, Setting]:
    return {"host": Setting(_HOST), "port": Setting(_whole(1, 65535), port)}


def _sql_server(port: int) -> dict[str, Setting]:
    login = _LOGIN | {"user": Setting(_TEXT)}
    return _COMMON | _server(port) | {"database": Setting(_TEXT)} | login | {"tls": _TLS} | _ROWS


ENGINES: Final[Mapping[str, Mapping[str, Mapping[str, Setting]]]] = {
    "database": {
        "sqlite": _COMMON | {"connections": Setting(_whole(1, 100), 4), "path": Setting(_PATH)} | _ROWS,
        "postgresql": _sql_server(5432),
        "mysql": _sql_server(3306),
    },
    "cache": {
        "redis": _COMMON
        | _server(6379)
        | {"database": Setting(_whole(0, 65535), 0)}
        | _USER
        | {"password": Setting(_SECRET, None), "tls": _TLS},
        "memcached": _COMMON | _server(11211),
    },
    "storage": {
        "s3": _COMMON
        | {
            "endpoint": Setting(_matching(_ENDPOINT, "must be http:// or https://, a host and an optional port")),
            "bucket": Setting(_matching(_BUCKET, "must be 3 to 63 lower-case letters, digits, dots and hyphens")),
            "region": Setting(_matching(_REGION, "must be a region's name"), "us-east-1"),
            "access_key": Setting(_TEXT, None, needs="secret_key"),
            "secret_key": Setting(_SECRET, None, needs="access_key"),
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


def settings_schema(kind: str) -> JsonSchema:
    """Return the JSON Schema of the settings of a kind: one alternative for each engine."""
    engines = ENGINES[kind]
    return {"anyOf": [_engine_schema(engine, known, len(engines) == 1) for engine, known in engines.items()]}


def _engine_schema(engine: str, known: Mapping[str, Setting], is_only: bool) -> JsonSchema:
    named: JsonSchema = {"const": engine}
    required = [name for name, setting in known.items() if setting.is_required]
    return {
        "title": engine,
        "type": "object",
        "properties": {
            "engine": or_null(named) if is_only else named,
            **{name: setting.schema for name, setting in known.items()},
        },
        "required": required if is_only else ["engine", *required],
        "additionalProperties": False,
    }
