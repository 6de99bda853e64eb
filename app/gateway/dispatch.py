"""Asks the handlers actor who answers a request, and gives the grant back whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Final

import gevent

from actors.handler_messages import AcquireHandler, ReleaseHandler
from actors.runtime import Address, AskTimeoutError, ask
from app.domain.handler_table import Acquired

ASK_TIMEOUT_SECONDS: Final = 5.0


class Dispatch:
    """The way of a request to its handler. `grant_ids` are the process's: no two requests have the same."""

    def __init__(self, handlers: Address, grant_ids: Iterator[int] | None = None) -> None:
        self._handlers = handlers
        self._grant_ids = grant_ids or count(1)

    def acquire(self, host: str, path: str, method: str) -> Acquired:
        """Find what answers a request. A Grant is to be released when the answer is sent. Raises AskTimeoutError."""
        grant_id = next(self._grant_ids)
        try:
            return ask(self._handlers, AcquireHandler(grant_id, host, path, method), timeout_s=ASK_TIMEOUT_SECONDS)
        except BaseException:  # also thrown in from outside: the request may still be carried out
            gevent.spawn(self._release, grant_id, False)
            raise

    def release(self, grant_id: int, *, failed: bool) -> None:
        """Give a grant back, once however often it is called. Says nothing of an actor that is down or failed."""
        try:
            self._release(grant_id, failed)
        except BaseException:  # thrown in from outside, while the actor was down
            gevent.spawn(self._release, grant_id, failed)
            raise

    def _release(self, grant_id: int, failed: bool) -> None:
        try:
            ask(self._handlers, ReleaseHandler(grant_id, failed), timeout_s=ASK_TIMEOUT_SECONDS)
        except (AskTimeoutError, RuntimeError):  # a late one is carried out still, a failed one was logged
            return
