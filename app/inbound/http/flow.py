"""Copies a message body from one stream to another, with back-pressure; never holds it whole.

A body of known length is copied, or spliced when much of it is left. A chunked body is checked by a scanner and passed
on as it came, without its chunks to a client of HTTP/1.0, or in new chunks if its own need not keep the rules. A body
without framing ends with the source's connection.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from app.inbound.event_loop import sleeper
from app.inbound.http.stream import Stream, buffer, window
from app.inbound.pipes import PIPE_BYTES, PipePool
from app.inbound.tcp.direction import CHUNK_BYTES, TURN_BYTES, SinkError, SourceError
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_framing import Framing

SPLICE_FROM_BYTES: Final = 256 * 1024
"""Shorter rests are copied: a pipe costs system calls too."""
_SPLICE_FLAGS: Final = os.SPLICE_F_MOVE | os.SPLICE_F_NONBLOCK


class Flow:
    """What is left of a body. `after` collects bytes that came after its end; the sink counts what was sent."""

    __slots__ = (
        "_is_rechunked",
        "_is_unwrapped",
        "_left",
        "_pipe",
        "_pipe_bytes",
        "_pipes",
        "_rest",
        "_scanner",
        "_wake",
        "after",
        "is_read",
        "sink",
        "source",
        "taken",
    )

    def __init__(
        self,
        source: Stream,
        sink: Stream,
        framing: Framing,
        length: int,
        wake: Any,
        pipes: PipePool,
        *,
        is_unwrapped: bool = False,
        takes_padding: bool = False,
    ) -> None:
        """`length` in bytes counts with framing LENGTH; `is_unwrapped` takes the chunks off.

        `takes_padding` (app.wire.http1_chunks) sends chunks of its own, without trailers.
        """
        self.source = source
        self.sink = sink
        self._wake = wake
        self._pipes = pipes
        self._left = length if framing is Framing.LENGTH else 0
        self._scanner = ChunkScanner(takes_padding=takes_padding) if framing is Framing.CHUNKED else None
        self._is_unwrapped = is_unwrapped
        self._is_rechunked = takes_padding and not is_unwrapped
        self._rest: bytes | memoryview = b""
        """Read and not yet taken by the sink."""
        self._pipe: tuple[int, int] | None = None
        self._pipe_bytes = 0
        self.after = b""
        self.taken = 0
        """Bytes of the source that `take` has seen."""
        self.is_read = framing is Framing.NONE
        """All of it was read from the source."""

    @property
    def is_complete(self) -> bool:
        """All of it was read and sent."""
        return self.is_read and not self._rest and not self._pipe_bytes

    @property
    def is_blocked(self) -> bool:
        """The sink takes no more at the moment."""
        return bool(self._rest or self._pipe_bytes)

    def take(self, data: bytes | memoryview) -> bytes | memoryview:
        """Account for bytes of the source; return those to send. Raises BadMessage for a bad chunk."""
        self.taken += len(data)
        if self._scanner is not None:
            return self._take_chunks(self._scanner, data)
        if self._left:
            if len(data) > self._left:
                self.after = bytes(data[self._left :])
                data = data[: self._left]
            self._left -= len(data)
            self.is_read = self._left == 0
        elif self.is_read:
            self.after = bytes(data)
            return b""
        return data

    def _take_chunks(self, scanner: ChunkScanner, data: bytes | memoryview) -> bytes | memoryview:
        payload: list[bytes | memoryview] | None = [] if self._is_unwrapped or self._is_rechunked else None
        count = scanner.scan(data, payload)
        self.is_read = scanner.is_complete
        if count < len(data):
            self.after = bytes(data[count:])
        if payload is None:
            return data[:count]
        joined = b"".join(payload)
        if not self._is_rechunked:
            return joined
        last = b"0\r\n\r\n" if self.is_read else b""
        return b"%x\r\n%b\r\n%b" % (len(joined), joined, last) if joined else last

    def send(self, data: bytes | memoryview) -> None:
        """Send; keep what the sink does not take now and stop reading until it does. Raises SinkError."""
        sent = self.sink.send(data)
        if sent < len(data):
            self._rest = bytes(data[sent:])
            self.source.unwatch()
            self.sink.watch_writable(self._wake, self)

    def run(self, data: bytes, on_other: Callable[[object], None]) -> None:
        """Send `data` and the rest until all is sent; wake-ups by others than source and sink go to `on_other`.

        Both streams are watched. Raises SourceError, SinkError, BadMessage.
        """
        sleep = sleeper()
        self.send(data)
        while not self.is_complete:
            who = sleep()
            if who is self.source:
                self.step()
            elif who is self:
                self.flush()
            else:
                on_other(who)

    def step(self) -> None:
        """Move what can be moved now; the source can be read. Raises SourceError, SinkError, BadMessage."""
        if self._left >= SPLICE_FROM_BYTES or self._pipe is not None:
            if self._pipe is None:
                self._pipe = self._pipes.take()
            if self._pipe is not None:
                self._splice(self._pipe)
                return
        try:
            count = self.source.sock.recv_into(buffer, min(CHUNK_BYTES, self._left or CHUNK_BYTES))
        except BlockingIOError:
            return
        except OSError as error:
            raise SourceError(error) from None
        if count == 0:
            if self._left or self._scanner is not None:
                raise SourceError("closed within a body")
            self.is_read = True
            return
        data = self.take(window[:count])
        if len(data):
            self.send(data)

    def flush(self) -> None:
        """Go on sending; the sink can be written again. Raises SourceError, SinkError."""
        if self._pipe_bytes and self._pipe is not None:
            self._splice(self._pipe)
            return
        self._rest = self._rest[self.sink.send(self._rest) :]
        if not self._rest:
            self._go_on_reading()

    def _go_on_reading(self) -> None:
        self.sink.unwatch_writable()
        self.source.watch(self._wake)

    def _splice(self, pipe: tuple[int, int]) -> None:
        out_of_pipe, into_pipe = pipe
        source, sink = self.source.sock.fileno(), self.sink.sock.fileno()
        turn = 0
        while turn < TURN_BYTES and not self.is_complete:
            if self._pipe_bytes == 0:
                try:
                    count = os.splice(source, into_pipe, min(PIPE_BYTES, self._left), flags=_SPLICE_FLAGS)
                except BlockingIOError:
                    break
                except OSError as error:
                    raise SourceError(error) from None
                if count == 0:
                    raise SourceError("closed within a body")
                self._pipe_bytes = count
                self._left -= count
                self.is_read = self._left == 0
            try:
                moved = os.splice(out_of_pipe, sink, self._pipe_bytes, flags=_SPLICE_FLAGS)
            except BlockingIOError:
                break
            except OSError as error:
                raise SinkError(error) from None
            self._pipe_bytes -= moved
            self.sink.bytes_sent += moved
            turn += moved
        if self._pipe_bytes:
            self.source.unwatch()
            self.sink.watch_writable(self._wake, self)
        else:
            self._give_pipe_back()  # for other bodies, until there is more
            self._go_on_reading()

    def _give_pipe_back(self) -> None:
        if self._pipe is not None:
            self._pipes.give_back(self._pipe, is_empty=self._pipe_bytes == 0)
            self._pipe = None

    def close(self) -> None:
        """Give the pipe back and stop waiting for the sink."""
        self.sink.unwatch_writable()
        self._give_pipe_back()
