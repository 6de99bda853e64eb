"""Hot reload: reads the configuration file again, on SIGHUP or when it has changed, and applies it if it is valid."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from gevent.event import Event
from gevent.lock import BoundedSemaphore
from loguru import logger

from app.config import Config, ConfigError
from app.inbound.listener import BindError
from app.outbound.watched_thread import WatchedThread

TICK_SECONDS: Final = 0.5
"""Between looks at the file. A change must stand for one tick: editors write, truncate and rename for a moment."""

_Signature = tuple[int, int, int, int] | None


@dataclass(slots=True)
class FileState:
    """Whether the configuration file, as it was read last, is in force; and the faults of a refused one."""

    is_current: bool = True
    faults: list[str] = field(default_factory=list)


class Draining(Exception):
    """The edge drains, so no other configuration is applied."""


class Reloader:
    """Reads the file at `path` by `load` and hands the configuration to `apply`, unless the edge is draining.

    `apply(config)` may raise BindError or Draining and changes nothing then; `on_result` gets "ok" or "refused". Each
    reload takes place within a context that `reloading()` returns.
    """

    def __init__(
        self,
        path: Path,
        load: Callable[[], Config],
        apply: Callable[[Config], None],
        on_result: Callable[[str], None],
        state: FileState,
        draining: Event,
        reloading: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._path = path
        self._load = load
        self._apply = apply
        self._on_result = on_result
        self.state = state
        self._draining = draining
        self._reloading = reloading
        self._thread = WatchedThread("configuration file")  # a thousand servers take a second to parse
        self._turn = BoundedSemaphore(1)
        self._loaded = self._seen = self._signature()

    def _signature(self) -> _Signature:
        """Return what tells one state of the file from another, through symbolic links; None when there is none."""
        try:
            found = os.stat(self._path)
        except OSError:
            return None
        return found.st_dev, found.st_ino, found.st_mtime_ns, found.st_size

    def check(self) -> None:
        """Reload if the file has changed and has stayed the same for one tick."""
        before, self._seen = self._seen, self._thread.run(self._signature)
        if self._seen == before != self._loaded:
            self.reload()

    def reload(self) -> None:
        """Read the file, and apply it if it is valid."""
        with self._turn, self._reloading():
            try:
                self._loaded = self._thread.run(self._signature)
                if self._draining.is_set():
                    raise Draining
                self._apply(self._thread.run(self._load))
            except Draining:
                logger.warning("configuration not read again: the edge is draining")
            except (ConfigError, BindError, TimeoutError) as error:
                faults = error.faults if isinstance(error, ConfigError) else [str(error)]
                logger.bind(faults=faults).error("configuration refused, the old one serves on: {}", "; ".join(faults))
                self._ended("refused", faults)
            except Exception as error:
                logger.exception("reading the configuration again failed, the old one serves on")
                self._ended("refused", [f"internal error: {type(error).__name__}; the log has its traceback"])
            else:
                self._ended("ok", [])

    def _ended(self, result: str, faults: list[str]) -> None:
        self.state.is_current, self.state.faults = not faults, faults
        self._on_result(result)
