"""The tokens of this edge: read once from the database, kept in memory, changed in both."""

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
    """`file` gets the first token's text, in the clear, for its owner alone to read."""

    def __init__(self, store: SqliteTokenStore, file: Path) -> None:
        self._store = store
        self._file = file
        self._thread = WorkerThread()
        self._tokens: tuple[Token, ...] = ()

    def current(self) -> tuple[Token, ...]:
        """Return the tokens there are now."""
        return self._tokens

    def load(self) -> None:
        """Read the tokens; where there is none, make the first, with every scope. Raises StoreError."""
        self._tokens = tuple(self._thread.run(self._store.load))
        if not self._tokens:
            self._make_first()

    def _make_first(self) -> None:
        text = token_text(secrets.token_bytes(SECRET_BYTES))
        try:
            # Before the database: a token kept that nobody was told of would shut everybody out.
            self._thread.run(_write_secret, self._file, text)
        except OSError as error:
            raise StoreError(f"the first token cannot be written to {self._file}: {error.strerror}") from None
        self._keep(Token(FIRST_TOKEN_NAME, digest_of(text), ALL_SCOPES, time.time()))
        logger.bind(path=str(self._file.absolute())).info(
            "admin: the first token is in {}: keep it safe", self._file.absolute()
        )

    def make(self, name: str, scopes: frozenset[Scope]) -> tuple[Token, str]:
        """Make a token; returns it and its text, which is nowhere else. Raises KeyError, StoreError."""
        text = token_text(secrets.token_bytes(SECRET_BYTES))
        token = Token(name, digest_of(text), scopes, time.time())
        self._keep(token)
        return token, text

    def _keep(self, token: Token) -> None:
        self._thread.run(self._store.add, token)
        self._tokens = (*self._tokens, token)

    def revoke(self, name: str) -> None:
        """Forget a token, at once. Raises KeyError, StoreError."""
        self._thread.run(self._store.remove, name)
        self._tokens = tuple(token for token in self._tokens if token.name != name)


def _write_secret(path: Path, text: str) -> None:
    """Put a line into a file that its owner alone may read, in the place of any other. Raises OSError."""
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
