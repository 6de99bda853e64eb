"""A worker thread for calls that may never return: a disk that hangs, a server that keeps silent."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeVar

import gevent
from gevent.threadpool import ThreadPool
from loguru import logger

from app.outbound.worker_thread import WorkerThread, attempt

T = TypeVar("T")

SILENCE_SECONDS: Final = 5.0
"""After this, a call that has not returned is logged."""
GIVE_UP_SECONDS: Final = 30.0
"""After this, it has failed. Longer than the time limits of PostgreSQL's connections and statements together."""
_MOST_DOUBLINGS: Final = 7
"""Of the time between two replacements while threads hang, to about an hour: a disk may hang for days."""


class WatchedThread(WorkerThread):
    """Gives up a call that takes longer than GIVE_UP_SECONDS, and runs the next one in a new thread.

    A call that was given up goes on in the old thread for as long as it hangs, and its result is discarded. So the
    caller must give the next call other objects than those that are for one thread only.
    """

    def __init__(self, name: str) -> None:
        """`name` is for the log: what is read or written."""
        super().__init__()
        self._name = name
        self._is_silent = False
        self._hanging: list[ThreadPool] = []
        self._replace_at = 0.0

    def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Return `work(*arguments)` without blocking the event loop. Raises its exceptions, and TimeoutError."""
        task = gevent.spawn(self._pool.apply, attempt, (work, arguments))
        try:
            task.join(SILENCE_SECONDS)
            if not task.dead:
                self._log_silence()
                task.join(GIVE_UP_SECONDS - SILENCE_SECONDS)
            if not task.dead:
                self._replace()
                raise TimeoutError(f"no response for {GIVE_UP_SECONDS:.0f} s")
        finally:
            task.kill(block=False)
        self._is_silent = False
        result, error = task.get()
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def _log_silence(self) -> None:
        if not self._is_silent:  # once, however many calls are given up
            logger.warning("{}: no response for {:.0f} s; waiting", self._name, SILENCE_SECONDS)
        self._is_silent = True

    def _replace(self) -> None:
        self._hanging = [pool for pool in self._hanging if pool.size]
        now = time.monotonic()
        if now >= self._replace_at:
            self._hanging.append(self._pool)
            self._replace_at = now + GIVE_UP_SECONDS * 2 ** min(len(self._hanging), _MOST_DOUBLINGS)
            self.close()
            self._pool = ThreadPool(1)
