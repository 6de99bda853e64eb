"""HTTP/1.1 chunked bodies: where they end, and what they carry (RFC 9112 7.1).

This is not left to httptools: it cannot say at which byte of the data a chunked body ends, and what follows is the
next message. The data of a chunk is passed over by arithmetic; only the lines between are looked at.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from app.wire.http1_faults import TOKEN, refused

_LONGEST_SIZE_LINE: Final = 256  # bytes with the CRLF: extensions, which nobody is known to use, included
_LONGEST_TRAILERS: Final = 8192  # bytes with all CRLFs
_MOST_DIGITS: Final = 15  # 60 bits, which every origin's integers hold

_QUOTED: Final = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
# No white space around ";" and "=" (RFC 9112 7.1.1 has a recipient take it): implementations differ in what they
# make of it, and requests were smuggled by that.
_SIZE_LINE: Final = re.compile(
    rb"([0-9A-Fa-f]{1,%d})(?:;%b(?:=(?:%b|%b))?)*\r\n" % (_MOST_DIGITS, TOKEN.pattern, TOKEN.pattern, _QUOTED)
)
_TRAILER_LINE: Final = re.compile(rb"(?:(%b):[\t -~\x80-\xff]*)?\r\n" % TOKEN.pattern)
_DATA_END: Final = re.compile(rb"\r\n")
# What nearly always stands between two chunks, in one look. It does nothing that the lines one by one do not, and
# costs a quarter: a peer that sends a byte a chunk has less of us.
_BETWEEN: Final = re.compile(rb"\r\n([0-9A-Fa-f]{1,%d})\r\n" % _MOST_DIGITS)
# RFC 9110 6.5.1: framing, routing, authentication, and what says how the content is to be read. Whoever merged one of
# these into the head would have another message than we saw; that goes for what only proxies may say, too.
_FORBIDDEN_TRAILERS: Final = frozenset(
    b"content-length transfer-encoding host connection keep-alive proxy-connection te trailer upgrade expect"
    b" max-forwards authorization proxy-authorization cookie set-cookie content-encoding content-type"
    b" content-range range forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-request-id".split()
)


class _Part(Enum):
    """Which line comes next."""

    SIZE = auto()
    DATA_END = auto()
    TRAILER = auto()


_LINES: Final = {_Part.SIZE: _SIZE_LINE, _Part.DATA_END: _DATA_END, _Part.TRAILER: _TRAILER_LINE}
_FAULTS: Final = {_Part.SIZE: "bad_chunk_size", _Part.DATA_END: "bad_chunk_end", _Part.TRAILER: "bad_trailer"}
# A line that is not whole yet is good if one of these makes it whole: so that no byte of a bad one is let through
# before the rest has come.
_ENDINGS: Final = (b"\r\n", b"\n", b"0\r\n", b'0"\r\n', b":\r\n")


class ChunkScanner:
    """Follow one chunked body through the pieces that it arrives in. A scanner that raised is not used again."""

    __slots__ = ("_data_left", "_line", "_part", "_trailer_bytes", "is_complete")

    def __init__(self) -> None:
        self.is_complete = False
        self._part = _Part.SIZE
        self._line = b""  # the beginning of a line whose end has not come
        self._data_left = 0  # bytes of the current chunk
        self._trailer_bytes = 0

    def scan(self, data: bytes | memoryview, payload: list[bytes | memoryview] | None = None) -> int:
        """Take a piece; return how many of its bytes belong to the body: all of them, unless it ends within.

        Slices of the data that the chunks carry are appended to `payload`. Raises BadMessage for a byte that no good
        body can have there; nothing of the piece is to be forwarded then.
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
        """Take a line, or the beginning of one; return how many bytes of the data it has."""
        limit = self._limit() - len(self._line)
        piece = bytes(data[start : start + limit])
        size = piece.find(b"\n") + 1
        line = self._line + (piece[:size] if size else piece)
        if not size:
            self._check_beginning(line, is_full=len(piece) == limit)
            self._line = line
            return len(piece)
        match = _LINES[self._part].fullmatch(line)
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
        """Return how long the current line may become, in bytes with its CRLF."""
        if self._part is _Part.TRAILER:
            return _LONGEST_TRAILERS - self._trailer_bytes
        return _LONGEST_SIZE_LINE if self._part is _Part.SIZE else 2

    def _check_beginning(self, line: bytes, *, is_full: bool) -> None:
        """Check a line whose LF has not come, although it may be as long as it is allowed to be."""
        if not any(_LINES[self._part].fullmatch(line + ending) for ending in _ENDINGS):
            raise refused(self._fault(line))
        if is_full:
            raise refused("trailer_too_long" if self._part is _Part.TRAILER else "chunk_line_too_long")

    def _fault(self, line: bytes) -> str:
        if self._part is _Part.SIZE and re.match(rb"[0-9A-Fa-f]{%d}" % (_MOST_DIGITS + 1), line):
            return "chunk_size_too_large"
        return _FAULTS[self._part]
