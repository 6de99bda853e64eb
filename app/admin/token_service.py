"""The tokens of this edge: loaded from the database at the start, then changed in memory and in the database."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Final

import gevent
from gevent.event import Event
from loguru import logger

from app.domain.stored import StoreError, StoreLocked
from app.domain.tokens import SECRET_BYTES, Scope, Token, digest_of, token_text
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.token_file import make_first_token
from app.outbound.worker_thread import WorkerThread

RETRY_SECONDS: Final = 5.0
"""Between two attempts to read a database that was locked at the start."""


class TokenService:
    """Creates and revokes tokens. The first token's text is written to `file`, readable by its owner only."""

    def __init__(self, store: SqliteTokenStore, file: Path) -> None:
        self._store = store
        self._file = file
        self._thread = WorkerThread()
        self._tokens: tuple[Token, ...] = ()
        self._loaded: object = None
        """The state of the database when it was read last."""
        self._error = ""
        """Why the tokens have not been read yet."""

    def current(self) -> tuple[Token, ...]:
        """Return the current tokens. Raises StoreError until they have been read."""
        if self._error:
            raise StoreError(f"the tokens are not read yet: {self._error}")
        return self._tokens

    def start(self, has_stopped: Event) -> None:
        """Load the tokens; again later, until `has_stopped` is set, if the database is locked. Raises StoreError."""
        try:
            self.load()
        except StoreLocked as error:
            logger.error("admin: {}; trying again every {:g} s", error, RETRY_SECONDS)
            self._error = str(error)
            gevent.spawn(self._load_later, has_stopped)

    def _load_later(self, has_stopped: Event) -> None:
        while self._error and not has_stopped.wait(RETRY_SECONDS):
            try:
                self.load()
            except StoreError as error:
                self._error = str(error)
            else:
                self._error = ""
                logger.info("admin: the tokens have been read")

    def load(self) -> None:
        """Load the tokens; if there are none, create the first, with every scope. Raises StoreError."""
        self._load()
        if not self._tokens:
            self._create_first()

    def refresh(self) -> None:
        """Load the tokens again if the database has changed, as by `tokens reset`. Keeps them if it has none."""
        state = self._thread.run(self._store.state)
        if state is None or state == self._loaded:
            return
        try:
            self._load()
        except StoreError as error:
            logger.error("admin: the tokens cannot be read again: {}", error)

    def _load(self) -> None:
        self._loaded = self._thread.run(self._store.state)  # before: a change meanwhile is read the next time
        self._tokens = tuple(self._thread.run(self._store.load)) or self._tokens

    def _create_first(self) -> None:
        try:
            token = self._thread.run(make_first_token, self._file)
        except OSError as error:
            raise StoreError(f"the first token cannot be written to {self._file}: {error.strerror}") from None
        self._add(token)
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
