"""Periodic work: each job runs in a greenlet of its own, which survives the job's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import gevent
from loguru import logger

_LONGEST_ERROR_PAUSE_SECONDS: Final = 30.0


class Job(NamedTuple):
    """Work to repeat, with a pause of `seconds()` between two runs; `name` is for the log and the error counter."""

    name: str
    seconds: Callable[[], float]
    work: Callable[[], object]


class Housekeeping:
    """Runs jobs until it is stopped. `on_error(name)` is called for every failure of a job."""

    def __init__(self, jobs: Iterable[Job], on_error: Callable[[str], None]) -> None:
        self._jobs = tuple(jobs)
        self._on_error = on_error
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def start(self) -> None:
        """Run each job for the first time after its pause."""
        self._greenlets = [gevent.spawn(self._repeat, job) for job in self._jobs]

    def stop(self) -> None:
        """End the jobs, also those under way."""
        gevent.killall(self._greenlets)

    def _repeat(self, job: Job) -> None:
        pause = job.seconds()
        while True:
            gevent.sleep(pause)
            try:
                job.work()
                pause = job.seconds()
            except Exception as error:
                if isinstance(error, TimeoutError):  # a disk or a server, no fault of the edge: no traceback
                    logger.error("{} failed: {}; going on", job.name, error)
                else:
                    logger.exception("{} failed; going on", job.name)
                self._on_error(job.name)
                pause = min(max(pause, 0.5) * 2, _LONGEST_ERROR_PAUSE_SECONDS)
