"""Runs the code of handlers in greenlets of their own, so that the edge can leave that code behind.

Who waits for the code may be ended meanwhile (a time limit, a connection that is over). The code is then abandoned: it
gets an exception that `except Exception` does not catch, and whatever it makes of that, nobody waits for its result. A
greenlet serves one request after the other: to run code in it costs two switches and no turn of the loop, where a new
one costs 40 microseconds. It serves requests of one version only, because code may leave a timer or a kill behind that
hits its greenlet later, and context variables.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from functools import partial
from itertools import dropwhile
from typing import Any, Final, TypeVar

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent, greenlet
from loguru import logger

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


class TookTooLong(BaseException):
    """The code took longer than the time it was given, and was abandoned."""


class CodeRaised(Exception):
    """The code raised `error`, which may be any exception and must not be taken for one of the edge's own."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(type(error).__name__)
        self.error = error


class Worker:
    """A greenlet for the code of one request at a time."""

    __slots__ = ("_caller", "_greenlet", "_on_stuck", "_outcome", "ended_by", "is_abandoned")

    def __init__(self, on_stuck: Callable[[], None]) -> None:
        """`on_stuck` is called if its code is abandoned and goes on."""
        self._greenlet = greenlet(self._work, parent=get_hub())
        self._caller: Any = None
        self._outcome: tuple[BaseException | None, Any] = None, None
        self.is_abandoned = False
        """Its code was left behind: it takes no other."""
        self._on_stuck = on_stuck
        self.ended_by: BaseException | None = None
        """What hit the greenlet between two calls: it takes no other."""

    def run_within(self, seconds: float, function: Callable[..., T], *arguments: object) -> T:
        """Run a function for so long at most. Raises what `run` does, and TookTooLong."""
        # Of gevent.Timeout, only the timer with its priority, after what else is due: 3 microseconds instead of 10.
        timer = get_hub().loop.timer(seconds, priority=-1)
        timer.start(getcurrent().throw, TookTooLong())
        try:
            return self.run(function, *arguments)
        finally:
            timer.close()

    def run(self, function: Callable[..., T], *arguments: object) -> T:
        """Run a function in this greenlet. Raises CodeRaised if it raises anything.

        What is thrown into the caller meanwhile is raised as it is, and abandons the function.
        """
        if self.ended_by is not None:
            raise CodeRaised(self.ended_by)
        self._caller = getcurrent()
        try:
            self._greenlet.switch((function, arguments))
        except BaseException:
            self._abandon()
            raise
        (error, result), self._outcome = self._outcome, (None, None)
        if error is not None:
            raise CodeRaised(error)
        return result  # type: ignore[no-any-return]

    def stack(self, filename: str = "") -> str:
        """Return where its code is, for a log; from the first frame of a file on, if there is one."""
        if self._greenlet.gr_frame is None:
            return ""
        frames = traceback.extract_stack(self._greenlet.gr_frame)
        own = list(dropwhile(lambda frame: frame.filename != filename, frames))
        return "".join(traceback.format_list(own or frames))

    def end(self) -> None:
        """End the greenlet, which is a reference cycle until then, unless its code was abandoned."""
        if not self.is_abandoned and self._greenlet:
            self._greenlet.parent = getcurrent()
            self._greenlet.switch(None)

    def _work(self, task: tuple[Callable[..., Any], tuple[object, ...]] | None) -> None:
        while task is not None:
            function, arguments = task
            try:
                self._outcome = None, function(*arguments)
            except BaseException as error:
                self._outcome = error, None
            if self.is_abandoned:
                self._outcome = None, None
                return
            del function, arguments, task  # they must not live until the next request
            try:
                task = self._caller.switch()
            except BaseException as error:  # by what its code left behind, or by the garbage collector
                self.ended_by = error
                return

    def _abandon(self) -> None:
        self.is_abandoned = True
        get_hub().loop.run_callback(self._end)  # from the loop: whoever throws waits until the code waits again
        gevent.spawn_later(_GRACE_SECONDS, self._report)

    def _end(self) -> None:
        if not self._greenlet.dead:
            self._greenlet.throw(Abandoned())

    def _report(self) -> None:
        if not self._greenlet.dead:
            self._on_stuck()


class Workers:
    """The idle greenlets, by endpoint id and version."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, int], list[Worker]] = {}
        self._count = 0
        self.limits: dict[str, float] = {}
        """Time limits of handlers in seconds, by endpoint."""
        self.condemned: set[tuple[str, int]] = set()
        """Versions of which no call may start: they hold the event loop (app.gateway.blocking)."""

    def take(self, version: tuple[str, int], limit_seconds: float) -> Worker:
        """Return a worker for a request to a version."""
        self.limits[version[0]] = limit_seconds
        idle = self._idle.get(version)
        while idle:
            worker = idle.pop()
            self._count -= 1
            if worker.ended_by is None:
                return worker
        return Worker(partial(_log_stuck, *version))

    def give_back(self, version: tuple[str, int], worker: Worker) -> None:
        """Keep a worker for the next request to its version, unless its code was abandoned."""
        if worker.is_abandoned:
            return
        if self._count >= _IDLE_WORKERS:  # drop those of the version that came first: it may be out of service by now
            self._count -= len(self._idle.pop(next(iter(self._idle))))
        self._idle.setdefault(version, []).append(worker)
        self._count += 1


def _log_stuck(endpoint_id: str, number: int) -> None:
    logger.bind(endpoint=endpoint_id, version=number).error(
        "endpoint {}: version {} was abandoned and does not end", endpoint_id, number
    )
