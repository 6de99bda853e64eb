"""One direction of a connection: moves bytes from its source to its sink, and watches the socket it waits for.

Why it is fast: the source's read watcher stays started, and its callback is the greenlet's own `switch` with the
readable direction as argument. A message costs one wake-up, one recv and one send: no watcher is started or stopped,
and no recv finds the socket empty. One buffer serves the whole process, because greenlets never switch between a recv
and its send. After a short send (back-pressure) the direction stops reading until its sink is writable. A direction
that keeps filling the buffer is bulk: splice(2) moves its bytes through a pooled pipe until it becomes quiet.
"""

from __future__ import annotations

import _socket
import os
from contextlib import suppress
from typing import Any, Final

from app.inbound.event_loop import READ, WRITE, watcher
from app.inbound.pipes import PIPE_BYTES, PipePool

CHUNK_BYTES: Final = 64 * 1024
BULK_AFTER_CHUNKS: Final = 4
"""Consecutive full buffers after which a direction is bulk."""
QUIET_AFTER_TURNS: Final = 8
"""Consecutive turns that spliced less than a chunk, after which a direction is no longer bulk."""
TURN_BYTES: Final = 1 << 20
"""Spliced for one direction before yielding to others."""

_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK

_buffer = bytearray(CHUNK_BYTES)
_window = memoryview(_buffer)


class SourceError(Exception):
    """Reading from the source failed."""


class SinkError(Exception):
    """Writing to the sink failed."""


class Direction:
    """Moves what `source` sends to `sink`. `wake` is the greenlet's switch."""

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
        self.readable = watcher(source.fileno(), READ)
        self.writable: Any = None
        self.rest = b""
        """Read from the source, not yet accepted by the sink."""
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
        """Stop watching both sockets."""
        self.readable.stop()
        if self.writable is not None:
            self.writable.stop()

    def _await_sink(self) -> None:
        """Stop reading until the sink is writable (back-pressure)."""
        self.readable.stop()
        if self.writable is None:
            self.writable = watcher(self.sink.fileno(), WRITE)
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

    # Moving bytes. `step` and `_splice` return False at the end of the source; the error class names the failed socket.

    def step(self, pipes: PipePool) -> bool:
        """Move the bytes that can be moved now. Raises SourceError, SinkError."""
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
        """Send `data` (such as a PROXY header) before any bytes of the source."""
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

    def move_read(self) -> bool:
        """Move on what was read and not sent; say whether there is still some. Raises OSError.

        For a direction that is stopped.
        """
        with suppress(BlockingIOError):
            if self.rest:
                sent = self.sink.send(self.rest)
                self.rest = self.rest[sent:]
            elif self.pipe is not None and self.pipe_bytes:
                sent = os.splice(self.pipe[0], self.sink.fileno(), self.pipe_bytes, flags=_SPLICE_FLAGS)
                self.pipe_bytes -= sent
            else:
                return False
            self.bytes_moved += sent
        return True

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
        if self.pipe_bytes:  # the turn ended before the pipe was empty: continue after the others
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
