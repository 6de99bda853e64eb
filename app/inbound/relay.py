"""Copies bytes between a client and a backend, both directions in the one greenlet of the connection.

How it is fast: the read watcher of each socket is started once and stays; its callback is the greenlet's own
`switch`, with the direction that can be read. So a message costs one wake-up, one recv and one send: no watcher start
and stop, no second greenlet, no recv that finds nothing. One buffer serves the whole process, because nothing switches
greenlets between a recv and its send. A short send is back-pressure: that direction stops reading and waits until its
sink can be written, the other flows on. A direction that keeps filling the buffer is bulk and is moved with splice(2)
through a pooled pipe until it quietens.

While the watchers are live the greenlet must wait for nothing else. Timers and kills reach it as an exception thrown
into it.
"""

from __future__ import annotations

import _socket
import fcntl
import os
import socket
import struct
import termios
from contextlib import suppress
from typing import Any, Final

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent

from app.domain.outcome import State
from app.inbound.dialer import set_keepalive

CHUNK_BYTES: Final = 64 * 1024
BULK_AFTER_CHUNKS: Final = 4
"""Full buffers in a row that make a direction bulk."""
QUIET_AFTER_TURNS: Final = 8
"""Turns in a row that moved less than a chunk by splice and make it an ordinary direction again."""
PIPE_BYTES: Final = 1 << 20
TURN_BYTES: Final = 1 << 20
"""Moved for one direction before the others get their turn."""

FLUSH_SECONDS: Final = 2.0
"""How long what was read before a reset may take to reach the other side."""
_FLUSH_POLL_SECONDS: Final = 0.005

_READ: Final = 1
_WRITE: Final = 2
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)

_TCP_CLOSE: Final = 7

_CLIENT_RESETS: Final = (State.CLIENT_RESET, State.CLIENT_RESET_HALF_CLOSED)

_buffer = bytearray(CHUNK_BYTES)
_window = memoryview(_buffer)


class PipePool:
    """Pipes for bulk directions, at most `limit` in all (they count as descriptors)."""

    def __init__(self, limit: int) -> None:
        self._idle: list[tuple[int, int]] = []
        self._left = limit

    def take(self) -> tuple[int, int] | None:
        """Return (read end, write end), or None when all are in use."""
        if self._idle:
            return self._idle.pop()
        if self._left <= 0:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # out of descriptors: copying works too
            return None
        self._left -= 1
        with suppress(OSError):  # beyond pipe-user-pages-soft an ordinary user gets small pipes
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return ends

    def give_back(self, ends: tuple[int, int], *, is_empty: bool) -> None:
        if is_empty:
            self._idle.append(ends)
        else:
            os.close(ends[0])
            os.close(ends[1])
            self._left += 1


class Direction:
    """One way through the connection: what `source` sends goes to `sink`."""

    __slots__ = (
        "bytes_moved",
        "full_chunks",
        "is_over",
        "pipe",
        "pipe_bytes",
        "quiet_turns",
        "readable",
        "rest",
        "sink",
        "source",
        "wake",
        "writable",
    )

    def __init__(self, source: _socket.socket, sink: _socket.socket, wake: Any) -> None:
        self.source = source
        self.sink = sink
        self.wake = wake
        self.readable = get_hub().loop.io(source.fileno(), _READ)
        self.writable: Any = None
        self.rest = b""
        """Read, but not taken by the sink yet."""
        self.full_chunks = 0
        self.quiet_turns = 0
        self.pipe: tuple[int, int] | None = None
        self.pipe_bytes = 0
        self.bytes_moved = 0
        self.is_over = False

    # Watching

    def start(self) -> None:
        self.readable.start(self.wake, self)

    def stop(self) -> None:
        """Watch no more."""
        self.readable.stop()
        if self.writable is not None:
            self.writable.stop()

    def _await_sink(self) -> None:
        """Back-pressure: read no more until the sink can be written."""
        self.readable.stop()
        if self.writable is None:
            self.writable = get_hub().loop.io(self.sink.fileno(), _WRITE)
        if not self.writable.active:
            self.writable.start(self.wake, self)

    def _await_source(self) -> None:
        if self.writable is not None and self.writable.active:
            self.writable.stop()
            self.readable.start(self.wake, self)

    def close(self, pipes: PipePool) -> None:
        self.readable.close()
        if self.writable is not None:
            self.writable.close()
        if self.pipe is not None:
            pipes.give_back(self.pipe, is_empty=self.pipe_bytes == 0)

    # Moving. Each returns whether the source may still send; errors name the socket that failed.

    def step(self, pipes: PipePool) -> bool:
        """Move what can be moved now."""
        if self.rest:
            self._send_rest()
            return True
        if self.pipe is not None:
            return self._splice(pipes)
        try:
            count = self.source.recv_into(_buffer)
        except BlockingIOError:
            return True
        except OSError as error:
            raise SourceError(error) from None
        if count == 0:
            return False
        try:
            sent = self.sink.send(_window[:count])
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise SinkError(error) from None
        self.bytes_moved += sent
        if sent < count:
            self.rest = bytes(_window[sent:count])
            self._await_sink()
        if count < CHUNK_BYTES:
            self.full_chunks = 0
        else:
            self.full_chunks += 1
            if self.full_chunks >= BULK_AFTER_CHUNKS:
                self.pipe = pipes.take()
        return True

    def send_first(self, data: bytes) -> None:
        """Send bytes that came by another way (a PROXY header) before any of the source's."""
        self.rest = data
        self._await_sink()

    def _send_rest(self) -> None:
        try:
            sent = self.sink.send(self.rest)
        except BlockingIOError:
            return
        except OSError as error:
            raise SinkError(error) from None
        self.bytes_moved += sent
        self.rest = self.rest[sent:]
        if not self.rest:
            self._await_source()

    def _splice(self, pipes: PipePool) -> bool:
        assert self.pipe is not None
        out_of_pipe, into_pipe = self.pipe
        source, sink = self.source.fileno(), self.sink.fileno()
        turn = 0
        while turn < TURN_BYTES:
            if self.pipe_bytes == 0:
                try:
                    self.pipe_bytes = os.splice(source, into_pipe, PIPE_BYTES, flags=_SPLICE_FLAGS)
                except BlockingIOError:
                    break
                except OSError as error:
                    raise SourceError(error) from None
                if self.pipe_bytes == 0:
                    return False
            try:
                moved = os.splice(out_of_pipe, sink, self.pipe_bytes, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                self._await_sink()
                return True
            except OSError as error:
                raise SinkError(error) from None
            self.pipe_bytes -= moved
            self.bytes_moved += moved
            turn += moved
            if self.pipe_bytes == 0:
                self._await_source()
        if self.pipe_bytes:  # the turn is over before the pipe is empty: go on when the others had theirs
            self._await_sink()
        else:
            self._leave_bulk_if_quiet(turn, pipes)
        return True

    def _leave_bulk_if_quiet(self, turn: int, pipes: PipePool) -> None:
        if turn >= CHUNK_BYTES:
            self.quiet_turns = 0
            return
        self.quiet_turns += 1
        if self.quiet_turns >= QUIET_AFTER_TURNS and self.pipe is not None and self.pipe_bytes == 0:
            pipes.give_back(self.pipe, is_empty=True)
            self.pipe, self.full_chunks, self.quiet_turns = None, 0, 0


class SourceError(Exception):
    """The socket that was read from failed."""


class SinkError(Exception):
    """The socket that was written to failed."""


class Relay:
    """A connection being copied: `up` is client to backend, `down` is backend to client."""

    __slots__ = ("_header_bytes", "_is_running", "_pipes", "down", "is_half_closed", "is_kept_alive", "up")

    def __init__(self, downstream: _socket.socket, upstream: _socket.socket, pipes: PipePool) -> None:
        wake = getcurrent().switch
        self._pipes = pipes
        self.up = Direction(downstream, upstream, wake)
        self.down = Direction(upstream, downstream, wake)
        self.is_half_closed = False
        self.is_kept_alive = False
        self._header_bytes = 0
        self._is_running = False

    def keep_alive(self) -> None:
        """Have the kernel probe the backend from now on; the client's socket has it from its listener."""
        if not self.is_kept_alive:
            self.is_kept_alive = True
            with suppress(OSError):
                set_keepalive(self.up.sink)

    def notice_reset(self) -> None:
        """Look whether a side that had ended was reset since: nobody watches it any more."""
        for direction in (self.up, self.down):
            if direction.is_over and self._is_running and _is_closed(direction.source):
                get_hub().loop.run_callback(self._step, direction)

    def _step(self, direction: Direction) -> None:
        if self._is_running:
            direction.wake(direction)

    @property
    def bytes_up(self) -> int:
        return max(0, self.up.bytes_moved - self._header_bytes)

    @property
    def bytes_down(self) -> int:
        return self.down.bytes_moved

    def run(self, header: bytes, first_bytes: bytes) -> State:
        """Copy until both directions have ended.

        The backend gets `header`, which is ours and not counted, then the client's `first_bytes`, then what follows.

        An EOF of one side becomes a FIN to the other, and the other direction lives on. A reset of one side resets
        the other, after what was read before has reached it. Raises what is thrown into the greenlet.
        """
        up, down, pipes = self.up, self.down, self._pipes
        sleep = get_hub().switch
        ended_by: State | None = None
        self._is_running = True
        try:
            up.start()
            down.start()
            if header or first_bytes:
                self._header_bytes = len(header)
                up.send_first(header + first_bytes)
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
                    # The sink may have sent an answer before it failed: only its receiving side is over, read on.
                    ended_by = ended_by or self._reset_by(down if direction is up else up)
                    self._end(direction, passes_fin=False)
        finally:
            self._is_running = False
            up.close(pipes)
            down.close(pipes)
        if ended_by is not None:
            victim = up if ended_by in _CLIENT_RESETS else down
            if flush(victim.sink, victim.rest):
                reset_on_close(victim.sink)
        return ended_by or State.NORMAL

    def _end(self, direction: Direction, *, passes_fin: bool) -> None:
        """A direction is over: its source has sent all it had, or its sink takes no more."""
        direction.stop()
        direction.is_over = self.is_half_closed = True
        if passes_fin and not (self.up.is_over and self.down.is_over):  # else close sends it
            with suppress(OSError):  # the sink is gone; the other direction finds out
                direction.sink.shutdown(socket.SHUT_WR)

    def _reset_by(self, direction: Direction) -> State:
        """Name the reset of a direction's source."""
        if direction is self.up:
            return State.CLIENT_RESET_HALF_CLOSED if self.is_half_closed else State.CLIENT_RESET
        return State.SERVER_RESET_HALF_CLOSED if self.is_half_closed else State.SERVER_RESET


def reset_on_close(sock: _socket.socket) -> None:
    """Make close send RST. Throws away what the kernel has queued for sending: `flush` first."""
    with suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


def flush(sock: _socket.socket, rest: bytes) -> bool:
    """Wait until `rest` and all that the kernel has queued were acknowledged; False when FLUSH_SECONDS did not do."""
    deadline = get_hub().loop.now() + FLUSH_SECONDS
    try:
        while rest or _unacknowledged(sock):
            if rest:
                with suppress(BlockingIOError):
                    rest = rest[sock.send(rest) :]
            if get_hub().loop.now() > deadline:
                return False
            gevent.sleep(_FLUSH_POLL_SECONDS)
    except OSError:
        return False
    return True


def _is_closed(sock: _socket.socket) -> bool:
    """Say whether the kernel has given the connection up: the state in the first byte of TCP_INFO (tcp(7))."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def _unacknowledged(sock: _socket.socket) -> int:
    """Return the bytes sent but not acknowledged (SIOCOUTQ, tcp(7))."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))[0])
