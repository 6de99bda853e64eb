"""Greenlets that serve one connection after another: a new greenlet costs an mmap, a munmap and a page fault."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent, greenlet

IDLE_KEPT: Final = 256
"""Kept for the next connections, 6 KiB each."""


class ReusedGreenlets:
    """Runs `serve(*arguments)` in a greenlet of its own for each call of `run`."""

    def __init__(self, serve: Callable[..., None]) -> None:
        self._serve = serve
        self._idle: list[greenlet] = []

    def run(self, *arguments: Any) -> None:
        """Begin at the loop's next turn. Called by the event loop: does not wait."""
        if self._idle:
            get_hub().loop.run_callback(self._idle.pop().switch, arguments)
        else:
            gevent.spawn_raw(self._serve_one_after_another, arguments)

    def _serve_one_after_another(self, arguments: tuple[Any, ...]) -> None:
        hub, me = get_hub(), getcurrent()
        while True:
            self._serve(*arguments)
            if len(self._idle) >= IDLE_KEPT:
                return
            self._idle.append(me)
            arguments = hub.switch()
