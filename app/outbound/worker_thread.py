"""A thread for work that blocks, one task at a time, while the event loop goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from gevent.threadpool import ThreadPool

T = TypeVar("T")


class WorkerThread:
    """Runs blocking calls one after the other, always in the same thread."""

    def __init__(self) -> None:
        self._pool = ThreadPool(1)

    def run(self, work: Callable[..., T], *arguments: object) -> T:
        """Wait for `work(*arguments)` without holding the event loop. Raises what it raises."""
        result, error = self._pool.apply(_attempt, (work, arguments))
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def close(self) -> None:
        """Let the thread end after what it is at. Waits for nothing."""
        self._pool.maxsize = 0


def _attempt(work: Callable[..., Any], arguments: tuple[object, ...]) -> tuple[Any, Exception | None]:
    """Return (result, None) or (None, error): gevent prints a traceback of whatever leaves a task."""
    try:
        return work(*arguments), None
    except Exception as error:
        return None, error
