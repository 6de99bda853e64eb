"""Stores the admin API's tokens in the gateway's SQLite file, through peewee. All calls block the event loop."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import peewee

from app.domain.tokens import Scope, Token
from app.outbound.sqlite_errors import store_error

BUSY_SECONDS: Final = 5
"""How long a change waits for another writer."""
READER_BUSY_SECONDS: Final = 1
"""In WAL mode a reader waits for an exclusive lock only, which may last: a start must not."""


class TokenRow(peewee.Model):
    """A token, stored as a hash. `scopes` are separated by spaces."""

    name = peewee.TextField(primary_key=True)
    hash = peewee.TextField(unique=True)
    scopes = peewee.TextField()
    created_at = peewee.FloatField()

    class Meta:
        table_name = "tokens"


class SqliteTokenStore:
    """Stores tokens in the file at `path`, which the first call creates, readable only by its owner."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Token]:
        """Return every token, oldest first. Raises StoreError."""
        with self._open("DEFERRED", READER_BUSY_SECONDS) as database:
            query = TokenRow.select().order_by(TokenRow.created_at, TokenRow.name)
            return [_token(row) for row in query.execute(database)]

    def add(self, token: Token) -> None:
        """Store a new token. Raises KeyError if the name exists, StoreError."""
        with self._open() as database:
            try:
                TokenRow.insert(**_row(token)).execute(database)
            except peewee.IntegrityError:
                raise KeyError(token.name) from None

    def remove(self, name: str) -> None:
        """Delete a token. Raises KeyError if the name does not exist, StoreError."""
        with self._open() as database:
            if not TokenRow.delete().where(TokenRow.name == name).execute(database):
                raise KeyError(name)

    def replace_all(self, token: Token) -> int:
        """Store this token in the place of all others. Returns how many those were. Raises StoreError."""
        with self._open() as database:
            count = int(TokenRow.delete().execute(database))
            TokenRow.insert(**_row(token)).execute(database)
            return count

    def state(self) -> object:
        """Return what differs after a change of the database; None without one."""
        log = self._path.with_name(f"{self._path.name}-wal")
        return (_state(self._path), _state(log)) if self._path.exists() else None

    @contextlib.contextmanager
    def _open(
        self, transaction: str = "IMMEDIATE", busy_seconds: float = BUSY_SECONDS
    ) -> Iterator[peewee.SqliteDatabase]:
        """Connect for one call, in one transaction. Raises StoreError, which is StoreLocked after `busy_seconds`."""
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = peewee.SqliteDatabase(
                str(self._path), pragmas={"journal_mode": "wal"}, thread_safe=False, timeout=busy_seconds
            )
            with database.connection_context(), database.atomic(transaction):
                peewee.SchemaManager(TokenRow, database).create_all(safe=True)
                yield database
        except (peewee.PeeweeException, sqlite3.Error, OSError) as error:
            raise store_error(error, self._path) from None


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def _row(token: Token) -> dict[str, object]:
    scopes = " ".join(sorted(token.scopes))
    return {"name": token.name, "hash": token.digest, "scopes": scopes, "created_at": token.created_at}


def _token(row: Any) -> Token:
    """Return the token of a row. Ignores scopes that this version does not know."""
    known = {scope.value for scope in Scope}
    scopes = frozenset(Scope(word) for word in row.scopes.split() if word in known)
    return Token(row.name, row.hash, scopes, row.created_at)
