"""Runs the code of handlers in greenlets of their own, so that the edge can leave that code behind.

Who waits for the code may be ended meanwhile (a time limit, a connection that is over). The code is then abandoned: it
gets an exception that `except Exception` does not catch, and whatever it makes of that, nobody waits for its result. A
greenlet serves one request after the other. To run code in it costs two switches, and no turn of the loop.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any, Final, TypeVar

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

T = TypeVar("T")
_IDLE_WORKERS: Final = 256
_GRACE_SECONDS: Final = 1.0
"""For abandoned code to end, before it is reported."""


class Abandoned(BaseException):
    """Nobody waits for this code any more."""


class Overrun(BaseException):
    """The code has held the event loop for longer than its time limit (app.gateway.blocking)."""

    def __str__(self) -> str:
        return "it neither waited nor returned within its time limit"


class Worker:
    """A greenlet for the code of one request at a time."""

    __slots__ = ("_caller", "_greenlet", "_is_abandoned", "_on_stuck")

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        self._greenlet = greenlet(self._work, parent=get_hub())
        self._caller: Any = None
        self._is_abandoned = False
        self._on_stuck = on_stuck

    @property
    def is_abandoned(self) -> bool:
        """Its code was left behind: it takes no other."""
        return self._is_abandoned

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in this greenlet. Raises what it raises, a StopIteration too.

        What is thrown into the caller meanwhile is raised as well, and abandons the function.
        """
        self._caller = getcurrent()
        try:
            error, result = self._greenlet.switch((function, arguments))
        except BaseException:
            self._abandon()
            raise
        if error is not None:
            raise error
        return result  # type: ignore[no-any-return]

    def stack(self) -> str:
        """Return where its code is, for a log."""
        frame = self._greenlet.gr_frame
        return "".join(traceback.format_stack(frame)) if frame is not None else ""

    def _work(self, task: tuple[Callable[..., Any], tuple[object, ...]]) -> None:
        while True:
            function, arguments = task
            outcome: tuple[BaseException | None, Any]
            try:
                outcome = None, function(*arguments)
            except BaseException as error:
                outcome = error, None
            if self._is_abandoned:
                return
            del function, arguments, task  # they must not live until the next request
            task = self._caller.switch(outcome)
            del outcome

    def _abandon(self) -> None:
        self._is_abandoned = True
        get_hub().loop.run_callback(self._end)  # from the loop: whoever throws waits until the code waits again
        gevent.spawn_later(_GRACE_SECONDS, self._report)

    def _end(self) -> None:
        if not self._greenlet.dead:
            self._greenlet.throw(Abandoned())

    def _report(self) -> None:
        if not self._greenlet.dead:
            self._on_stuck()


class Workers:
    """The idle greenlets. `limits` are the time limits of handlers in seconds, by endpoint id."""

    def __init__(self) -> None:
        self._idle: list[Worker] = []
        self.limits: dict[str, float] = {}

    def take(self, endpoint_id: str, limit_seconds: float, on_stuck: Callable[[], None]) -> Worker:
        """Return a worker for a request of an endpoint; `on_stuck` is called if its code is abandoned and goes on."""
        self.limits[endpoint_id] = limit_seconds
        if not self._idle:
            return Worker(on_stuck)
        worker = self._idle.pop()
        worker._on_stuck = on_stuck
        return worker

    def give_back(self, worker: Worker) -> None:
        """Keep a worker for the next request, unless its code was abandoned."""
        if not worker.is_abandoned and len(self._idle) < _IDLE_WORKERS:
            self._idle.append(worker)
