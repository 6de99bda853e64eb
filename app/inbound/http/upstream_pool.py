"""Idle connections to backends, kept for the next request. Who takes one owns it, and its watcher, at once.

A connection comes here only after a response that was read whole. While it is idle it is watched: anything that the
backend sends then, an end above all, closes it. The one used last is taken first, so that the rest may expire.
"""

from __future__ import annotations

from app.domain.model import Backend
from app.inbound.http.stream import UpstreamStream


class UpstreamPool:
    """At most `capacity` idle connections, to all backends together."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._idle: dict[tuple[str, int], list[UpstreamStream]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def take(self, backend: Backend) -> UpstreamStream | None:
        """Return an idle connection to a backend, or None. It may have ended by now: look before sending."""
        idle = self._idle.get((backend.host, backend.port))
        if not idle:
            return None
        self._size -= 1
        stream = idle.pop()
        stream.bytes_sent, stream.is_idle = 0, False
        return stream

    def give(self, stream: UpstreamStream, expires_at: float, most: int) -> None:
        """Keep a connection until a monotonic time, or close it when `most` to its server are idle."""
        idle = self._idle.setdefault(stream.server, [])
        if self._size >= self._capacity or len(idle) >= most:
            stream.close()
            return
        stream.is_reused = stream.is_idle = True
        stream.expires_at = expires_at
        stream.watch(self._ended)
        idle.append(stream)
        self._size += 1

    def _ended(self, stream: UpstreamStream) -> None:
        """Close an idle connection that has ended, or on which something came that was not asked for."""
        if not stream.is_idle:  # taken, and not watched by its owner yet: what came wakes nobody any more
            stream.unwatch()
            return
        self._idle[stream.server].remove(stream)
        self._size -= 1
        stream.close()

    def sweep(self, now: float) -> None:
        """Close what has been idle for too long."""
        for server, idle in list(self._idle.items()):
            kept = []
            for stream in idle:
                if stream.expires_at > now:
                    kept.append(stream)
                else:
                    stream.close()
            self._size -= len(idle) - len(kept)
            self._idle[server] = kept
            if not kept:
                del self._idle[server]

    def close(self) -> None:
        for idle in self._idle.values():
            for stream in idle:
                stream.close()
        self._idle.clear()
        self._size = 0
