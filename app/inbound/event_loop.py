"""The event loop (gevent's hub) as the byte path uses it: every trick with it is here, with its reason and its price.

Raw watchers instead of gevent sockets. A gevent socket starts and stops a watcher for each read that must wait, and
tries the system call first. Here a read watcher is started once, stays, and its callback is the `switch` of the one
greenlet that waits: a message costs one wake-up, one recv, one send. It brought 52,000 to 62,000 small requests a
second where two greenlets a connection on gevent sockets had 20,000 to 36,000. The price: while a watcher is live its
greenlet may be woken at any moment, so it must wait for nothing else (an ask, a dial, a sleep) before it stops the
watcher; gevent raises InvalidSwitchError otherwise.

Exceptions as wake-ups (`throw_soon`). A timer, a drain or an operator ends a connection by an exception thrown into
its greenlet at the next turn of the loop, from a callback: no flag is polled, no second greenlet waits. The price: by
then the greenlet may have ended and serve another connection, so the callback checks that it is still meant.

Waiting for a batch (`let_others_catch_up`). Requests that leave one right after the other wake a backend once. On
loopback that saves 4 of 50 microseconds a request; alone, a request pays one turn of the loop.

Greenlets that are reused (`ReusedGreenlets`). A new greenlet costs an mmap, a munmap and a page fault. The price: a
greenlet that leaves something pending in the loop when it parks would be woken into another connection's life.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import gevent
from gevent.hub import get_hub
from gevent.monkey import get_original
from greenlet import getcurrent, greenlet

_unpatched_poll: Any = get_original("select", "poll")
_POLLIN: Final = 1
READ: Final = 1
WRITE: Final = 2
IDLE_GREENLETS: Final = 256
"""Kept for the next connections, 6 KiB each."""


def watcher(descriptor: int, events: int) -> Any:
    """Return a watcher of a descriptor for READ or WRITE, not started."""
    return get_hub().loop.io(descriptor, events)


def timer(seconds: float, repeat_seconds: float = 0.0) -> Any:
    """Return a timer, not started. One without a repeat that has fired fires at once when it is started again."""
    return get_hub().loop.timer(seconds, repeat_seconds)


def wait_for(descriptor: int, events: int, timeout_seconds: float) -> bool:
    """Park the greenlet until a descriptor is ready; False when the time is over first."""
    wake, ready, late = getcurrent().switch, watcher(descriptor, events), timer(timeout_seconds)
    try:
        ready.start(wake, True)
        late.start(wake, False)
        return bool(get_hub().switch())
    finally:
        ready.close()
        late.close()


def readiness(descriptor: int) -> Callable[[int], list[tuple[int, int]]]:
    """Return a function that says, when called with 0, whether something can be read, an end too: empty if nothing.

    It asks the kernel and takes no turn of the loop, in 1.0 microseconds; a receive that finds nothing takes 1.7.
    """
    poller: Any = _unpatched_poll()
    poller.register(descriptor, _POLLIN)
    function: Callable[[int], list[tuple[int, int]]] = poller.poll
    return function


def sleeper() -> Callable[[], Any]:
    """Return what parks the current greenlet until a watcher wakes it; it returns the argument of the wake-up."""
    switch: Callable[[], Any] = get_hub().switch
    return switch


def call_soon(function: Callable[..., object], *arguments: object) -> None:
    """Call a function from the loop, at its next turn."""
    get_hub().loop.run_callback(function, *arguments)


def throw_soon(target: greenlet, error: BaseException, is_due: Callable[[], bool]) -> None:
    """Throw an error into a parked greenlet at the loop's next turn, if that is still due then."""

    def throw() -> None:
        if is_due():
            target.throw(error)

    get_hub().loop.run_callback(throw)


def let_others_catch_up(wake: Callable[..., object]) -> None:
    """Go on once the other greenlets that were woken in this turn have come as far; `wake` is the caller's switch."""
    callback = get_hub().loop.run_callback(wake)
    try:
        get_hub().switch()
    except BaseException:  # thrown in: the callback must not wake the greenlet again
        callback.stop()
        raise


class ReusedGreenlets:
    """Runs `serve(*arguments)` in a greenlet of its own for each call of `run`."""

    def __init__(self, serve: Callable[..., None]) -> None:
        self._serve = serve
        self._idle: list[greenlet] = []

    def run(self, *arguments: Any) -> None:
        """Start at the loop's next turn. Called by the event loop: does not wait."""
        if self._idle:
            get_hub().loop.run_callback(self._idle.pop().switch, arguments)
        else:
            gevent.spawn_raw(self._serve_one_after_another, arguments)

    def _serve_one_after_another(self, arguments: tuple[Any, ...]) -> None:
        hub, me = get_hub(), getcurrent()
        while True:
            self._serve(*arguments)
            if len(self._idle) >= IDLE_GREENLETS:
                return
            self._idle.append(me)
            arguments = hub.switch()
