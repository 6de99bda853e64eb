"""The faults of HTTP/1.1 messages: a reason each, with the status of the response and the rule that it breaks.

Reasons appear in the log and in response bodies. They are safe in both because none contains a byte of the peer.
"""

from __future__ import annotations

import re
from typing import Final

TOKEN: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""RFC 9110 5.6.2: methods, header names, transfer codings."""

REASONS: Final[dict[str, int]] = {
    # The form of a head
    "incomplete_head": 400,  # not a single head that ends with its only empty line (RFC 9112 2.1)
    "bare_cr": 400,  # CR without LF (RFC 9112 2.2)
    "bare_lf": 400,  # LF without CR: a recipient MAY accept it as a line end, so two recipients may differ (2.2)
    "malformed": 400,  # refused by the parser for no other reason of this table
    # The request line
    "request_line": 400,  # not method, target and version with one space between each; HTTP/0.9 (RFC 9112 3)
    "method_not_implemented": 501,  # CONNECT (RFC 9110 9.3.6), or PRI, which begins HTTP/2 (RFC 9113 3.4)
    "target": 400,  # a form that the method does not allow, a fragment, an invalid byte (RFC 9112 3.2, RFC 3986)
    "bad_version": 400,  # not HTTP-version, which is in capitals, or 0.9, which had none (RFC 9112 2.3)
    "version_unsupported": 505,  # well-formed, and neither 1.0 nor 1.1 (RFC 9110 15.6.6)
    # The status line
    "status_line": 502,  # not HTTP/1.x, a status from 100 to 599 and a reason without control bytes (RFC 9112 4)
    "switching_without_upgrade": 502,  # a 101 without Upgrade, or not in HTTP/1.1 (RFC 9110 7.8, 15.2.2)
    # Header lines
    "obs_fold": 400,  # a line that begins with white space, the first one included (RFC 9112 5.2, 2.2)
    "header_without_colon": 400,  # RFC 9112 5
    "space_before_colon": 400,  # RFC 9112 5.1
    "header_name": 400,  # empty, or not a token (RFC 9110 5.1, 5.6.2)
    "header_value": 400,  # NUL or another control byte than a tab (RFC 9110 5.5)
    # The Host header
    "host_missing": 400,  # in HTTP/1.1 (RFC 9112 3.2)
    "host_repeated": 400,  # RFC 9112 3.2
    "host_invalid": 400,  # not uri-host [":" port], or empty, which no http URI allows (RFC 9112 3.2, 3.3)
    # The framing of the body
    "content_length": 400,  # not digits, a list, or more than 63 bits (RFC 9112 6.3 rule 5)
    "content_length_repeated": 400,  # even if equal: RFC 9112 6.3 leaves that to the recipient
    "content_length_and_transfer_encoding": 400,  # RFC 9112 6.1, 6.3 rule 3
    "transfer_encoding": 400,  # not a list of codings that ends in its only chunked (RFC 9112 6.1, 6.3 rule 4, 7)
    "transfer_encoding_in_http_1_0": 400,  # RFC 9112 6.1
    "unknown_transfer_coding": 501,  # anything besides chunked (RFC 9112 6.1)
    # Chunks
    "bad_chunk_size": 400,  # not hexadecimal digits and well-formed extensions (RFC 9112 7.1, 7.1.1)
    "chunk_size_too_large": 400,  # more than 15 digits (RFC 9112 7.1: anticipate large numerals)
    "chunk_line_too_long": 400,  # excessive extensions (RFC 9112 7.1.1: limit their total length)
    "bad_chunk_end": 400,  # no CRLF after the chunk's data (RFC 9112 7.1)
    "bad_trailer": 400,  # not a header line (RFC 9112 7.1.2)
    "trailer_too_long": 400,  # RFC 9112 7.1.2
    "forbidden_trailer": 400,  # a field that frames, routes or authenticates the message (RFC 9110 6.5.1)
}
"""Reason -> status of the response to a request. In a message from an upstream every fault is 502 (RFC 9110 15.6.3)."""


class BadMessage(ValueError):
    """A message that must not be forwarded.

    `reason` is a key of REASONS; `status` (400-599) is the status of the response. The end of the message cannot be
    trusted, so the connection must be closed.
    """

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status: Final = status
        self.reason: Final = reason


def refused(reason: str) -> BadMessage:
    """Make the exception that refuses a request, with its status from REASONS."""
    return BadMessage(REASONS[reason], reason)
