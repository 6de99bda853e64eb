"""Hot reload: reads the configuration again on SIGHUP or when its file has changed, and hands on what is valid."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gevent.event import Event
from gevent.lock import BoundedSemaphore
from loguru import logger

from app.config import Config, ConfigError
from app.inbound.listener import BindError
from app.outbound.worker_thread import WorkerThread

TICK_SECONDS: Final = 0.5
"""Between looks at the file. A change must stand for one tick: editors write, truncate and rename for a moment."""

_Signature = tuple[int, int, int, int] | None


class Reloader:
    """`apply(config)` may raise BindError and changes nothing then; `on_result` gets "ok" or "refused"."""

    def __init__(
        self, path: Path, load: Callable[[], Config], apply: Callable[[Config], None], on_result: Callable[[str], None]
    ) -> None:
        self._path = path
        self._load = load
        self._apply = apply
        self._on_result = on_result
        self._thread = WorkerThread()  # a thousand servers take a second to parse
        self._turn = BoundedSemaphore(1)
        self._loaded = self._seen = self._signature()
        self._stopped = Event()
        self.is_current = True
        """The file as it was read last is what serves."""
        self.faults: list[str] = []
        """Why it does not, when it does not."""

    def _signature(self) -> _Signature:
        """Return what tells one state of the file from another, through symbolic links; None when there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def stop(self) -> None:
        """Change nothing any more: the edge is on its way out."""
        self._stopped.set()

    def look(self) -> None:
        """Reload if the file has changed and stands still."""
        before, self._seen = self._seen, self._thread.run(self._signature)
        if self._seen == before != self._loaded:
            self.reload()

    def reload(self) -> None:
        """Read the file, and hand it on if it is valid."""
        with self._turn:
            if self._stopped.is_set():
                logger.warning("configuration not read again: the edge is draining")
                return
            self._loaded = self._signature()
            try:
                config = self._thread.run(self._load)
                if self._stopped.is_set():  # meanwhile
                    return
                self._apply(config)
            except (ConfigError, BindError) as error:
                faults = error.faults if isinstance(error, ConfigError) else [str(error)]
                logger.bind(faults=faults).error("configuration refused, the old one serves on: {}", "; ".join(faults))
                self._refused(faults)
            except Exception as error:
                logger.exception("reading the configuration again failed, the old one serves on")
                self._refused([f"internal error: {type(error).__name__}; the log has its traceback"])
            else:
                self.is_current, self.faults = True, []
                self._on_result("ok")

    def _refused(self, faults: list[str]) -> None:
        self.is_current, self.faults = False, faults
        self._on_result("refused")
