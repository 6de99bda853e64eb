"""Responses that break a rule of HTTP/1.1 without harm, made to keep it. A pool says which it takes (`lenient`).

What a client gets keeps the rules: it never sees the form that the backend sent.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

REPEATED_CONTENT_LENGTH: Final = "repeated_content_length"
"""Content-Length more than once, or as a list, always with the same digits (RFC 9110, section 8.6)."""
FOLDED_HEADERS: Final = "folded_headers"
"""A header goes on in a line that begins with white space (RFC 9112, section 5.2)."""
LEADING_EMPTY_LINES: Final = "leading_empty_lines"
"""Empty lines before the status line. RFC 9112, section 2.2 allows them before requests only."""
ANY_STATUS: Final = "any_status"
"""A status of 600 to 999 (RFC 9110, section 15: clients take it for 5xx)."""
PADDED_CHUNK_SIZES: Final = "padded_chunk_sizes"
"""White space after the size of a chunk. The client gets chunks of the edge's own, without trailers."""

_FOLD: Final = re.compile(rb"[ \t]*\r\n[ \t]+")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+(?:\r\Z)?|\r\Z")
_LENGTH_LINE: Final = re.compile(rb"(?i)(?<=\r\n)Content-Length:([0-9, \t]*)\r\n")


def without_empty_lines(received: bytes) -> bytes:
    """Return what was received without the empty lines that it begins with, the last of which may have only begun."""
    lines = _EMPTY_LINES.match(received)
    return received[lines.end() :] if lines is not None else received


def repaired(head: bytes, lenient: Collection[str]) -> bytes:
    """Return a response's head with what is taken leniently made regular; every other fault stays in it."""
    if FOLDED_HEADERS in lenient:
        start = head.find(b"\r\n") + 2  # the status line is no header that could go on
        head = head[:start] + _FOLD.sub(b" ", head[start:-2]) + head[-2:]
    if REPEATED_CONTENT_LENGTH in lenient:
        head = _with_one_length(head)
    return head


def _with_one_length(head: bytes) -> bytes:
    lines = _LENGTH_LINE.findall(head)
    lengths = {length.strip(b" \t") for line in lines for length in line.split(b",")}
    if len(lengths) != 1 or not (length := lengths.pop()).isdigit():
        return head
    end = head.find(b"\r\n") + 2
    return b"%bContent-Length: %b\r\n%b" % (head[:end], length, _LENGTH_LINE.sub(b"", head)[end:])
