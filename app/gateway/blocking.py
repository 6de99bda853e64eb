"""Names the handler that holds the event loop: one that computes, or waits in a way gevent does not know.

A thread of the system's looks whether the loop's heart still beats. If not, the loop's frame says which handler runs,
since its module has a name of its own (app.gateway.handler_module). The loop itself logs it when it goes on: nothing
else may use the log; a handler that never ends is said on standard error, by the thread. Watching costs a request
nothing. A call into C that keeps the interpreter lock hides its handler, because the thread cannot run either.
"""

from __future__ import annotations

import os
import re
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple

from gevent import monkey
from gevent.hub import get_hub
from loguru import logger

BEAT_SECONDS: Final = 0.02
LOOK_SECONDS: Final = 0.05
BLOCKED_SECONDS: Final = 0.1
"""Without a beat, and the loop counts as held."""
DESPERATE_SECONDS: Final = 10.0
"""Without a beat, and it is said on standard error, because the loop may never come to it."""

_FILE: Final = re.compile(r"<handler (?P<endpoint>\S+) v(?P<version>\d+) #\d+>")


class _Seen(NamedTuple):
    """A handler found running while the loop stood still."""

    endpoint_id: str
    version: int
    beat_at: float
    stack: str


class BlockingWatch:
    """`on_blocked(endpoint_id, seconds)` is called in the loop, after it was held, for each time that it was."""

    def __init__(self, on_blocked: Callable[[str, float], None] = lambda _endpoint, _seconds: None) -> None:
        self._on_blocked = on_blocked
        self._beat_at = 0.0
        self._seen: deque[_Seen] = deque()
        self._is_stopping = False
        self._loop_thread = 0
        self._timer: Any = None

    def start(self) -> None:
        """Watch the loop of the calling thread."""
        self._loop_thread = monkey.get_original("_thread", "get_ident")()
        self._beat_at = time.monotonic()
        self._timer = get_hub().loop.timer(BEAT_SECONDS, BEAT_SECONDS)
        self._timer.start(self._beat)
        monkey.get_original("_thread", "start_new_thread")(self._watch, ())

    def stop(self) -> None:
        """End the thread at its next look."""
        self._is_stopping = True
        self._timer.stop()
        self._timer.close()

    def _beat(self) -> None:
        now = time.monotonic()
        self._beat_at = now
        while self._seen:
            endpoint_id, version, since, stack = self._seen.popleft()
            held = now - since
            logger.bind(endpoint=endpoint_id, version=version, seconds=round(held, 3)).warning(
                "endpoint {}: version {} held the event loop for {:.2f} s:\n{}", endpoint_id, version, held, stack
            )
            self._on_blocked(endpoint_id, held)

    def _watch(self) -> None:
        """The thread: once for each time that the loop is held, find out by whom."""
        sleep = monkey.get_original("time", "sleep")
        known = said = 0.0
        while not self._is_stopping:
            sleep(LOOK_SECONDS)
            beat_at = self._beat_at
            held = time.monotonic() - beat_at
            if held < BLOCKED_SECONDS:
                continue
            if known != beat_at:
                seen = _handler_in(sys._current_frames().get(self._loop_thread), beat_at)
                if seen is not None and beat_at == self._beat_at:
                    known = beat_at
                    self._seen.append(seen)
            elif held > DESPERATE_SECONDS and said != beat_at and self._seen:
                said = beat_at
                self._say_desperately(self._seen[-1], held)

    def _say_desperately(self, seen: _Seen, held: float) -> None:
        text = (
            f"edgeproxy: endpoint {seen.endpoint_id}: version {seen.version} has held the event loop for {held:.0f} s\n"
        )
        os.write(2, f"{text}{seen.stack}".encode())


def _handler_in(frame: FrameType | None, beat_at: float) -> _Seen | None:
    """Return the handler that a frame lies in, and the way from it to there."""
    outermost, innermost = None, frame
    while frame is not None:
        if frame.f_code.co_filename.startswith("<handler "):
            outermost = frame
        frame = frame.f_back
    found = _FILE.fullmatch(outermost.f_code.co_filename) if outermost is not None else None
    if outermost is None or found is None:
        return None
    return _Seen(found["endpoint"], int(found["version"]), beat_at, _stack(innermost, outermost))


def _stack(innermost: FrameType | None, outermost: FrameType) -> str:
    frames = []
    for frame, line in traceback.walk_stack(innermost):
        frames.append((frame, line))
        if frame is outermost:
            break
    return "".join(traceback.StackSummary.extract(reversed(frames)).format())
