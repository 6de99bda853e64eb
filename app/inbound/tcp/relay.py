"""Copies bytes between a client and a backend, both directions in the connection's one greenlet.

The greenlet sleeps until the event loop switches to it with the direction that is ready (app.inbound.tcp.direction).
While the watchers are started it must not wait for anything else. Timeouts and kills are exceptions thrown into it.
"""

from __future__ import annotations

import _socket
import fcntl
import socket
import struct
import termios
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import gevent
from greenlet import getcurrent

from app.domain.outcome import State
from app.inbound.dialer import set_keepalive
from app.inbound.event_loop import call_soon, sleeper
from app.inbound.pipes import PipePool
from app.inbound.tcp.direction import Direction, SinkError, SourceError

_FIRST_POLL_SECONDS: Final = 0.005
_LONGEST_POLL_SECONDS: Final = 0.1
"""Between two looks at what the other side of a reset has acknowledged."""

_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_TCP_CLOSE: Final = 7

_CLIENT_RESETS: Final = (State.CLIENT_RESET, State.CLIENT_RESET_HALF_CLOSED)


class Relay:
    """The two directions of a connection: `up` is client to backend, `down` is backend to client."""

    __slots__ = (
        "_header_bytes",
        "_is_running",
        "_on_backend_gone",
        "_pipes",
        "down",
        "is_half_closed",
        "is_kept_alive",
        "up",
    )

    awaits_client = False

    def __init__(
        self,
        downstream: _socket.socket,
        upstream: _socket.socket,
        pipes: PipePool,
        on_backend_gone: Callable[[], object],
    ) -> None:
        """`on_backend_gone` is called when the backend has reset, before what it sent is delivered."""
        wake = getcurrent().switch
        self._pipes = pipes
        self._on_backend_gone = on_backend_gone
        self.up = Direction(downstream, upstream, wake)
        self.down = Direction(upstream, downstream, wake)
        self.is_half_closed = False
        self.is_kept_alive = False
        self._header_bytes = 0
        self._is_running = False

    def keep_alive(self) -> None:
        """Turn on TCP keepalive to the backend; the client's socket inherits it from the listener."""
        if not self.is_kept_alive:
            self.is_kept_alive = True
            with suppress(OSError):
                set_keepalive(self.up.sink)

    def notice_reset(self) -> None:
        """Check whether a side that has already sent EOF was reset since; its watcher is stopped."""
        for direction in (self.up, self.down):
            if direction.is_over and self._is_running and is_reset(direction.source):
                call_soon(self._step, direction)

    def unacknowledged(self) -> int:
        """Return the bytes sent to either side and not acknowledged."""
        return unacknowledged(self.up.sink, self.down.sink)

    def _step(self, direction: Direction) -> None:
        if self._is_running:
            direction.wake(direction)

    @property
    def bytes_up(self) -> int:
        return max(0, self.up.bytes_moved - self._header_bytes)

    @property
    def bytes_down(self) -> int:
        return self.down.bytes_moved

    def run(self, header: bytes, first_bytes: bytes, first_down: bytes = b"") -> State:
        """Copy until both directions have ended.

        The backend first gets `header`, which is not counted as the client's bytes, and the client's `first_bytes`;
        the client first gets `first_down`, bytes of the backend.

        An EOF from one side becomes a FIN to the other, and the other direction continues. A reset from one side
        resets the other, after the bytes read before it have been delivered. Raises what is thrown into the greenlet.
        """
        try:
            ended_by = self._copy(header, first_bytes, first_down)
            if ended_by is not None:
                victim = self.up if ended_by in _CLIENT_RESETS else self.down
                if victim is self.down:
                    self._on_backend_gone()
                self.is_half_closed = True  # so the sweep ends what follows, if the victim stops taking
                deliver(victim)
                reset_on_close(victim.sink)
        finally:
            self.up.close(self._pipes)
            self.down.close(self._pipes)
        return ended_by or State.NORMAL

    def _copy(self, header: bytes, first_bytes: bytes, first_down: bytes) -> State | None:
        """Copy until both directions have ended, or one is reset: the state for that, None for a clean end."""
        up, down, pipes = self.up, self.down, self._pipes
        sleep = sleeper()
        ended_by: State | None = None
        self._is_running = True
        try:
            up.start()
            down.start()
            if header or first_bytes:
                self._header_bytes = len(header)
                up.send_first(header + first_bytes)
            if first_down:
                down.send_first(first_down)
            while not (up.is_over and down.is_over):
                direction = sleep()
                try:
                    if direction.step(pipes):
                        continue
                    if direction.is_over:  # woken by notice_reset
                        ended_by = ended_by or self._reset_by(direction)
                        break
                    self._end(direction, passes_fin=ended_by is None)
                except SourceError:
                    ended_by = ended_by or self._reset_by(direction)
                    break
                except SinkError:
                    # The sink may have sent a response before it failed: end this direction, read on from the sink.
                    ended_by = ended_by or self._reset_by(down if direction is up else up)
                    self._end(direction, passes_fin=False)
        finally:
            self._is_running = False
            up.stop()
            down.stop()
        return ended_by

    def _end(self, direction: Direction, *, passes_fin: bool) -> None:
        """End a direction: its source has sent EOF, or its sink has failed."""
        direction.stop()
        direction.is_over = self.is_half_closed = True
        if passes_fin and not (self.up.is_over and self.down.is_over):  # otherwise close() sends the FIN
            with suppress(OSError):  # the sink is gone; the other direction will notice
                direction.sink.shutdown(socket.SHUT_WR)

    def _reset_by(self, direction: Direction) -> State:
        """Return the state for a reset by the direction's source."""
        if direction is self.up:
            return State.CLIENT_RESET_HALF_CLOSED if self.is_half_closed else State.CLIENT_RESET
        return State.SERVER_RESET_HALF_CLOSED if self.is_half_closed else State.SERVER_RESET


def reset_on_close(sock: _socket.socket) -> None:
    """Make close() send RST, which discards the kernel's send queue: call `deliver` first."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def deliver(direction: Direction) -> None:
    """Wait until the sink of a stopped direction has acknowledged all that was read for it, or is gone."""
    pause = _FIRST_POLL_SECONDS
    with suppress(OSError):
        # The kernel goes on counting what the sink has not acknowledged after it was reset.
        while (direction.move_read() or _queued(direction.sink)) and not is_reset(direction.sink):
            gevent.sleep(pause)
            pause = min(2 * pause, _LONGEST_POLL_SECONDS)


def is_reset(sock: _socket.socket) -> bool:
    """Return whether the peer has reset a connection: its state, the first byte of TCP_INFO (tcp(7)), is closed."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def unacknowledged(*socks: _socket.socket) -> int:
    """Return the bytes sent and not acknowledged on all sockets together; a closed one has none."""
    total = 0
    for sock in socks:
        with suppress(OSError, ValueError):
            total += _queued(sock)
    return total


def _queued(sock: _socket.socket) -> int:
    """Return the bytes sent but not acknowledged (SIOCOUTQ, tcp(7)). Raises OSError."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
