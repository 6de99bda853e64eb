"""Connections to SQL databases through peewee: SQLite in a thread, PostgreSQL by psycopg 3, MySQL by PyMySQL.

PostgreSQL and MySQL get the time limit of a call, so that an abandoned query also ends on the server. A query of SQLite
is interrupted.
"""

from __future__ import annotations

import math
import socket
import sqlite3
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Final

import gevent
import peewee
import psycopg
import pymysql
from gevent.lock import BoundedSemaphore

from app.domain.service_calls import Execute, Ping, Query, Transaction
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import ServiceSpec
from app.outbound.service_socket import open_socket
from app.outbound.stale_socket import StaleSocket
from app.outbound.tls_context import tls_context
from app.outbound.worker_thread import WorkerThread

_FAILURES: Final = (peewee.PeeweeException, sqlite3.Error, psycopg.Error, pymysql.MySQLError, OSError)
"""peewee translates errors of executing, but not of fetching."""
_UNFIT: Final = (TypeError, ValueError, OverflowError)
"""Raised by drivers for parameters that they cannot send and results that they cannot decode."""
_ROWS_PER_TURN: Final = 500
"""Rows fetched per turn of the event loop: 2 ms with PyMySQL, which is pure Python."""
_PAUSE_SECONDS: Final = 0.001
"""With 0 the loop would resume this greenlet at once, without running timers."""
_INTERRUPT_SECONDS: Final = 0.5
_IN_TRANSACTION: Final = 1
"""SERVER_STATUS_IN_TRANS in MySQL's protocol."""


class SqlConnection:
    """The code shared by the three engines. A subclass opens `database` in its __init__."""

    def __init__(self, database: Any, max_rows: int) -> None:
        self._database = database
        self._max_rows = max_rows
        self._is_suspect = False
        """Whether an error may have left the connection in the middle of a result."""

    def call(self, operation: object) -> object:
        try:
            match operation:
                case Query() | Execute():
                    return self._single(operation)
                case Transaction(statements):
                    return self._all_or_none(statements)
                case Ping():
                    self._run(Query("SELECT 1"))
                    return None
            raise OperationRefused(f"a database does not support {type(operation).__name__}")
        except _FAILURES as error:
            if self._is_lost():
                raise ConnectionLost(_text_of(error)) from None
            raise OperationRefused(_text_of(error)) from None
        except _UNFIT as error:
            self._is_suspect = True
            raise OperationRefused(_text_of(error)) from None

    def _single(self, statement: Query | Execute) -> object:
        """Run a statement outside a transaction. Ensures that it leaves no transaction open for the next caller."""
        try:
            result = self._run(statement)
        except Exception:
            self._is_suspect = self._is_lost() or self._is_in_transaction()
            raise
        if self._is_in_transaction():
            self._database.rollback()
            raise OperationRefused(
                "a statement must not leave a transaction open: send the whole transaction in one call"
            )
        return result

    def _all_or_none(self, statements: Sequence[Query | Execute]) -> list[object]:
        # Not peewee's atomic(): interrupted in a statement by a timeout, it would wait for a rollback.
        self._begin()
        try:
            results = [self._run(one) for one in statements]
            self._database.commit()
        except Exception:
            if not self._is_lost() and self._is_in_transaction():
                self._database.rollback()
            raise
        return results

    def _run(self, statement: Query | Execute) -> object:
        sql, parameters = statement
        if not parameters and self._database.param == "%s":
            sql = sql.replace("%", "%%")  # peewee always passes parameters, even if there are none
        cursor = self._database.execute_sql(sql, parameters)
        try:
            return self._rows(cursor) if isinstance(statement, Query) else _changed(cursor.rowcount)
        finally:
            cursor.close()

    def _rows(self, cursor: Any) -> list[dict[str, object]]:
        if cursor.description is None:
            return []
        names = [column[0] for column in cursor.description]
        rows: list[dict[str, object]] = []
        while some := cursor.fetchmany(_ROWS_PER_TURN):
            rows += [dict(zip(names, row, strict=True)) for row in some]
            if len(rows) > self._max_rows:
                self._stop_reading()
                raise OperationRefused(
                    f"the result has more than {self._max_rows} rows: select fewer, or raise max_rows"
                )
            if len(some) == _ROWS_PER_TURN:
                self._yield_to_loop()
        return rows

    def _yield_to_loop(self) -> None:
        gevent.sleep(_PAUSE_SECONDS)

    def _stop_reading(self) -> None:
        """Skip the rest of a result."""

    def _begin(self) -> None:
        self._database.begin()

    def _is_lost(self) -> bool:
        raise NotImplementedError

    def _is_in_transaction(self) -> bool:
        raise NotImplementedError


def _changed(count: int) -> int:
    """Return a cursor's row count; 0 if it has none, for which drivers return -1 or its unsigned 64-bit form."""
    return count if 0 <= count < 2**63 else 0


def _text_of(error: Exception) -> str:
    match error.args:
        case (int(code), str(words)):  # from PyMySQL
            return f"{words} ({code})"
    return " ".join(str(error).split()) or repr(error)


_opening: defaultdict[str, BoundedSemaphore] = defaultdict(lambda: BoundedSemaphore(1))
"""By path. Switching a new file to WAL mode fails, instead of waiting, while another connection does it."""


class SqliteConnection(SqlConnection):
    """One connection in a thread of its own, so that queries do not block the event loop."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Open or create the file in WAL mode. Raises ConnectionLost."""
        database = peewee.SqliteDatabase(
            spec.settings["path"],
            pragmas={"journal_mode": "wal", "synchronous": "normal", "foreign_keys": 1},
            thread_safe=False,  # the connection belongs to this object, not to the calling greenlet
            timeout=spec.timeout_seconds,
            check_same_thread=False,
        )
        super().__init__(database, spec.settings["max_rows"])
        self._thread = WorkerThread()
        self._raw: Any = None
        try:
            with _opening[spec.settings["path"]]:
                self._raw = self._thread.run(self._open)
        except _FAILURES as error:
            self._thread.close()
            raise ConnectionLost(f"{spec.settings['path']}: {_text_of(error)}") from None
        except BaseException:
            self._thread.close()
            raise

    def _open(self) -> Any:
        self._database.connect()
        return self._database.connection()

    def call(self, operation: object) -> object:
        try:
            return self._thread.run(super().call, operation)
        except (OperationRefused, ConnectionLost):
            raise
        except BaseException:  # a timeout or kill, while the query is still running
            self._raw.interrupt()
            raise

    def is_stale(self) -> bool:
        return self._is_suspect

    def close(self) -> None:
        try:
            with gevent.Timeout(_INTERRUPT_SECONDS, False):
                self._thread.run(self._raw.close)
        finally:
            self._thread.close()

    def _begin(self) -> None:
        """Lock out other writers from the start. Upgrading a read to a write would fail instead of waiting."""
        self._database.begin("IMMEDIATE")

    def _yield_to_loop(self) -> None:
        """Do nothing: this runs in a thread."""

    def _is_lost(self) -> bool:
        return False

    def _is_in_transaction(self) -> bool:
        return bool(self._raw.in_transaction)


class PostgresqlConnection(SqlConnection):
    """A connection to PostgreSQL. psycopg waits with gevent's poll, as gevent has patched it."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect. Raises ConnectionLost."""
        settings = spec.settings
        try:
            # If libpq resolved the name, it would block the event loop.
            addresses = _resolve(settings["host"], settings["port"])
            database: Any = peewee.PostgresqlDatabase(
                settings["database"],
                prefer_psycopg3=True,
                thread_safe=False,
                host=",".join([settings["host"]] * len(addresses)),
                hostaddr=",".join(addresses),
                port=settings["port"],
                user=settings["user"],
                password=spec.secret("password"),
                connect_timeout=max(2, math.ceil(spec.connect_timeout_seconds)),
                application_name="edgeproxy",
                options=f"-c statement_timeout={math.ceil(spec.timeout_seconds * 1000)}",
                **_LIBPQ_TLS[settings["tls"]],
            )
            super().__init__(database, settings["max_rows"])
            database.connect()
        except _FAILURES as error:
            raise ConnectionLost(_text_of(error)) from None
        self._raw: Any = database.connection()
        self._end = StaleSocket(self._raw.fileno())

    def is_stale(self) -> bool:
        return self._is_suspect or bool(self._end)

    def close(self) -> None:
        self._raw.close()

    def _is_lost(self) -> bool:
        return bool(self._raw.closed)

    def _is_in_transaction(self) -> bool:
        return bool(self._raw.pgconn.transaction_status != psycopg.pq.TransactionStatus.IDLE)


_LIBPQ_TLS: Final[dict[str, dict[str, Any]]] = {
    "off": {"sslmode": "disable"},
    "require": {"sslmode": "require"},
    "verify": {"sslmode": "verify-full", "sslrootcert": "system"},
}


class MysqlConnection(SqlConnection):
    """A connection to MySQL or MariaDB."""

    def __init__(self, spec: ServiceSpec) -> None:
        """Connect. Raises ConnectionLost."""
        settings = spec.settings
        context = tls_context(settings["tls"])
        database: Any = _PurePythonMySQL(
            settings["database"],
            thread_safe=False,
            host=settings["host"],
            port=settings["port"],
            user=settings["user"],
            password=spec.secret("password") or "",
            connect_timeout=spec.connect_timeout_seconds,
            program_name="edgeproxy",
            cursorclass=pymysql.cursors.SSCursor,  # fetches rows on demand instead of all at once
            **({"ssl_disabled": True} if context is None else {"ssl": context}),
        )
        super().__init__(database, settings["max_rows"])
        try:
            database.connect()
            self._raw: Any = database.connection()
            self._limit_queries(spec.timeout_seconds)
        except _FAILURES as error:
            raise ConnectionLost(_text_of(error)) from None
        self._end = StaleSocket(self._raw._sock.fileno())

    def is_stale(self) -> bool:
        return self._is_suspect or bool(self._end)

    def close(self) -> None:
        if self._raw._result is not None:
            self._raw._result.unbuffered_active = False  # or closing would read the rest of the result
        self._raw._force_close()  # without COM_QUIT, to which a hung server would not respond

    def _stop_reading(self) -> None:
        self.close()
        self._is_suspect = True

    def _limit_queries(self, seconds: float) -> None:
        """Set the server's time limit for statements; MySQL has one only for SELECT."""
        is_mariadb = "mariadb" in self._raw.get_server_info().lower()
        limit = f"max_statement_time={seconds:f}" if is_mariadb else f"max_execution_time={math.ceil(seconds * 1000)}"
        self._database.execute_sql(f"SET SESSION {limit}").close()

    def _is_lost(self) -> bool:
        return not self._raw.open

    def _is_in_transaction(self) -> bool:
        return bool(self._raw.server_status & _IN_TRANSACTION)


class _PurePythonMySQL(peewee.MySQLDatabase):
    """Connects with PyMySQL alone. Without it peewee falls back to MySQLdb, which blocks the event loop."""

    def _connect(self) -> Any:
        options = self.connect_params
        connection = pymysql.connect(database=self.database, autocommit=True, defer_connect=True, **options)
        connection.connect(open_socket(options["host"], options["port"], options["connect_timeout"]))
        return connection


def _resolve(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a host. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))
