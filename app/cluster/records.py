"""Keys and values in etcd, schema version 1. docs/reference/etcd.md describes them.

A backend is the key `/edgeproxy/v1/backends/<id>`. Its value is a JSON object of the columns of the routing database
and `schema`. Unknown fields are ignored on reading and preserved on writing.
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
"""Written when nothing else changes, so that replicators can tell a quiet etcd from a dead watch."""

SCHEMA: Final = 1
DRAIN_SECONDS: Final = "drain_seconds"
"""Time for open connections to end after the change. A duration, because clocks of POPs may differ."""
TTL_SECONDS: Final = "ttl_seconds"
"""TTL of the lease that a registered service requested."""
COLUMNS: Final = tuple(name for name in BACKEND_COLUMNS if name != "id")
MAX_REASON_CHARACTERS: Final = 300


class BadValue(ValueError):
    """A value that is not a record of a known schema."""


def key_of(backend_id: str) -> str:
    return BACKENDS + backend_id


def read_value(value: bytes) -> dict[str, Any]:
    """Return the fields of a record. Raises BadValue."""
    try:
        fields = json.loads(value)
    except (ValueError, RecursionError) as error:
        raise BadValue(f"is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise BadValue("is not a JSON object")
    schema = fields.get("schema")
    if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
        raise BadValue(f"has schema {schema!r}, which must be a whole number from 1")
    if schema > SCHEMA:
        raise BadValue(f"has schema {schema}, newer than {SCHEMA}: it needs a later version of the edge")
    return fields


def write_value(fields: Mapping[str, Any]) -> bytes:
    """Return the value of a record with these fields."""
    return json.dumps({"schema": SCHEMA, **fields}, sort_keys=True).encode()


def read_record(key: bytes, value: bytes, revision: int, *, is_leased: bool) -> Found:
    """Parse the record at a key under BACKENDS. Returns a Record or a BadRecord."""
    backend_id = key.removeprefix(BACKENDS.encode()).decode(errors="backslashreplace")
    try:
        fields = read_value(value)
        row = {**fields, "id": backend_id, DRAIN_DEADLINE: None}
        drain_seconds = _seconds(fields)
        backend = parse_backend(row)
        if key != key_of(backend.id).encode():
            raise BadValue("its id has surrounding spaces or is not UTF-8")
    except (BadValue, BadBackend) as error:
        return BadRecord(backend_id, revision, str(error)[:MAX_REASON_CHARACTERS])
    return Record(backend, revision, is_leased, drain_seconds if backend.is_deleted else None)


def _seconds(fields: Mapping[str, Any]) -> float | None:
    seconds = fields.get(DRAIN_SECONDS)
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:
        raise BadValue(f"{DRAIN_SECONDS}={seconds!r}: must be a number of seconds")
    return float(seconds)
