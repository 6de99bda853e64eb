"""The tokens of this edge: loaded from the database at the start, then changed in memory and in the database."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from pathlib import Path
from typing import Final

from loguru import logger

from app.domain.stored import StoreError
from app.domain.tokens import ALL_SCOPES, SECRET_BYTES, Scope, Token, digest_of, token_text
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.worker_thread import WorkerThread

FIRST_TOKEN_NAME: Final = "first"


class TokenService:
    """Creates and revokes tokens. The first token's text is written to `file`, readable by its owner only."""

    def __init__(self, store: SqliteTokenStore, file: Path) -> None:
        self._store = store
        self._file = file
        self._thread = WorkerThread()
        self._tokens: tuple[Token, ...] = ()

    def current(self) -> tuple[Token, ...]:
        """Return the current tokens."""
        return self._tokens

    def load(self) -> None:
        """Load the tokens; if there are none, create the first, with every scope. Raises StoreError."""
        self._tokens = tuple(self._thread.run(self._store.load))
        if not self._tokens:
            self._create_first()

    def _create_first(self) -> None:
        text = token_text(secrets.token_bytes(SECRET_BYTES))
        try:
            # Before the database: a stored token with unknown text would lock everyone out.
            self._thread.run(_write_secret, self._file, text)
        except OSError as error:
            raise StoreError(f"the first token cannot be written to {self._file}: {error.strerror}") from None
        self._add(Token(FIRST_TOKEN_NAME, digest_of(text), ALL_SCOPES, time.time()))
        logger.bind(path=str(self._file.absolute())).info(
            "admin: the first token is in {}: keep it safe", self._file.absolute()
        )

    def create(self, name: str, scopes: frozenset[Scope]) -> tuple[Token, str]:
        """Create a token. Returns it with its text, which is not stored. Raises KeyError, StoreError."""
        text = token_text(secrets.token_bytes(SECRET_BYTES))
        token = Token(name, digest_of(text), scopes, time.time())
        self._add(token)
        return token, text

    def _add(self, token: Token) -> None:
        self._thread.run(self._store.add, token)
        self._tokens = (*self._tokens, token)

    def revoke(self, name: str) -> None:
        """Revoke a token immediately. Raises KeyError, StoreError."""
        self._thread.run(self._store.remove, name)
        self._tokens = tuple(token for token in self._tokens if token.name != name)


def _write_secret(path: Path, text: str) -> None:
    """Write a line to a new file readable by its owner only, replacing any other. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        fresh.unlink()
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
