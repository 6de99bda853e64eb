"""The clients of a small HTTP server: bounded in number, and when full, the one idle longest makes room."""

from __future__ import annotations

from typing import Any

import gevent
from gevent.pool import Pool


class ClientPool(Pool):  # type: ignore[misc]
    """The greenlets of a server's clients, for gevent's `spawn=`.

    A client is idle until its request has come, the TLS handshake included. Idle clients must not keep others out: when
    the pool is full, the one idle longest is ended. A client whose request is served is never ended.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self._idle: dict[gevent.Greenlet[..., Any], None] = {}

    def full(self) -> bool:
        """Return whether no client can be accepted now. The server asks when one has come."""
        if not super().full():
            return False
        idlest = next(iter(self._idle), None)
        if idlest is not None:
            del self._idle[idlest]
            idlest.kill(block=False)  # its place is free once it has ended, which starts accepting again
        return True

    def add(self, greenlet: Any, blocking: bool = True, timeout: float | None = None) -> Any:
        self._idle[greenlet] = None
        return super().add(greenlet, blocking, timeout)

    def _discard(self, greenlet: Any) -> None:
        self._idle.pop(greenlet, None)
        super()._discard(greenlet)

    def begin_waiting(self) -> None:
        """Note that the current client is idle from now on."""
        me = gevent.getcurrent()
        self._idle.pop(me, None)
        self._idle[me] = None

    def end_waiting(self) -> None:
        """Note that the request of the current client has come."""
        self._idle.pop(gevent.getcurrent(), None)
