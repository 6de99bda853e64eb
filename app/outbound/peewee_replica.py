"""The routing database as a replica: the backends, and the position of the control plane that they reflect.

Backends and position change in one transaction, so a restart finds a state that existed. The edge reads only
`backends`; the two tables of this file belong to the replicator.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import peewee

from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE, BadBackend, parse_backend
from app.domain.replica import BadRecord, Changes, Record
from app.outbound.peewee_backends import (
    REPLICA_TABLE,
    TABLE,
    SqliteBackendStore,
    _text,
    row_of,
)
from app.outbound.sqlite_errors import translated
from app.ports import Position, RepositoryError

SUSPECT_SINCE: Final = "suspect_since"
"""Further column of backends: Unix time since when the backend is suspect for a lost lease; NULL = it is not."""


RECORD_TABLE: Final = "replica_records"
_COLUMNS: Final = (*BACKEND_COLUMNS, DRAIN_DEADLINE, SUSPECT_SINCE)
_WRITE_BACKEND: Final = (
    f"INSERT OR REPLACE INTO {TABLE} ({', '.join(_COLUMNS)}) VALUES ({', '.join(f':{name}' for name in _COLUMNS)})"
)
_WRITE_RECORD: Final = f"INSERT OR REPLACE INTO {RECORD_TABLE} (id, revision, is_leased, fault) VALUES (?, ?, ?, ?)"
"""Not through peewee, which takes 0.4 ms for a record."""


class RecordRow(peewee.Model):
    """The record of a backend in etcd: revision of its last change, whether it has a lease, or its fault."""

    id = peewee.TextField(primary_key=True)
    revision = peewee.IntegerField()
    is_leased = peewee.IntegerField()
    fault = peewee.TextField(null=True)

    class Meta:
        table_name = RECORD_TABLE


class PositionRow(peewee.Model):
    """One row: the cluster that is followed, and the revision up to which it was applied."""

    id = peewee.IntegerField(primary_key=True)
    cluster = peewee.TextField()
    revision = peewee.IntegerField()

    class Meta:
        table_name = REPLICA_TABLE


class SqliteReplica(SqliteBackendStore):
    """Reads and writes the replica. For use by one thread; stays open and detects that the file was replaced.

    A new replica is built beside its path and moved there with its first content, so that an edge never sees an empty
    table where it saw backends before.
    """

    def __init__(self, path: Path) -> None:
        """Open or create the database. Raises RepositoryError."""
        self._final_path = path
        self._open(path if path.exists() else _new_database(path))

    def _open(self, path: Path) -> None:
        super().__init__(path)
        with translated(path):
            with self._transaction():
                for table in (RecordRow, PositionRow):
                    peewee.SchemaManager(table, self._database).create_all(safe=True)
                if SUSPECT_SINCE not in [column.name for column in self._database.get_columns(TABLE)]:
                    self._database.execute_sql(f"ALTER TABLE {TABLE} ADD COLUMN {SUSPECT_SINCE} REAL DEFAULT NULL")
            self._identity = _identity(path)

    def load(self) -> tuple[Position | None, list[Record], list[BadRecord]]:
        """Return the position, the records and the bad records. Skips rows that are not valid backends."""
        with translated(self._path):
            connection = self._database.connection()
            connection.text_factory = _text
            known: dict[str, Any] = {row.id: row for row in RecordRow.select().execute(self._database)}
            rows = self._database.execute_sql(f"SELECT {', '.join(_COLUMNS)} FROM {TABLE}").fetchall()
            position: Any = PositionRow.select().first(self._database)
        records = [_record(dict(zip(_COLUMNS, row, strict=True)), known) for row in rows]
        bad = [BadRecord(row.id, row.revision, row.fault) for row in known.values() if row.fault is not None]
        reached = None if position is None else Position(int(position.cluster), position.revision)
        return reached, [record for record in records if record is not None], bad

    def apply(self, changes: Changes, position: Position) -> None:
        """Write changes and the position after them, all or none. Raises RepositoryError, also for a replaced file."""
        with translated(self._path):
            if _identity(self._path) != self._identity:
                raise RepositoryError(f"{self._path} was replaced")
            with self._transaction():
                self._write(changes)
                row = {"id": 1, "cluster": str(position.cluster), "revision": position.revision}
                PositionRow.replace(**row).execute(self._database)
        if self._path != self._final_path:
            self._move_into_place()

    def _write(self, changes: Changes) -> None:
        many = self._database.connection().executemany
        removed, written, bad = [(one,) for one in changes.removed], changes.written.values(), changes.bad.values()
        for table in (TABLE, RECORD_TABLE):
            many(f"DELETE FROM {table} WHERE id = ?", removed)
        many(_WRITE_BACKEND, ({**row_of(one.backend), SUSPECT_SINCE: one.suspect_since} for one in written))
        many(_WRITE_RECORD, ((one.id, one.revision, int(one.is_leased), None) for one in written))
        many(_WRITE_RECORD, ((one.id, one.revision, 0, one.reason) for one in bad))

    def _move_into_place(self) -> None:
        """Move the new database to its path, and remove the write-ahead log of an earlier one."""
        self.close()
        with translated(self._final_path):
            _remove(*_logs(self._final_path))
            os.replace(self._path, self._final_path)
        self._open(self._final_path)

    def is_same_file(self) -> bool:
        """Return whether the file at the path is still the one that was opened."""
        try:
            return _identity(self._path) == self._identity
        except OSError:
            return False

    def close(self) -> None:
        self.__exit__()


def _new_database(path: Path) -> Path:
    """Return the path at which a new database is built, and remove leftovers there."""
    fresh = path.with_name(f".{path.name}.new")
    with translated(fresh):
        _remove(fresh, *_logs(fresh))
    return fresh


def _logs(path: Path) -> tuple[Path, Path]:
    return path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")


def _remove(*paths: Path) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _record(row: Mapping[str, object], known: Mapping[str, Any]) -> Record | None:
    try:
        backend = parse_backend(row)
    except BadBackend:
        return None
    since = row[SUSPECT_SINCE]
    suspect_since = float(since) if isinstance(since, int | float) else None
    record = known.get(backend.id)
    if record is None:
        return Record(backend, suspect_since=suspect_since)
    return Record(backend, record.revision, bool(record.is_leased), suspect_since=suspect_since)
