"""One side of an HTTP connection: a non-blocking socket with its watchers, and the client's side with what it has sent.

See app.inbound.event_loop for how a watcher wakes a greenlet, and what the greenlet must not do meanwhile. `unwatch`
costs no system call as long as `watch` follows in the same turn of the loop.
"""

from __future__ import annotations

import _socket
import socket
from contextlib import suppress
from typing import Any, Final

import gevent
from greenlet import getcurrent

from app.inbound.event_loop import READ, WRITE, readiness, sleeper, watcher
from app.inbound.tcp.direction import CHUNK_BYTES, SinkError, SourceError

buffer = bytearray(CHUNK_BYTES)
window = memoryview(buffer)
"""Shared by all streams: no greenlet switches between a receive and the use of what was received."""

_TURN_SECONDS: Final = 0.0005
"""A timer, because a callback alone would run in the same turn."""
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1 << 20
"""Read and dropped before the edge closes a connection whose client still sends: a close with unread bytes is a reset,
which may overtake the response (RFC 9112, section 9.6)."""


class Stream:
    """A non-blocking socket. `bytes_sent` counts what the kernel has taken."""

    __slots__ = ("_readable", "_writable", "bytes_sent", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock
        self.bytes_sent = 0
        self._readable: Any = watcher(sock.fileno(), READ)
        self._writable: Any = None

    def watch(self, wake: Any) -> None:
        """Call `wake(self)` whenever there is something to read."""
        readable = self._readable
        if readable.active:  # for another callback: replacing it costs less than stopping and starting
            readable.callback, readable.args = wake, (self,)
        else:
            readable.start(wake, self)

    def unwatch(self) -> None:
        """Wake no greenlet for reading any more."""
        self._readable.stop()

    def watch_writable(self, wake: Any, argument: object) -> None:
        """Call `wake(argument)` whenever something can be sent."""
        if self._writable is None:
            self._writable = watcher(self.sock.fileno(), WRITE)
        if not self._writable.active:
            self._writable.start(wake, argument)

    def unwatch_writable(self) -> None:
        """Wake no greenlet for writing any more."""
        if self._writable is not None:
            self._writable.stop()

    @property
    def is_blocked(self) -> bool:
        """The other side has to take something before more can be sent."""
        return self._writable is not None and bool(self._writable.active)

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
        """Return how many bytes the kernel took, 0 when it takes none now. Raises SinkError."""
        try:
            count = self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise SinkError(error) from None
        self.bytes_sent += count
        return count

    def release(self) -> _socket.socket:
        """Close the watchers and return the socket."""
        if self._readable is not None:
            self._readable.close()
            self._readable = None
        if self._writable is not None:
            self._writable.close()
            self._writable = None
        return self.sock

    def close(self) -> None:
        """Close the watchers and the socket."""
        self.release()
        with suppress(OSError):
            self.sock.close()


class UpstreamStream(Stream):
    """A connection to a backend. `is_reused`: it has served a request before."""

    __slots__ = ("_readiness", "expires_at", "is_idle", "is_kept_alive", "is_reused", "server")

    def __init__(self, sock: _socket.socket, server: tuple[str, int]) -> None:
        super().__init__(sock)
        self.server = server
        """Host and port."""
        self.is_reused = False
        self.is_idle = False
        """In the pool of idle connections."""
        self.is_kept_alive = False
        self.expires_at = 0.0
        """Monotonic seconds; for one that is idle."""
        self._readiness: Any = None

    def is_silent(self) -> bool:
        """Say whether nothing has come, no end either. Asks the kernel: the loop knows as of its last turn only."""
        if self._readiness is None:
            self._readiness = readiness(self.sock.fileno())
        return not self._readiness(0)


class ClientStream(Stream):
    """The client's connection, read and written by the greenlet that makes it."""

    __slots__ = ("buffered", "has_ended", "sleep", "wake")

    def __init__(self, sock: _socket.socket) -> None:
        super().__init__(sock)
        self.sleep = sleeper()
        """Parks the greenlet; returns what woke it."""
        self.wake: Any = getcurrent().switch
        """Wakes the greenlet with the argument."""
        self.buffered = b""
        """Received and not used yet."""
        self.has_ended = False
        """The client sends nothing more; it may still wait for a response."""

    def read(self) -> bytes:
        """Wait until the client sends something; empty at its end and after a reset."""
        self.watch(self.wake)
        try:
            while True:
                self.sleep()
                data = self.receive()
                if data is not None:
                    return data
        except SourceError:
            return b""

    def take_buffered(self) -> bytes:
        """Return what was received and not used yet, once."""
        data, self.buffered = self.buffered, b""
        return data

    def read_at_once(self) -> bytes:
        """Return what is there already, without waiting."""
        try:
            return self.receive() or b""
        except SourceError:
            return b""

    def notice_end(self) -> bool:
        """Look, without reading, whether the client sends or has ended; False for a false alarm. Raises SourceError."""
        try:
            if not self.sock.recv(1, socket.MSG_PEEK):
                self.has_ended = True
        except BlockingIOError:
            return False
        except OSError as error:
            raise SourceError(error) from None
        return True

    def send_all(self, data: bytes) -> None:
        """Send everything, and wait while the client does not read. Raises SinkError."""
        sent = self.send(data)
        if sent == len(data):  # nearly always
            return
        rest = memoryview(data)[sent:]
        try:
            while rest:
                self.watch_writable(self.wake, self)
                self.sleep()
                rest = rest[self.send(rest) :]
        finally:
            self.unwatch_writable()

    def let_others_run(self) -> None:
        """Let the loop turn: a client could pipeline requests for ever that need nothing of it."""
        self.unwatch()
        gevent.sleep(_TURN_SECONDS)

    def linger(self, *, is_request_read: bool) -> None:
        """Before a close: if the client still sends, end our side and drop what it sends, within bounds.

        `is_request_read`: no more of the request is expected. Raises what is thrown into the greenlet.
        """
        try:
            has_unread = bool(self.buffered or self.sock.recv(1, socket.MSG_PEEK))
        except OSError:  # mostly: there is nothing
            has_unread = False
        if is_request_read and not has_unread:
            return
        self.unwatch()
        left = _LINGER_BYTES
        with suppress(OSError), gevent.Timeout(_LINGER_SECONDS, False):
            self.sock.shutdown(socket.SHUT_WR)
            while left > 0 and (data := self.read()):
                left -= len(data)
