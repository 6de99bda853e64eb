"""Stores registrations in the SQLite routing database: backends with a TTL and the edge that owns them.

Adds the columns `draining`, `lease_ttl` and `lease_owner`. The owner is the edge at which the service registered:
several edges may share one database, and each expires only its own registrations. A row without `lease_ttl` belongs to
an operator and is never written here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import peewee

from app.domain.model import BACKEND_COLUMNS, DRAINING, BadBackend, parse_backend
from app.domain.registration import Registration
from app.outbound.peewee_backends import (
    READER_BUSY_SECONDS,
    TABLE,
    SqliteBackendStore,
    _text,
    row_of,
)
from app.outbound.regular_file import require_regular
from app.outbound.sqlite_errors import translated

LEASE_TTL: Final = "lease_ttl"
"""Seconds after which a registration expires unless renewed; NULL = not a registration."""
LEASE_OWNER: Final = "lease_owner"

_COLUMNS: Final = {DRAINING: "INTEGER", LEASE_TTL: "INTEGER", LEASE_OWNER: "TEXT"}
_SERVICE_COLUMNS: Final = tuple(name for name in BACKEND_COLUMNS if name not in ("id", "healthy", "deleted"))
"""Columns that a service sets; the others belong to operators."""


class SqliteRegistrations(SqliteBackendStore):
    """The registrations of the edge named `owner`. Every method raises RepositoryError."""

    def __init__(self, path: Path, owner: str) -> None:
        """Open or create the database."""
        super().__init__(path)
        self._owner = owner

    def register(self, registration: Registration) -> bool:
        """Insert or update a registration. Returns whether it is new.

        Raises KeyError if the id belongs to an operator's backend.
        """
        backend_id = registration.backend.id
        given = self._columns_of(registration)
        with translated(self._path), self._change():
            self._columns = self._add_columns(_COLUMNS)
            found = self._select([*given], "id = ?", backend_id)
            if not found:
                row = row_of(registration.backend) | given
                names, marks = ", ".join(row), ", ".join("?" * len(row))
                self._database.execute_sql(f"INSERT INTO {TABLE} ({names}) VALUES ({marks})", tuple(row.values()))
                return True
            if found[0][LEASE_TTL] is None:
                raise KeyError(backend_id)
            if found[0] != given:
                changes = ", ".join(f"{name} = ?" for name in given)
                self._database.execute_sql(f"UPDATE {TABLE} SET {changes} WHERE id = ?", (*given.values(), backend_id))
        return False

    def deregister(self, backend_id: str) -> bool:
        """Delete a registration of any owner. Returns whether it existed."""
        with translated(self._path), self._change():
            return LEASE_TTL in self._columns and self._delete("id = ?", backend_id) > 0

    def expire(self, ids: Iterable[str]) -> None:
        """Delete those of these registrations that this edge still owns."""
        with translated(self._path), self._change():
            for one in ids if LEASE_TTL in self._columns else ():
                self._delete(f"id = ? AND {LEASE_OWNER} = ?", one, self._owner)

    def _columns_of(self, registration: Registration) -> dict[str, object]:
        row = row_of(registration.backend)
        return {
            **{name: row[name] for name in _SERVICE_COLUMNS},
            DRAINING: int(registration.is_draining),
            LEASE_TTL: registration.ttl_seconds,
            LEASE_OWNER: self._owner,
        }

    def _select(self, names: list[str], condition: str, *values: object) -> list[dict[str, Any]]:
        self._database.connection().text_factory = _text
        found = self._database.execute_sql(f"SELECT {', '.join(names)} FROM {TABLE} WHERE {condition}", values)
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def _delete(self, condition: str, *values: object) -> int:
        """Delete the registrations that match a condition. Returns their number."""
        done = self._database.execute_sql(f"DELETE FROM {TABLE} WHERE {LEASE_TTL} IS NOT NULL AND {condition}", values)
        return int(done.rowcount)


def registrations_in(path: Path, owner: str) -> dict[str, Registration]:
    """Return the registrations that an edge owns, by id. Writes nothing. Raises RepositoryError.

    Skips rows that are not valid registrations.
    """
    names = [*BACKEND_COLUMNS, *_COLUMNS]
    condition = f"{LEASE_OWNER} = ? AND typeof({LEASE_TTL}) = 'integer'"
    with translated(path), contextlib.closing(_reader(path)) as database:
        columns = {column.name for column in database.get_columns(TABLE)}
        if not columns.issuperset(names):
            return {}
        database.connection().text_factory = _text
        rows = database.execute_sql(f"SELECT {', '.join(names)} FROM {TABLE} WHERE {condition}", (owner,)).fetchall()
    found = [_registration(dict(zip(names, row, strict=True))) for row in rows]
    return {one.backend.id: one for one in found if one is not None}


def _reader(path: Path) -> peewee.SqliteDatabase:
    require_regular(path)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    database = peewee.SqliteDatabase(uri, uri=True, thread_safe=False, timeout=READER_BUSY_SECONDS)
    database.connect()
    return database


def _registration(row: Mapping[str, Any]) -> Registration | None:
    try:
        backend = parse_backend(row)
    except BadBackend:
        return None
    registered = replace(backend, is_healthy=True, is_deleted=False)
    return Registration(registered, row[LEASE_TTL], bool(row[DRAINING]))
