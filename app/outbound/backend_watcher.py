"""Polls a BackendRepository in one thread and reports every new set of backends."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import gevent
from gevent.lock import BoundedSemaphore
from loguru import logger

from app.domain.words import counted
from app.outbound.watched_thread import SILENCE_SECONDS, WatchedThread
from app.ports import BackendRepository, BackendSet, RepositoryError

TICK_SECONDS: Final = 0.25
"""Between two checks of the repository; a change is seen within twice this."""
STOP_SECONDS: Final = 1.0
ROWS_LOGGED: Final = 100
"""Refused rows, and rows with a warning, logged per change. Logging thousands would block the event loop."""


@dataclass(frozen=True, slots=True)
class RoutingStatus:
    """Freshness of the backends. `loaded_at` is the Unix time of the last successful load, None before the first."""

    loaded_at: float | None
    error: str | None
    """Why the repository cannot be read at present; the last good set stays in use."""
    rows_refused: int


class BackendWatcher:
    """Polls a repository off the event loop. `on_change` gets each new set, `on_load` gets "ok" or "error" per load.

    A repository that hangs is given up, and `open_repository` called for another.
    """

    def __init__(
        self,
        open_repository: Callable[[], BackendRepository],
        reload_seconds: float,
        on_change: Callable[[BackendSet], None],
        on_load: Callable[[str], None],
    ) -> None:
        self._open_repository = open_repository
        self._repository = open_repository()
        self._reload_seconds = reload_seconds
        self._on_change = on_change
        self._on_load = on_load
        self._thread = WatchedThread("routing database")  # the repository's connection lives in it
        self._turn = BoundedSemaphore(1)
        self._reload_at = 0.0
        self._greenlet: gevent.Greenlet[..., object] | None = None
        self.current = BackendSet()
        """The last good load; the same object as long as nothing has changed."""
        self._status = RoutingStatus(None, None, 0)
        self._checked_at = time.monotonic()

    @property
    def status(self) -> RoutingStatus:
        silence = time.monotonic() - self._checked_at
        if self._greenlet is None or silence < SILENCE_SECONDS:
            return self._status
        return replace(self._status, error=f"no response for {silence:.0f} s")

    def start(self) -> None:
        """Load once, then poll in the background. Does nothing if already started."""
        if self._greenlet is not None:
            return
        self.check()
        self._greenlet = gevent.spawn(self._follow)

    def stop(self) -> None:
        if self._greenlet is not None:
            self._greenlet.kill()
            self._greenlet = None
        with gevent.Timeout(STOP_SECONDS, False):  # the thread may hang on a disk
            self._thread.run(self._repository.close)

    def _follow(self) -> None:
        while True:
            gevent.sleep(TICK_SECONDS)
            try:
                self.check()
            except Exception:
                logger.exception("checking the routing database failed; will retry")
                self._on_load("error")

    def check(self) -> None:
        """Load if the repository has changed, if it could not be read last time, or if a full reload is due."""
        with self._turn:  # writers check as well: sets must be applied in the order of loading
            self._checked_at = time.monotonic()
            try:
                found = self._thread.run(self._load_if_due, self._repository)
            except (RepositoryError, TimeoutError) as error:
                if isinstance(error, TimeoutError):
                    self._repository = self._open_repository()  # the thread that hangs still uses the old one
                self._failed(str(error))
                return
            if found is not None:
                self._on_load("ok")
                self._loaded(found)

    def _load_if_due(self, repository: BackendRepository) -> BackendSet | None:
        """Runs in the thread."""
        is_due = time.monotonic() >= self._reload_at or self._status.error is not None
        if not repository.has_changed() and not is_due:
            return None
        found = repository.load()
        self._reload_at = time.monotonic() + self._reload_seconds
        return found

    def _failed(self, message: str) -> None:
        if message != self._status.error:  # once per change of the cause
            kept = counted(len(self.current.backends), "backend")
            logger.error("routing database: {}; keeping the last {}", message, kept)
            self._on_load("error")
        self._status = RoutingStatus(self._status.loaded_at, message, self._status.rows_refused)

    def _loaded(self, found: BackendSet) -> None:
        if self._status.error is not None:
            logger.info("routing database: readable again")
        is_first = self._status.loaded_at is None
        self._status = RoutingStatus(time.time(), None, len(found.refused))
        if found == self.current and not is_first:
            return
        before, self.current = self.current, found
        self._report(before, found)
        self._on_change(found)

    @staticmethod
    def _report(before: BackendSet, found: BackendSet) -> None:
        known, known_warnings = set(before.refused), set(before.warnings)
        fresh = [bad for bad in found.refused if bad not in known]
        for bad in fresh[:ROWS_LOGGED]:
            logger.bind(backend=bad.backend_id, columns=[f.column for f in bad.faults]).error("row refused: {}", bad)
        if len(fresh) > ROWS_LOGGED:
            more = counted(len(fresh) - ROWS_LOGGED, "more row")
            logger.error("{} refused; `backends list` shows all of them", more)
        for warning in [w for w in found.warnings if w not in known_warnings][:ROWS_LOGGED]:
            logger.warning("{}", warning)
        if not found.backends and before.backends:
            logger.warning("the routing database has no backends left: new connections are refused")
        backends, refused = counted(len(found.backends), "backend"), counted(len(found.refused), "row")
        logger.info("routing: {}, {} refused", backends, refused)
