"""Measures how long the event loop was blocked: a timer that should fire every 20 ms records how late it is."""

from __future__ import annotations

import time
from typing import Any, Final

from gevent.hub import get_hub

TICK_SECONDS: Final = 0.02
WINDOW_SECONDS: Final = 60


class LoopPauses:
    """The longest pause of the event loop in the last minute."""

    def __init__(self) -> None:
        self._timer: Any = get_hub().loop.timer(TICK_SECONDS, TICK_SECONDS)
        self._ticked_at = 0.0
        self._worst: dict[int, tuple[int, float]] = {}
        """Second modulo the window -> (second, longest pause in it)."""

    def start(self) -> None:
        self._ticked_at = time.monotonic()
        self._timer.start(self._tick)

    def stop(self) -> None:
        self._timer.stop()
        self._timer.close()

    def _tick(self) -> None:
        now = time.monotonic()
        late, self._ticked_at = now - self._ticked_at - TICK_SECONDS, now
        second = int(now)
        known_second, worst = self._worst.get(second % WINDOW_SECONDS, (second, 0.0))
        self._worst[second % WINDOW_SECONDS] = (second, max(late, worst if known_second == second else 0.0))

    def longest(self) -> float:
        """Return the longest pause of the last minute, in seconds."""
        oldest = int(time.monotonic()) - WINDOW_SECONDS
        return max((worst for second, worst in self._worst.values() if second > oldest), default=0.0)
