"""What systemd is told about an edge: that it is ready, reads its configuration again, drains, and is alive.

The order of the states is that of sd_notify(3). `systemctl status` shows the status line.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from actors.messages import CountCandidates
from actors.runtime import ask
from app.domain.words import counted
from app.edge.parts import EdgeParts
from app.outbound.systemd_notify import Notifier
from app.proxy_service import ASK_TIMEOUT_SECONDS

TICK_SECONDS: Final = 1.0
_EXTENSION: Final = f"EXTEND_TIMEOUT_USEC={15 * 1_000_000}"
"""Sent at each tick of a drain: for 15 s from then on systemd waits, even past TimeoutStopSec. The drain time is what
the operator set, and it is bounded; an edge that hangs sends nothing."""


class ServiceNotice:
    """Tells systemd about one edge, by a notifier that does nothing where systemd did not start it."""

    def __init__(self, parts: EdgeParts, notifier: Notifier) -> None:
        self.is_heard: Final = notifier.is_heard
        self.watchdog_seconds: Final = notifier.watchdog_seconds
        self._parts = parts
        self._notifier = notifier
        self._told = ""
        """The status that systemd was told last."""

    def ready(self) -> None:
        """Say that clients are served. Raises what asking the registry raises."""
        if self.is_heard:
            self._notifier.send("READY=1", *self._news())

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """Say, for the block, that the configuration is read again. Says nothing to the end of a drain."""
        draining = self._parts.draining
        if not draining.is_set():
            self._notifier.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        yield
        if not draining.is_set():
            self._notifier.send("READY=1")

    def stopping(self) -> None:
        """Say that the drain begins."""
        self._notifier.send("STOPPING=1", _EXTENSION)

    def refresh(self) -> None:
        """Tell the status if it has changed; ask for more time while the edge drains. Raises what `ready` raises."""
        states = [_EXTENSION] if self._parts.draining.is_set() else []
        states += self._news()
        if states:
            self._notifier.send(*states)

    def keep_alive(self) -> None:
        """Say that the event loop turns. A longer silence than `watchdog_seconds` has systemd restart the edge."""
        self._notifier.send("WATCHDOG=1")

    def _news(self) -> list[str]:
        former, self._told = self._told, self._status()
        return [f"STATUS={self._told}"] if self._told != former else []

    def _status(self) -> str:
        parts = self._parts
        if parts.draining.is_set():
            return f"draining: {counted(parts.data_plane.open_count, 'connection')} open"
        pools = ask(parts.actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS).values()
        candidates = counted(sum(pool.candidates for pool in pools), "candidate backend")
        refused = "" if parts.file is None or parts.file.is_current else "; the configuration file was refused"
        return f"{counted(len(parts.config().frontends), 'frontend')}, {candidates}{refused}"
