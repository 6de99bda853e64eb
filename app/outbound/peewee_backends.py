"""The routing database through peewee: the table, the code shared by all engines, and SQLite's repository and store.

The SQLite repository detects changes cheaply: a persistent read-only connection reads `data_version`, which grows with
every commit of another connection; a replaced file has another device or inode. Neither shows that a file was
overwritten in place, so each load opens a new connection, whose page cache is empty.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Self, cast

import peewee

from app.domain.model import (
    BACKEND_COLUMNS,
    DRAIN_DEADLINE,
    DRAINING,
    Backend,
    BadBackend,
    Fault,
    limit_warning,
    parse_backend,
)
from app.outbound.regular_file import require_regular
from app.outbound.sqlite_errors import translated
from app.outbound.sqlite_leftovers import left_over, warning_of
from app.ports import BackendSet, RepositoryConflict, RepositoryError

TABLE: Final = "backends"
WRITER_BUSY_SECONDS: Final = 5
READER_BUSY_SECONDS: Final = 0.1
REPLICA_TABLE: Final = "replica_position"
"""If this table exists, the backends come from etcd and only the replicator writes them."""
_WRITTEN: Final = (*BACKEND_COLUMNS, DRAIN_DEADLINE)
_UPDATE: Final = f"UPDATE {TABLE} SET {', '.join(f'{name} = :{name}' for name in _WRITTEN)} WHERE id = :id"
_INSERT: Final = (
    f"INSERT INTO {TABLE} ({', '.join(_WRITTEN)}) SELECT {', '.join(f':{name}' for name in _WRITTEN)} "
    f"WHERE NOT EXISTS (SELECT 1 FROM {TABLE} WHERE id = :id)"
)
"""Not through peewee, which takes 0.2 ms for a row. The table of a user may lack the key that an upsert needs."""
_ROWS_PER_SLICE: Final = 200
_PAUSE_SECONDS: Final = 0.001


class BackendRow(peewee.Model):
    """The table of backends. It is not bound to a database; each query names its own."""

    id = peewee.TextField(primary_key=True)
    app = peewee.TextField(null=True)
    region = peewee.TextField(null=True)
    country = peewee.TextField(null=True)
    wg_ip = peewee.TextField(null=True)
    port = peewee.IntegerField(null=True)
    healthy = peewee.IntegerField(null=True)
    weight = peewee.IntegerField(null=True)
    soft_limit = peewee.IntegerField(null=True)
    hard_limit = peewee.IntegerField(null=True)
    deleted = peewee.IntegerField(null=True)
    drain_deadline = peewee.FloatField(null=True, default=None)

    class Meta:
        table_name = TABLE


class RowParser:
    """Parses rows of the table into backends of one app (all with app ""). Unchanged rows are not parsed again.

    Calls `pause(seconds)` between slices of rows, so that a large load does not hold the GIL.
    """

    def __init__(self, app: str = "", pause: Callable[[float], object] = time.sleep) -> None:
        self._app = app or None
        self._pause = pause
        self._parsed: dict[tuple[Any, ...], Backend | BadBackend] = {}

    def parse(self, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> BackendSet:
        """Return the backends in rows of the table, whose columns are `columns`."""
        parsed: dict[tuple[Any, ...], Backend | BadBackend] = {}
        good, refused, warnings = [], [], []
        ids: set[str] = set()
        key_prefix = tuple(columns)
        for number, row in enumerate(rows):
            if number % _ROWS_PER_SLICE == _ROWS_PER_SLICE - 1:
                self._pause(_PAUSE_SECONDS)
            key = (key_prefix, row)
            result = self._parsed.get(key)
            if result is None:
                result = _parse_row(dict(zip(columns, row, strict=True)))
            parsed[key] = result
            if isinstance(result, BadBackend):
                refused.append(result)
            elif result.id in ids:  # the ids differ in surrounding spaces, or the table has no primary key
                refused.append(BadBackend(result.id, (Fault("id", result.id, "is also the id of another row"),)))
            elif self._app is None or result.app == self._app:
                ids.add(result.id)
                good.append(result)
                warning = limit_warning(result)
                if warning:
                    warnings.append(f"backend {result.id}: {warning}")
        self._parsed = parsed
        return BackendSet(tuple(good), tuple(refused), tuple(warnings))


class SqliteBackendRepository:
    """Reads the backends of one app (all with app "") and detects changes. For use by one thread. See RowParser."""

    def __init__(self, path: Path, app: str = "", pause: Callable[[float], object] = time.sleep) -> None:
        self._path = path
        self._parser = RowParser(app, pause)
        self._database: peewee.SqliteDatabase | None = None
        self._identity: tuple[int, int] | None = None
        self._version: int | None = None
        self._trusted: tuple[int, int] | None = None
        """Identity of the file that was last opened."""
        self._is_checked = True
        self._warnings: tuple[str, ...] = ()

    def has_changed(self) -> bool:
        """Return whether the file or its data_version differs from that of the last load. Raises RepositoryError."""
        with translated(self._path):
            self._connect()
            return self._data_version() != self._version

    def load(self) -> BackendSet:
        """Read all rows on a new connection. Raises RepositoryError and closes the connection."""
        self.close()
        try:
            with translated(self._path):
                database = self._connect()
                self._check(database)
                version = self._data_version()
                columns = [column.name for column in database.get_columns(TABLE)]
                if not columns:
                    raise peewee.OperationalError(f"no such table: {TABLE}")
                known = [name for name in (*BACKEND_COLUMNS, DRAIN_DEADLINE, DRAINING) if name in columns]
                names = ", ".join(f'"{name}"' for name in known)
                rows = database.execute_sql(f"SELECT {names} FROM {TABLE} ORDER BY rowid").fetchall()
        except RepositoryError:
            self.close()
            raise
        found = self._parser.parse(known, rows)
        self._version = version
        return replace(found, warnings=self._warnings + found.warnings)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = self._identity = self._version = None

    def _connect(self) -> peewee.SqliteDatabase:
        stat = require_regular(self._path)
        identity = (stat.st_dev, stat.st_ino)
        if self._database is None or identity != self._identity:
            self.close()
            if identity != self._trusted:
                self._look_for_leftovers(identity)
            # thread_safe=False: the connection belongs to this object, not to the calling greenlet.
            database = peewee.SqliteDatabase(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                thread_safe=False,
                timeout=READER_BUSY_SECONDS,
                check_same_thread=False,
            )
            database.connect()
            database.connection().text_factory = _text
            self._database, self._identity = database, identity
        return self._database

    def _look_for_leftovers(self, identity: tuple[int, int]) -> None:
        """Refuse a replaced file beside those of the old one, as there is a last good set; warn about a first file."""
        is_first = self._trusted is None
        left = left_over(self._path, is_replaced=not is_first)
        if left is not None and not is_first:
            raise RepositoryError(warning_of(self._path, left))
        self._trusted = identity
        self._is_checked = is_first and left is None
        self._warnings = () if left is None else (warning_of(self._path, left),)

    def _check(self, database: peewee.SqliteDatabase) -> None:
        """Check the integrity of another file than that of the last load."""
        if not self._is_checked:
            (finding,) = database.execute_sql("PRAGMA integrity_check(1)").fetchone()
            if finding != "ok":
                raise RepositoryError("; ".join((f"{self._path} is damaged: {finding}", *self._warnings)))
        self._is_checked = True

    def _data_version(self) -> int:
        assert self._database is not None
        return int(self._database.execute_sql("PRAGMA data_version").fetchone()[0])


def _text(raw: bytes) -> str:
    """Decode UTF-8. Invalid bytes become unprintable characters, for which the row is refused, not the whole table."""
    return raw.decode(errors="surrogateescape")


def _parse_row(row: Mapping[str, object]) -> Backend | BadBackend:
    try:
        return parse_backend(row)
    except BadBackend as bad:
        return bad


class SqlBackendTable:
    """Writes the table, one transaction per call. Subclasses define how an engine connects, locks and fails."""

    _row: type[BackendRow]
    _database: Any

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        raise NotImplementedError

    def rows(self) -> list[dict[str, Any]]:
        """Return every row as stored, including rows that the edge refuses."""
        raise NotImplementedError

    def _transaction(self) -> AbstractContextManager[object]:
        raise NotImplementedError

    def _change(self) -> AbstractContextManager[object]:
        """Begin the transaction of an operator's change. Raises RepositoryError if the change would be lost."""
        return self._transaction()

    def _translated(self) -> AbstractContextManager[None]:
        """Return a context that translates the engine's errors into RepositoryError."""
        raise NotImplementedError

    def _clear(self, but: Iterable[str]) -> None:
        """Remove all rows; those with ids in `but` may stay, as they are written next."""
        self._row.delete().execute(self._database)

    def _put(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert or replace rows with distinct ids."""
        raise NotImplementedError

    def save(self, backends: Iterable[Backend], *, replaces_all: bool = False) -> None:
        """Insert or replace these backends, all or none, the last of each id. With `replaces_all` remove all others."""
        rows = {backend.id: row_of(backend) for backend in backends}
        with self._translated(), self._change():
            if replaces_all:
                self._clear(rows)
            self._put(list(rows.values()))

    def insert(self, backend: Backend) -> None:
        """Insert a new backend. Raises KeyError if the id exists."""
        with self._translated(), self._change():
            if self._present([backend.id]):
                raise KeyError(backend.id)
            self._row.insert(**row_of(backend)).execute(self._database)

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        """Send no new connections to these backends; close open ones after `deadline_seconds`, None = never."""
        deadline = None if deadline_seconds is None else time.time() + deadline_seconds
        self._update(ids, deleted=1, drain_deadline=deadline)

    def undrain(self, ids: Sequence[str]) -> None:
        self._update(ids, deleted=0, drain_deadline=None)

    def remove(self, ids: Sequence[str]) -> None:
        with self._translated(), self._change():
            self._require(ids)
            self._row.delete().where(self._row.id.in_(ids)).execute(self._database)

    def _update(self, ids: Sequence[str], **values: object) -> None:
        with self._translated(), self._change():
            self._require(ids)
            self._row.update(**values).where(self._row.id.in_(ids)).execute(self._database)

    def _require(self, ids: Sequence[str]) -> None:
        """Raise KeyError naming the ids that are not in the table, before anything is changed."""
        present = self._present(ids)
        missing = [one for one in ids if one not in present]
        if missing:
            raise KeyError(", ".join(missing))

    def _present(self, ids: Sequence[str]) -> set[str]:
        """Return those of the ids that are in the table."""
        query = self._row.select(self._row.id).where(self._row.id.in_(ids))
        return {one for (one,) in query.tuples().execute(self._database)}


class SqliteBackendStore(SqlBackendTable):
    """Writes the routing database in WAL mode. Creates the file, the table and missing columns."""

    _row = BackendRow

    def __init__(self, path: Path) -> None:
        """Open or create the database. Raises RepositoryError."""
        self._path = path
        self._database = peewee.SqliteDatabase(
            str(path),
            pragmas={"journal_mode": "wal", "busy_timeout": WRITER_BUSY_SECONDS * 1000},
            thread_safe=False,
        )
        with translated(path):
            if path.exists():
                require_regular(path)
                left = left_over(path)
                if left is not None:
                    raise RepositoryError(warning_of(path, left))
            self._database.connect()
            with self._transaction():
                peewee.SchemaManager(BackendRow, self._database).create_all(safe=True)
                self._columns = self._add_columns({DRAIN_DEADLINE: "REAL"})

    def _add_columns(self, types: Mapping[str, str]) -> set[str]:
        """Add the missing ones of these columns. Returns the names of all columns."""
        there = {column.name for column in self._database.get_columns(TABLE)}
        for name, kind in types.items():
            if name not in there:
                self._database.execute_sql(f"ALTER TABLE {TABLE} ADD COLUMN {name} {kind} DEFAULT NULL")
        return there | set(types)

    def _transaction(self) -> AbstractContextManager[object]:
        """Lock out other writers from the start. Upgrading a read to a write would fail instead of waiting."""
        return cast("AbstractContextManager[object]", self._database.atomic("IMMEDIATE"))

    def _translated(self) -> AbstractContextManager[None]:
        return translated(self._path)

    def _clear(self, but: Iterable[str]) -> None:
        others = "id IS NULL OR id NOT IN (SELECT value FROM json_each(?))"
        self._database.execute_sql(f"DELETE FROM {TABLE} WHERE {others}", (json.dumps(list(but)),))

    def _put(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert or update rows. Columns not given keep their values, such as those of a registration."""
        connection = self._database.connection()
        connection.executemany(_UPDATE, rows)
        connection.executemany(_INSERT, rows)

    def _change(self) -> AbstractContextManager[object]:
        if self._database.table_exists(REPLICA_TABLE):
            raise RepositoryConflict(
                f"{self._path} is a replica of etcd: change backends through the admin API (docs/how-to/many-pops.md)"
            )
        return self._transaction()

    def __exit__(self, *_exception: object) -> None:
        # A write-ahead log left behind would be applied to a file that is moved to this path later.
        with contextlib.suppress(peewee.PeeweeException):
            self._database.execute_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()

    def rows(self) -> list[dict[str, Any]]:
        """Return every row as stored, including rows that the edge refuses. A self-draining one counts as deleted."""
        names = (*BACKEND_COLUMNS, DRAIN_DEADLINE)
        selected = ", ".join(names)
        if DRAINING in self._columns:
            selected = selected.replace("deleted", f"CASE {DRAINING} WHEN 1 THEN 1 ELSE deleted END")
        with self._translated():
            # Not through the model: its fields fail on values of another type.
            self._database.connection().text_factory = _text
            found = self._database.execute_sql(f"SELECT {selected} FROM {TABLE} ORDER BY id").fetchall()
        return [dict(zip(names, row, strict=True)) for row in found]


def row_of(backend: Backend) -> dict[str, object]:
    """Return the row of a backend."""
    return {
        "id": backend.id,
        "app": backend.app,
        "region": backend.region,
        "country": backend.country,
        "wg_ip": backend.host_name or backend.host,
        "port": backend.port,
        "healthy": int(backend.is_healthy),
        "weight": backend.weight,
        "soft_limit": backend.soft_limit,
        "hard_limit": backend.hard_limit,
        "deleted": int(backend.is_deleted),
        DRAIN_DEADLINE: backend.drain_deadline,
    }
