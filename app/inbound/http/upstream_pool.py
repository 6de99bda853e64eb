"""Idle connections to backends, kept for the next request. The exchange that takes one owns it alone.

A connection comes here only after a response that was read whole. While it is idle it is watched: anything that the
backend sends then, an end above all, closes it. The one used last is taken first, so that the rest may expire.
"""

from __future__ import annotations

from typing import Final

from app.domain.model import Backend
from app.inbound.http.stream import UpstreamStream

IDLE_SECONDS: Final = 30.0
IDLE_A_SERVER: Final = 256


class UpstreamPool:
    """At most `capacity` idle connections, to all backends together."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._idle: dict[tuple[str, int], list[UpstreamStream]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def take(self, backend: Backend) -> UpstreamStream | None:
        """Return an idle connection to a backend, or None. Its watcher is still live: `watch` it at once."""
        idle = self._idle.get((backend.host, backend.port))
        while idle:
            self._size -= 1
            stream = idle.pop()
            if not stream.has_news:
                stream.bytes_sent = 0
                return stream
            stream.close()  # what came must not be taken for the response to the next request
        return None

    def give(self, stream: UpstreamStream, now: float) -> None:
        """Keep a connection for the next request, or close it when there are enough."""
        idle = self._idle.setdefault(stream.server, [])
        if self._size >= self._capacity or len(idle) >= IDLE_A_SERVER:
            stream.close()
            return
        stream.is_reused = True
        stream.idle_since = now
        stream.watch(self._ended)
        idle.append(stream)
        self._size += 1

    def _ended(self, stream: UpstreamStream) -> None:
        """Close an idle connection that has ended, or on which something came that was not asked for."""
        self._idle[stream.server].remove(stream)
        self._size -= 1
        stream.close()

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        for server, idle in list(self._idle.items()):
            expired = 0
            while expired < len(idle) and now - idle[expired].idle_since >= IDLE_SECONDS:
                idle[expired].close()
                expired += 1
            del idle[:expired]
            self._size -= expired
            if not idle:
                del self._idle[server]

    def close(self) -> None:
        for idle in self._idle.values():
            for stream in idle:
                stream.close()
        self._idle.clear()
        self._size = 0
