"""The tables of the gateway's SQLite file, and what their rows mean.

Another program, or damage, may have put anything into a row. So its values are read as they are stored, and judged
here: each function that reads a row raises ValueError for a damaged one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar

import peewee

from app.domain.endpoints import Endpoint, parse_endpoint
from app.domain.stored import ServiceRow, StoredVersion

Row = Mapping[str, Any]
T = TypeVar("T")


class StoredText(peewee.TextField):
    """A text, which another program may have written as a BLOB."""

    def python_value(self, value: object) -> object:
        return decoded(value) if isinstance(value, bytes) else value


class _AsStored:
    def python_value(self, value: object) -> object:
        return value


class StoredInteger(_AsStored, peewee.IntegerField):
    """An integer, or whatever is stored in its place."""


class StoredFloat(_AsStored, peewee.FloatField):
    """A number, or whatever is stored in its place."""


class StoredFlag(peewee.BooleanField):
    """A flag, or whatever is stored in its place."""

    def python_value(self, value: object) -> object:
        return bool(value) if value in (0, 1) else value


class EndpointTable(peewee.Model):
    """An endpoint. `deployed` is the number of the version that is serving, or NULL."""

    id = StoredText(primary_key=True)
    name = StoredText()
    domain = StoredText(null=True)
    path = StoredText()
    methods = StoredText()
    timeout_seconds = StoredFloat()
    max_concurrency = StoredInteger()
    max_body_bytes = StoredInteger()
    is_enabled = StoredFlag()
    deployed = StoredInteger(null=True)
    last_number = StoredInteger(default=0)
    created_at = StoredFloat()
    updated_at = StoredFloat()

    class Meta:
        table_name = "endpoints"


class VersionTable(peewee.Model):
    """A version of an endpoint's handler. `deployed_at` is the time of its last deployment."""

    endpoint_id = StoredText()
    number = StoredInteger()
    checksum = StoredText()
    source = StoredText()
    created_at = StoredFloat()
    deployed_at = StoredFloat(null=True)

    class Meta:
        table_name = "versions"
        primary_key = peewee.CompositeKey("endpoint_id", "number")


class HistoryTable(peewee.Model):
    """The deployments of an endpoint: numbers of versions, oldest first, separated by spaces."""

    endpoint_id = StoredText(primary_key=True)
    numbers = StoredText()

    class Meta:
        table_name = "deployments"


class ServiceTable(peewee.Model):
    """A service. `settings` is a JSON object."""

    name = StoredText(primary_key=True)
    kind = StoredText()
    settings = StoredText()

    class Meta:
        table_name = "services"


TABLES: Final = (EndpointTable, VersionTable, HistoryTable, ServiceTable)


def sorted_out(rows: Iterable[Row], read: Callable[[Row], T]) -> tuple[list[T], list[tuple[Row, str]]]:
    """Return what the sound rows mean, and the damaged rows with their faults."""
    sound, damaged = [], []
    for row in rows:
        try:
            sound.append(read(row))
        except (ValueError, RecursionError) as fault:  # the latter from JSON
            damaged.append((row, str(fault)))
    return sound, damaged


def decoded(stored: bytes) -> str:
    """Decode a text, which need not be UTF-8: one damaged byte must not make the whole table unreadable."""
    return stored.decode(errors="surrogateescape")


def shown(key: object) -> str:
    """Return the key of a row, whatever it is, as text in UTF-8."""
    return str(key).encode(errors="surrogateescape").decode(errors="backslashreplace")


def endpoint_row(endpoint: Endpoint) -> dict[str, object]:
    """Return the columns of an endpoint that an operator sets."""
    row = {name: getattr(endpoint, name) for name in Endpoint.__slots__}
    return {**row, "methods": " ".join(endpoint.methods)}


def endpoint_of(row: Row) -> tuple[Endpoint, int | None]:
    """Return an endpoint and the number of its deployed version."""
    _require_text(row, "id")
    deployed, methods = row["deployed"], row["methods"]
    if deployed is not None:
        _require_number(row, "deployed")
    _require_number(row, "last_number")
    given = {name: row[name] for name in Endpoint.__slots__}
    return parse_endpoint({**given, "methods": methods.split() if isinstance(methods, str) else methods}), deployed


def version_of(row: Row) -> StoredVersion:
    """Return a version; without a source, if the row has none. A source need not be UTF-8: it is loaded, or not."""
    _require_text({**row, "source": ""}, "endpoint_id", "checksum")
    _require_number(row, "number")
    for name in ("created_at", "deployed_at"):
        value = row[name]
        if not (isinstance(value, int | float) and math.isfinite(value)) and (value, name) != (None, "deployed_at"):
            raise ValueError(f"{name}: is not a time")
    return StoredVersion(**{"source": "", **row})


def service_of(row: Row) -> ServiceRow:
    """Return a service, whose settings are an object."""
    _require_text(row, "name", "kind", "settings")
    settings = json.loads(row["settings"])
    if not isinstance(settings, dict):
        raise ValueError(f"not a JSON object: {row['settings']:.100}")
    return ServiceRow(row["name"], row["kind"], settings)


def _require_text(row: Row, *required: str) -> None:
    """Raise ValueError for a text that is absent, or was not UTF-8."""
    for name in required:
        if not isinstance(row[name], str):
            raise ValueError(f"{name}: is not text")
    for name, value in row.items():
        if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
            raise ValueError(f"{name}: is not text in UTF-8")


def _require_number(row: Row, name: str) -> None:
    if not isinstance(row[name], int) or row[name] < 0:
        raise ValueError(f"{name}: is not a whole number of 0 or more")
