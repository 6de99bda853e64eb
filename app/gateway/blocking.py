"""Finds the handler that blocks the event loop: one that computes, or waits in a call that gevent does not patch.

A native thread checks a heartbeat of the loop. If it stops, the stack of the loop's thread shows which handler runs,
since each handler's module has its own file name (app.gateway.handler_module). The loop logs it once it runs again,
because the thread must not use the log; if the loop stays blocked, the thread writes to standard error. A request
pays nothing for this. A C call that keeps the GIL hides its handler, because the thread cannot run either.
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
CHECK_SECONDS: Final = 0.05
BLOCKED_SECONDS: Final = 0.1
"""Time without a heartbeat after which the loop counts as blocked."""
STDERR_SECONDS: Final = 10.0
"""Time without a heartbeat after which the thread writes to standard error: the loop may never log it."""

_FILE: Final = re.compile(r"<handler (?P<endpoint>\S+) v(?P<version>\d+) #\d+>")


class _Blocked(NamedTuple):
    """A handler that was running while the loop was blocked."""

    endpoint_id: str
    version: int
    beat_at: float
    stack: str


class BlockingWatch:
    """Watches for blocking handlers. `on_blocked(endpoint_id, seconds)` is called in the loop after each block."""

    def __init__(self, on_blocked: Callable[[str, float], None] = lambda _endpoint, _seconds: None) -> None:
        self._on_blocked = on_blocked
        self._beat_at = 0.0
        self._found: deque[_Blocked] = deque()
        self._is_stopping = False
        self._loop_thread = 0
        self._timer: Any = None

    def start(self) -> None:
        """Watch the event loop of the calling thread."""
        self._loop_thread = monkey.get_original("_thread", "get_ident")()
        self._beat_at = time.monotonic()
        self._timer = get_hub().loop.timer(BEAT_SECONDS, BEAT_SECONDS)
        self._timer.start(self._beat)
        monkey.get_original("_thread", "start_new_thread")(self._watch, ())

    def stop(self) -> None:
        """Stop; the thread ends at its next check."""
        self._is_stopping = True
        self._timer.stop()
        self._timer.close()

    def _beat(self) -> None:
        now = time.monotonic()
        self._beat_at = now
        while self._found:
            endpoint_id, version, since, stack = self._found.popleft()
            seconds = now - since
            logger.bind(endpoint=endpoint_id, version=version, seconds=round(seconds, 3)).warning(
                "endpoint {}: version {} blocked the event loop for {:.2f} s:\n{}", endpoint_id, version, seconds, stack
            )
            self._on_blocked(endpoint_id, seconds)

    def _watch(self) -> None:
        """Run in the thread: for each time the loop is blocked, find the handler once."""
        sleep = monkey.get_original("time", "sleep")
        found_at = written_at = 0.0
        while not self._is_stopping:
            sleep(CHECK_SECONDS)
            beat_at = self._beat_at
            seconds = time.monotonic() - beat_at
            if seconds < BLOCKED_SECONDS:
                continue
            if found_at != beat_at:
                found = _handler_in(sys._current_frames().get(self._loop_thread), beat_at)
                if found is not None and beat_at == self._beat_at:
                    found_at = beat_at
                    self._found.append(found)
            elif seconds > STDERR_SECONDS and written_at != beat_at and self._found:
                written_at = beat_at
                self._write_to_stderr(self._found[-1], seconds)

    def _write_to_stderr(self, found: _Blocked, seconds: float) -> None:
        handler = f"endpoint {found.endpoint_id}: version {found.version}"
        os.write(2, f"edgeproxy: {handler} has blocked the event loop for {seconds:.0f} s\n{found.stack}".encode())


def _handler_in(frame: FrameType | None, beat_at: float) -> _Blocked | None:
    """Return the handler in a frame's stack, with the stack from its module to the frame; None if there is none."""
    outermost, innermost = None, frame
    while frame is not None:
        if frame.f_code.co_filename.startswith("<handler "):
            outermost = frame
        frame = frame.f_back
    match = _FILE.fullmatch(outermost.f_code.co_filename) if outermost is not None else None
    if outermost is None or match is None:
        return None
    return _Blocked(match["endpoint"], int(match["version"]), beat_at, _stack(innermost, outermost))


def _stack(innermost: FrameType | None, outermost: FrameType) -> str:
    frames = []
    for frame, line in traceback.walk_stack(innermost):
        frames.append((frame, line))
        if frame is outermost:
            break
    return "".join(traceback.StackSummary.extract(reversed(frames)).format())
