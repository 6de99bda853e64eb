"""Ends the handler that holds the event loop: one that computes, or waits in a call that gevent does not patch.

A native thread checks a heartbeat of the loop. If it stops, the stack of the loop's thread shows which handler runs,
since each handler's module has its own file name (app.gateway.handler_module). Beyond its time limit the thread raises
Overrun in the handler, again each second. A version that needs this twice is condemned at once, so that the requests
already granted to it do not hold the loop in their turn; the loop then takes it out of service. If nothing helps, it
ends the process, which honcho's or systemd's restart brings back: an edge that hangs serves nobody. The loop logs what
happened once it runs again, because the thread must not use the log. A request pays nothing for this. A C call that
keeps the GIL hides its handler, because the thread cannot run either; one that only waits is not interrupted, and ends
the process.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, NamedTuple

from gevent import monkey
from gevent.hub import get_hub
from loguru import logger

from app.gateway.workers import Overrun, Workers

BEAT_SECONDS: Final = 0.02
CHECK_SECONDS: Final = 0.05
BLOCKED_SECONDS: Final = 0.1
"""Time without a heartbeat after which the loop counts as blocked."""
LONGEST_SECONDS: Final = 5.0
"""The longest that a handler may hold the loop, also where its own time limit is longer; and the limit of an import."""
MOST_OVERRUNS: Final = 2
"""Times that a version may hold the loop for longer than its limit, before it is condemned."""
AGAIN_SECONDS: Final = 1.0
"""Between two attempts to end a handler."""
LAST_RESORT_SECONDS: Final = 10.0
"""After the time limit: then the process ends."""
EXIT_BLOCKED: Final = 70
"""Exit code of a process that was ended so (EX_SOFTWARE of sysexits.h)."""

_FILE: Final = re.compile(r"<handler (?P<endpoint>\S+) v(?P<version>\d+) #\d+>")


class _Blocked(NamedTuple):
    """A handler that was running while the loop was blocked."""

    endpoint_id: str
    version: int
    beat_at: float
    frame: FrameType
    """The outermost one of the handler's module: the call, which the thread tells apart by it."""
    stack: str

    @property
    def is_import(self) -> bool:
        return self.frame.f_code.co_name == "<module>"


class BlockingWatch:
    """Watches for blocking handlers; knows their limits from `workers`, and condemns versions there.

    In the loop, after each block, `on_blocked(endpoint_id)` is called; `on_condemned(endpoint_id, version)` also, if
    the version is to be taken out of service. `forgive` it then.
    """

    def __init__(
        self,
        on_blocked: Callable[[str], None],
        on_condemned: Callable[[str, int], None],
        workers: Workers,
    ) -> None:
        self._on_blocked = on_blocked
        self._on_condemned = on_condemned
        self._workers = workers
        self._beat_at = 0.0
        self._found: deque[tuple[str, int, float, str]] = deque()
        self._overruns: Counter[tuple[str, int]] = Counter()
        self._condemned: deque[tuple[str, int]] = deque()
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

    def forgive(self, endpoint_id: str, version: int) -> None:
        """Forget what a version did, because it may be deployed again."""
        self._overruns.pop((endpoint_id, version), None)
        self._workers.condemned.discard((endpoint_id, version))

    def _beat(self) -> None:
        now = time.monotonic()
        self._beat_at = now
        while self._found:
            endpoint_id, version, since, stack = self._found.popleft()
            seconds = now - since
            logger.bind(endpoint=endpoint_id, version=version, seconds=round(seconds, 3)).warning(
                "endpoint {}: version {} blocked the event loop for {:.2f} s:\n{}", endpoint_id, version, seconds, stack
            )
            self._on_blocked(endpoint_id)
        while self._condemned:
            self._on_condemned(*self._condemned.popleft())

    def _watch(self) -> None:
        """Run in the thread: each time the loop is blocked, find the handler, and end it beyond its limit."""
        sleep = monkey.get_original("time", "sleep")
        found_at = ended_at = held_since = 0.0
        held: FrameType | None = None
        while not self._is_stopping:
            sleep(CHECK_SECONDS)
            beat_at, now = self._beat_at, time.monotonic()
            found = self._handler_now(beat_at) if now - beat_at >= BLOCKED_SECONDS else None
            if found is None:
                held = None
                continue
            if held is not found.frame:  # many short calls may share a turn of the loop; none pays for the others
                held, held_since = found.frame, now
            if found_at != beat_at:
                found_at = beat_at
                self._found.append((found.endpoint_id, found.version, beat_at, found.stack))
            over = now - held_since - self._limit_of(found)
            if over >= LAST_RESORT_SECONDS:
                self._end_process(found, now - held_since)
            is_first = ended_at < held_since
            if over >= 0 and (is_first or now - ended_at >= AGAIN_SECONDS):
                if is_first and not found.is_import:
                    self._count_overrun((found.endpoint_id, found.version))
                ended_at = now
                self._end_handler(found)

    def _limit_of(self, found: _Blocked) -> float:
        if found.is_import:
            return LONGEST_SECONDS
        if (found.endpoint_id, found.version) in self._workers.condemned:  # its calls that had started
            return 0.0
        return min(self._workers.limits.get(found.endpoint_id, LONGEST_SECONDS), LONGEST_SECONDS)

    def _count_overrun(self, version: tuple[str, int]) -> None:
        """Condemn a version from its second overrun on, before the loop can start its next call."""
        self._overruns[version] += 1
        if self._overruns[version] >= MOST_OVERRUNS and version not in self._workers.condemned:
            self._workers.condemned.add(version)
            self._condemned.append(version)

    def _handler_now(self, beat_at: float) -> _Blocked | None:
        """Return the handler that holds the loop since this heartbeat, if it still does."""
        found = _handler_in(sys._current_frames().get(self._loop_thread), beat_at)
        return found if beat_at == self._beat_at else None

    def _end_handler(self, found: _Blocked) -> None:
        """Raise Overrun in the handler at its next bytecode. It must hit nothing else: look once more right before."""
        running = self._handler_now(found.beat_at)
        if running is None or running.frame is not found.frame:
            return
        raise_in_thread, thread = ctypes.pythonapi.PyThreadState_SetAsyncExc, ctypes.c_ulong(self._loop_thread)
        raise_in_thread(thread, ctypes.py_object(Overrun))
        monkey.get_original("time", "sleep")(0.001)
        if found.beat_at != self._beat_at:  # the handler has ended by itself
            raise_in_thread(thread, None)

    def _end_process(self, found: _Blocked, seconds: float) -> None:
        handler = f"endpoint {found.endpoint_id}: version {found.version}"
        said = f"edgeproxy: {handler} has held the event loop for {seconds:.0f} s and does not end; exiting"
        os.write(2, f"{said}\n{found.stack}".encode())
        os._exit(EXIT_BLOCKED)


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
    return _Blocked(match["endpoint"], int(match["version"]), beat_at, outermost, _stack(innermost, outermost))


def _stack(innermost: FrameType | None, outermost: FrameType) -> str:
    frames = []
    for frame, line in traceback.walk_stack(innermost):
        frames.append((frame, line))
        if frame is outermost:
            break
    return "".join(traceback.StackSummary.extract(reversed(frames)).format())
