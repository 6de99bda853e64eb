"""The routing database in PostgreSQL, through peewee and psycopg 3: the repository that the edge reads, and the store.

A trigger on the table sends a NOTIFY with every transaction that changes it. The repository has one connection that
LISTENs: a check for changes reads what has arrived on its socket and sends nothing to the server. A lost connection is
reopened, with increasing pauses, and then the whole table is read, because notifications were lost meanwhile. Without
the trigger, changes are seen only at the regular full reload.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

import peewee
import psycopg
from playhouse.migrate import PostgresqlMigrator, migrate
from psycopg.conninfo import conninfo_to_dict

from app.config import DatabaseUrl
from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE
from app.outbound.peewee_backends import TABLE, BackendRow, RowParser, SqlBackendTable
from app.ports import BackendSet, RepositoryDenied, RepositoryError, RepositoryFull

CHANNEL: Final = "edgeproxy_backends"
TRIGGER: Final = "edgeproxy_backends_changed"
FIRST_PAUSE_SECONDS: Final = 0.5
MAX_PAUSE_SECONDS: Final = 5.0
"""Between attempts to connect. The actual pause is random, 50-100 %, so that edges do not reconnect all at once."""
_CONNECT_SECONDS: Final = 3
_STATEMENT_SECONDS: Final = 10
_INSTALLING: Final = 0x65_64_67_65
"""Key of the advisory lock. Without it, two stores that create the table at the same time would fail."""
_ROWS_PER_FETCH: Final = 500
_ROWS_PER_STATEMENT: Final = 1000

_COLUMNS: Final = f"""
    SELECT attname FROM pg_attribute
    WHERE attrelid = to_regclass('{TABLE}') AND attnum > 0 AND NOT attisdropped"""
_HAS_TRIGGER: Final = f"SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass('{TABLE}') AND tgname = '{TRIGGER}'"
_MAKE_TRIGGER: Final = (
    f"""CREATE OR REPLACE FUNCTION {TRIGGER}() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NOTIFY {CHANNEL}; RETURN NULL; END $$""",
    f"""CREATE TRIGGER {TRIGGER} AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON {TABLE}
        FOR EACH STATEMENT EXECUTE FUNCTION {TRIGGER}()""",
)


class PostgresBackendRepository:
    """Reads the backends of one app (all with app "") and detects changes. For use by one thread. See RowParser."""

    def __init__(self, url: DatabaseUrl, app: str = "", pause: Callable[[float], object] = time.sleep) -> None:
        self._url = url
        self._parser = RowParser(app, pause)
        self._database: Any = None
        self._has_changed = True
        self._pause_seconds = 0.0
        self._retry_at = 0.0
        self._failure = ""

    def has_changed(self) -> bool:
        """Return whether the trigger has sent a notification since the last load. Raises RepositoryError."""
        with self._connected() as database:
            wire = database.connection().pgconn
            wire.consume_input()
            while wire.notifies():
                self._has_changed = True
        return self._has_changed

    def load(self) -> BackendSet:
        """Read all rows. Raises RepositoryError."""
        with self._connected() as database:
            self._has_changed = False  # a later notification may be for a change that this SELECT does not see
            try:
                present = {name for (name,) in database.execute_sql(_COLUMNS).fetchall()}
                # Only our columns: others may hold values without a Python type, such as "infinity".
                names = [name for name in (*BACKEND_COLUMNS, DRAIN_DEADLINE) if name in present] or ["*"]
                cursor = database.execute_sql(f"SELECT {', '.join(names)} FROM {TABLE} ORDER BY id")
                rows = list(_fetched(cursor))
            except BaseException:
                self._has_changed = True
                raise
        return self._parser.parse(names, rows)

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
        self._database = None
        self._has_changed = True

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """Yield the connected database; close it if the connection is lost meanwhile."""
        if self._database is None:
            self._database = self._reconnect()
        with _translated(self._url):
            try:
                yield self._database
            except BaseException:
                if self._database.connection().closed:
                    self.close()
                raise

    def _reconnect(self) -> Any:
        if time.monotonic() < self._retry_at:
            raise RepositoryError(self._failure)
        try:
            database = _connect(self._url, "SET default_transaction_read_only = on", f"LISTEN {CHANNEL}")
        except RepositoryError as error:
            self._failure = str(error)
            self._pause_seconds = min(MAX_PAUSE_SECONDS, self._pause_seconds * 2 or FIRST_PAUSE_SECONDS)
            self._retry_at = time.monotonic() + self._pause_seconds * random.uniform(0.5, 1)
            raise
        self._pause_seconds = 0.0
        database.connection().add_notify_handler(self._on_notification)
        return database

    def _on_notification(self, _notification: object) -> None:
        """Record a notification that arrived with the result of a statement."""
        self._has_changed = True


class PostgresBackendRow(BackendRow):
    """The table in PostgreSQL. `drain_deadline` is a double, because a REAL would be off by up to two minutes."""

    drain_deadline = peewee.DoubleField(null=True, default=None)

    class Meta:
        table_name = TABLE


class PostgresBackendStore(SqlBackendTable):
    """Writes the routing database, one transaction per call. Creates table, columns and trigger if needed."""

    _row = PostgresBackendRow

    def __init__(self, url: DatabaseUrl) -> None:
        """Connect. Raises RepositoryError."""
        self._url = url
        self._database = _connect(url)
        try:
            with _translated(url):
                self._install()
        except BaseException:
            self._database.close()
            raise

    def __exit__(self, *_exception: object) -> None:
        self._database.close()

    def rows(self) -> list[dict[str, Any]]:
        names = (*BACKEND_COLUMNS, DRAIN_DEADLINE)
        with _translated(self._url):
            cursor = self._database.execute_sql(f"SELECT {', '.join(names)} FROM {TABLE} ORDER BY id")
            return [dict(zip(names, row, strict=True)) for row in _fetched(cursor)]

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Lock out other writers from the start: of two that read and then write, one would fail."""
        with self._database.atomic():
            self._database.execute_sql(f"LOCK TABLE {TABLE} IN SHARE ROW EXCLUSIVE MODE")
            yield

    def _translated(self) -> AbstractContextManager[None]:
        return _translated(self._url)

    def _put(self, rows: Sequence[Mapping[str, object]]) -> None:
        id_, *others = self._row._meta.sorted_fields
        for first in range(0, len(rows), _ROWS_PER_STATEMENT):
            some = self._row.insert_many(rows[first : first + _ROWS_PER_STATEMENT])
            some.on_conflict(conflict_target=[id_], preserve=others).execute(self._database)

    def _install(self) -> None:
        if self._missing_columns() or not self._has_trigger():
            with self._database.atomic():
                self._database.execute_sql("SELECT pg_advisory_xact_lock(%s)", (_INSTALLING,))
                peewee.SchemaManager(self._row, self._database).create_all(safe=True)
                migrator = PostgresqlMigrator(self._database)
                fields = self._row._meta.fields
                migrate(*(migrator.add_column(TABLE, name, fields[name]) for name in self._missing_columns()))
                if not self._has_trigger():
                    for statement in _MAKE_TRIGGER:
                        self._database.execute_sql(statement)

    def _missing_columns(self) -> list[str]:
        present = {name for (name,) in self._database.execute_sql(_COLUMNS).fetchall()}
        return [name for name in self._row._meta.fields if name not in present]

    def _has_trigger(self) -> bool:
        return self._database.execute_sql(_HAS_TRIGGER).fetchone() is not None


def _connect(url: DatabaseUrl, *first: str) -> Any:
    """Connect, execute the given statements, and return the database. Raises RepositoryError."""
    try:
        conninfo_to_dict(url.text)
    except psycopg.Error:  # its message may contain the password
        raise RepositoryError(f"{url}: libpq cannot parse this URL") from None
    database: Any = peewee.PostgresqlDatabase(
        url.text,
        prefer_psycopg3=True,
        thread_safe=False,  # the connection belongs to one object, not to the calling greenlet
        connect_timeout=_CONNECT_SECONDS,
        application_name="edgeproxy",
        client_encoding="utf8",
        prepare_threshold=None,  # a prepared SELECT * fails after a column is added to the table
        # An unreachable server is detected after 10 s, whether or not there is data to send.
        keepalives_idle=5,
        keepalives_interval=2,
        keepalives_count=3,
        tcp_user_timeout=10_000,
    )
    try:
        with _translated(url):
            database.connect()
            for statement in (f"SET statement_timeout = '{_STATEMENT_SECONDS}s'", *first):
                database.execute_sql(statement)
    except BaseException:
        database.close()
        raise
    return database


def _fetched(cursor: Any) -> Iterator[tuple[Any, ...]]:
    """Yield rows, fetched in parts, because the library converts each part without yielding to the event loop."""
    while some := cursor.fetchmany(_ROWS_PER_FETCH):
        yield from some


@contextmanager
def _translated(url: DatabaseUrl) -> Iterator[None]:
    """Translate errors of peewee and psycopg into RepositoryError."""
    try:
        yield
    except (peewee.PeeweeException, psycopg.Error, OSError, UnicodeDecodeError) as error:
        cause = error.__cause__ or error.__context__ or error
        if isinstance(cause, psycopg.errors.UndefinedTable):
            raise RepositoryError(
                f"{url}: there is no table {TABLE}; create it with scripts/seed_backends.py"
            ) from None
        raise _kind(cause)(f"{url}: {' '.join(str(error).split())}") from None


def _kind(error: BaseException) -> type[RepositoryError]:
    """Return the class for an error of psycopg: by its SQLSTATE, which an error of connecting does not have."""
    if isinstance(error, psycopg.errors.DiskFull):
        return RepositoryFull
    is_denied = isinstance(error, psycopg.errors.InsufficientPrivilege) or "authentication failed" in str(error)
    return RepositoryDenied if is_denied else RepositoryError
