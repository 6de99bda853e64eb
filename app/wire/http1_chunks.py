"""HTTP/1.1 chunked bodies: finds their end and their payload (RFC 9112 7.1).

httptools cannot be used: it does not report the byte at which a chunked body ends and the next message begins. The data
of a chunk is skipped by arithmetic; only the lines between chunks are parsed.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from app.wire.http1_faults import TOKEN, refused

_MAX_SIZE_LINE: Final = 256  # bytes with the CRLF and extensions, which no known peer uses
_MAX_TRAILERS: Final = 8192  # bytes with all CRLFs
_MAX_DIGITS: Final = 15  # 60 bits, which fit into the integers of every origin

_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# White space around ";" and "=" must be accepted (RFC 9112 7.1.1), none is allowed before the end of the line.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,%d})(?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*\r\n"
    % (_MAX_DIGITS, TOKEN.pattern, TOKEN.pattern, _QUOTED)
)
_PADDED_SIZE_LINE: Final = re.compile(_SIZE_LINE.pattern.removesuffix(rb"\r\n") + rb"[ \t]*\r\n")
_TRAILER_LINE: Final = re.compile(rb"(?:(%b):[\t -~\x80-\xff]*)?\r\n" % TOKEN.pattern)
_DATA_END: Final = re.compile(rb"\r\n")
# A fast path for the usual bytes between two chunks. It has the same effect as matching the lines one by one at a
# quarter of the cost, which matters for a peer that sends one byte per chunk.
_BETWEEN: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,%d})\r\n" % _MAX_DIGITS)
# RFC 9110 6.5.1: framing, routing, authentication and content format, plus fields that only proxies may set. A
# recipient that merged one of these into the head would read another message than we did.
_FORBIDDEN_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host connection keep-alive proxy-connection te trailer upgrade expect"
    b" max-forwards authorization proxy-authorization cookie set-cookie content-encoding content-type"
    b" content-range range forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-request-id".split()
)


class _Part(Enum):
    """The kind of the next line."""

    SIZE = auto()
    DATA_END = auto()
    TRAILER = auto()


_LINES: Final = {_Part.SIZE: _SIZE_LINE, _Part.DATA_END: _DATA_END, _Part.TRAILER: _TRAILER_LINE}
_PADDED_LINES: Final = _LINES | {_Part.SIZE: _PADDED_SIZE_LINE}
_FAULTS: Final = {_Part.SIZE: "bad_chunk_size", _Part.DATA_END: "bad_chunk_end", _Part.TRAILER: "bad_trailer"}
# An incomplete line is acceptable if one of these endings completes it. So no byte of a bad line is forwarded before
# the rest has arrived.
_ENDINGS: Final = (b"\r\n", b"\n", b"0\r\n", b";0\r\n", b'0"\r\n', b":\r\n")


class ChunkScanner:
    """Follows one chunked body through the pieces in which it arrives. Do not reuse a scanner that has raised.

    `takes_padding`: white space after a size is no fault (app.wire.http1_lenient).
    """

    __slots__ = ("_data_left", "_line", "_lines", "_part", "_trailer_bytes", "is_complete")

    def __init__(self, *, takes_padding: bool = False) -> None:
        self._lines = _PADDED_LINES if takes_padding else _LINES
        self.is_complete = False
        self._part = _Part.SIZE
        self._line = b""  # the beginning of an incomplete line
        self._data_left = 0  # bytes of the current chunk
        self._trailer_bytes = 0

    def scan(self, data: bytes | memoryview, payload: list[bytes | memoryview] | None = None) -> int:
        """Scan a piece; return how many of its bytes belong to the body: all of them, unless the body ends within.

        Slices with the data of the chunks are appended to `payload`. Raises BadMessage at a byte that no valid body can
        have there; the caller must then forward nothing of the piece.
        """
        at, end = 0, len(data)
        while at < end and not self.is_complete:
            if self._data_left:
                size = min(self._data_left, end - at)
                if payload is not None:
                    payload.append(data[at : at + size])
                self._data_left -= size
                at += size
            elif self._part is _Part.DATA_END and not self._line and (between := _BETWEEN.match(data, at)):
                self._begin_chunk(between[1])
                at = between.end()
            else:
                at += self._scan_line(data, at)
        return at

    def _scan_line(self, data: bytes | memoryview, start: int) -> int:
        """Scan a line, or the beginning of one; return how many bytes of the data belong to it."""
        limit = self._limit() - len(self._line)
        piece = bytes(data[start : start + limit])
        size = piece.find(b"\n") + 1
        line = self._line + (piece[:size] if size else piece)
        if not size:
            self._check_beginning(line, is_full=len(piece) == limit)
            self._line = line
            return len(piece)
        match = self._lines[self._part].fullmatch(line)
        if match is None:
            raise refused(self._fault(line))
        self._line = b""
        if self._part is _Part.DATA_END:
            self._part = _Part.SIZE
        elif self._part is _Part.SIZE:
            self._begin_chunk(match[1])
        else:
            self._take_trailer(match[1], len(line))
        return size

    def _begin_chunk(self, digits: bytes) -> None:
        self._data_left = int(digits, 16)
        self._part = _Part.DATA_END if self._data_left else _Part.TRAILER

    def _take_trailer(self, name: bytes | None, size: int) -> None:
        self._trailer_bytes += size
        if name is None:
            self.is_complete = True
        elif name.lower() in _FORBIDDEN_TRAILERS:
            raise refused("forbidden_trailer")

    def _limit(self) -> int:
        """Return the maximum length of the current line, in bytes with its CRLF."""
        if self._part is _Part.TRAILER:
            return _MAX_TRAILERS - self._trailer_bytes
        return _MAX_SIZE_LINE if self._part is _Part.SIZE else 2

    def _check_beginning(self, line: bytes, *, is_full: bool) -> None:
        """Check an incomplete line. `is_full`: it has its maximum length."""
        if not any(self._lines[self._part].fullmatch(line + ending) for ending in _ENDINGS):
            raise refused(self._fault(line))
        if is_full:
            raise refused("trailer_too_long" if self._part is _Part.TRAILER else "chunk_line_too_long")

    def _fault(self, line: bytes) -> str:
        if self._part is _Part.SIZE and re.match(rb"[0-9A-Fa-f]{%d}" % (_MAX_DIGITS + 1), line):
            return "chunk_size_too_large"
        return _FAULTS[self._part]
