"""What stands in etcd: keys, and values with their schema, version 1. docs/reference/etcd.md describes it.

A backend is the key `/edgeproxy/v1/backends/<id>`; its value is a JSON object of the columns of the routing database
with `schema`. Fields that a version does not know are left alone, when it reads and when it writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE, BadBackend, parse_backend
from app.domain.replica import BadRecord, Found, Record

PREFIX: Final = "/edgeproxy/v1/"
BACKENDS: Final = f"{PREFIX}backends/"
HEARTBEAT: Final = f"{PREFIX}heartbeat"
"""Written when nothing else has happened for a while, so that whoever watches knows that it would hear of it."""

SCHEMA: Final = 1
DRAIN_SECONDS: Final = "drain_seconds"
"""How long open connections may run on after the change; a duration, since the clocks of POPs need not agree."""
TTL_SECONDS: Final = "ttl_seconds"
"""What a registered service asked for its lease."""
COLUMNS: Final = tuple(name for name in BACKEND_COLUMNS if name != "id")
MOST_REASON_CHARACTERS: Final = 300


class BadValue(ValueError):
    """A value that is no record of a schema that we know."""


def key_of(backend_id: str) -> str:
    return BACKENDS + backend_id


def read_value(value: bytes) -> dict[str, Any]:
    """Return the fields of a record. Raises BadValue."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadValue("is no JSON object")
    schema = fields.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BadValue(f"has schema {schema!r}, not a whole number from 1")
    if schema > SCHEMA:
        raise BadValue(f"has schema {schema}, newer than {SCHEMA}: written for a later version than this one")
    return fields


def write_value(fields: Mapping[str, Any]) -> bytes:
    """Return the value of a record with these fields."""
    return json.dumps({"schema": SCHEMA, **fields}, sort_keys=True).encode()


def read_record(key: bytes, value: bytes, revision: int, *, is_leased: bool) -> Found:
    """Return what stands at a key under BACKENDS, good or bad."""
    backend_id = key.removeprefix(BACKENDS.encode()).decode(errors="backslashreplace")
    try:
        fields = read_value(value)
        row = {**fields, "id": backend_id, DRAIN_DEADLINE: None}
        drain_seconds = _seconds(fields)
        backend = parse_backend(row)
        if key != key_of(backend.id).encode():
            raise BadValue("its id has spaces around it or is not UTF-8")
    except (BadValue, BadBackend) as error:
        return BadRecord(backend_id, revision, str(error)[:MOST_REASON_CHARACTERS])
    return Record(backend, revision, is_leased, drain_seconds if backend.is_deleted else None)


def _seconds(fields: Mapping[str, Any]) -> float | None:
    seconds = fields.get(DRAIN_SECONDS)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        raise BadValue(f"{DRAIN_SECONDS}={seconds!r}: must be seconds")
    return float(seconds)
