"""Acquires a grant for a request's handler from the handlers actor, and releases it in every case."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

import gevent

from actors.handler_messages import AcquireHandler, FindEndpoint, ReleaseHandler
from actors.runtime import Address, AskTimeoutError, ask
from app.domain.endpoints import Endpoint
from app.domain.handler_table import Acquired, Unserved

ASK_TIMEOUT_SECONDS: Final = 5.0


class Dispatch:
    """Acquires and releases grants. `grant_ids` are unique in the process."""

    def __init__(self, handlers: Address, grant_ids: Iterator[int] | None = None) -> None:
        self._handlers = handlers
        self._grant_ids = grant_ids or count(1)

    def find(self, host: str, path: str, method: str) -> Endpoint | Unserved:
        """Return the endpoint that a request is for, or why no handler can take it. Raises AskTimeoutError."""
        return ask(self._handlers, FindEndpoint(host, path, method), timeout_s=ASK_TIMEOUT_SECONDS)

    def acquire(self, host: str, path: str, method: str) -> Acquired:
        """Find a request's handler. Release a Grant once the handler has done its work. Raises AskTimeoutError."""
        grant_id = next(self._grant_ids)
        try:
            return ask(self._handlers, AcquireHandler(grant_id, host, path, method), timeout_s=ASK_TIMEOUT_SECONDS)
        except BaseException:  # including Killed: the actor may still grant it
            gevent.spawn(self._release, grant_id, False)
            raise

    def release(self, grant_id: int, *, failed: bool) -> None:
        """Release a grant; repeating it has no effect. Ignores an actor that is down or fails."""
        try:
            self._release(grant_id, failed)
        except BaseException:  # such as Killed, while the actor was down
            gevent.spawn(self._release, grant_id, failed)
            raise

    def _release(self, grant_id: int, failed: bool) -> None:
        try:
            ask(self._handlers, ReleaseHandler(grant_id, failed), timeout_s=ASK_TIMEOUT_SECONDS)
        except (AskTimeoutError, RuntimeError):  # a late release is still processed, a failed one was logged
            return
