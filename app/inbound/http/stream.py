"""One side of an HTTP connection: a socket and the watchers that wake whoever reads or writes it.

As in app.inbound.tcp.direction the read watcher stays and its callback is the waiting greenlet's own `switch`, with the
stream that can be read. While it is live the greenlet must wait for nothing else: whoever asks an actor or dials calls
`unwatch` first, which costs no system call as long as `watch` follows in the same turn of the loop.
"""

from __future__ import annotations

import _socket
from contextlib import suppress
from typing import Any, Final

from gevent.hub import get_hub

from app.inbound.tcp.direction import CHUNK_BYTES, SinkError, SourceError

_READ: Final = 1
_WRITE: Final = 2

buffer = bytearray(CHUNK_BYTES)
window = memoryview(buffer)
"""Shared by all: nothing switches greenlets between a receive and the use of what came."""


class Stream:
    """A non-blocking socket. `is_reused`: it has served a request before."""

    __slots__ = ("_readable", "_writable", "idle_since", "is_kept_alive", "is_reused", "server", "sock")

    def __init__(self, sock: _socket.socket, server: tuple[str, int] | None = None) -> None:
        self.sock = sock
        self.server = server
        """Host and port, of a connection to a backend."""
        self.is_reused = False
        self.is_kept_alive = False
        self.idle_since = 0.0
        self._readable: Any = get_hub().loop.io(sock.fileno(), _READ)
        self._writable: Any = None

    def watch(self, wake: Any) -> None:
        """Call `wake(self)` whenever there is something to read."""
        readable = self._readable
        if readable.active:  # another's: handing it over costs less than stopping and starting it
            readable.callback, readable.args = wake, (self,)
        else:
            readable.start(wake, self)

    def unwatch(self) -> None:
        self._readable.stop()

    @property
    def has_news(self) -> bool:
        """Something has come that nobody was woken for yet: the loop wakes one after the other."""
        return bool(self._readable.pending)

    def watch_writable(self, wake: Any, argument: object) -> None:
        """Call `wake(argument)` whenever something can be sent."""
        if self._writable is None:
            self._writable = get_hub().loop.io(self.sock.fileno(), _WRITE)
        if not self._writable.active:
            self._writable.start(wake, argument)

    def unwatch_writable(self) -> None:
        if self._writable is not None:
            self._writable.stop()

    def receive(self) -> bytes | None:
        """Return what has come, up to CHUNK_BYTES; empty at the end, None for a false alarm. Raises SourceError."""
        try:
            count = self.sock.recv_into(buffer)
        except BlockingIOError:
            return None
        except OSError as error:
            raise SourceError(error) from None
        return bytes(window[:count])

    def send(self, data: bytes | memoryview) -> int:
        """Return how many bytes were taken, 0 when none can be now. Raises SinkError."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise SinkError(error) from None

    def release(self) -> _socket.socket:
        """Give the socket away: nobody is woken any more."""
        if self._readable is not None:
            self._readable.close()
            self._readable = None
        if self._writable is not None:
            self._writable.close()
            self._writable = None
        return self.sock

    def close(self) -> None:
        self.release()
        with suppress(OSError):
            self.sock.close()
