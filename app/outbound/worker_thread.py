"""A thread for blocking calls, one at a time, beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool

T = TypeVar("T")


class WorkerThread:
    """Runs blocking calls one after another, always in the same thread."""

    def __init__(self) -> None:
        self._pool = ThreadPool(1)

    def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Return `work(*arguments)` without blocking the event loop. Raises its exceptions."""
        result, error = self._pool.apply(attempt, (work, arguments))
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """End the thread after its current call. Does not wait."""
        self._pool.maxsize = 0


def attempt(work: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, Exception | None]:
    """Return (result, None) or (None, error), because gevent prints a traceback of exceptions that leave a task."""
    try:
        return work(*arguments), None
    except Exception as error:
        return None, error
