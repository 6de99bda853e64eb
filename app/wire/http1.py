"""HTTP/1.1 heads: parses and writes them (RFC 9112, RFC 9110).

llhttp parses the bytes, through httptools. It refuses control bytes, bare CR and LF, obs-fold, and malformed names and
numbers. This module refuses what llhttp accepts against RFC 9112: a request line with other separators than single
spaces, versions other than 1.0 and 1.1, a missing or repeated Host, targets in the wrong form, and codings besides
chunked. The result is unambiguous: both sides of the proxy read the same message.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final

from httptools import (
    HttpParserError,
    HttpParserInvalidURLError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from app.wire.http1_diagnosis import framing_fault, header_fault
from app.wire.http1_faults import TOKEN, BadMessage, refused
from app.wire.http1_framing import NO_BODY, Framing, add_field, connection_of, framing_of, upgrade_of
from app.wire.http1_lenient import ANY_STATUS, LEADING_EMPTY_LINES, repaired, without_empty_lines

Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"transfer-encoding", b"upgrade")
)
"""The fields for the next hop only, in lower case. An intermediary removes them, and those listed in Connection, before
it forwards a message (RFC 9110 7.6.1). Trailer is not one of them: trailers are forwarded."""


@dataclass(slots=True)
class RequestHead:
    """A request that may be forwarded.

    `target` is in origin-form, or "*" for OPTIONS. An absolute-form target is split, and its authority becomes `host`
    and the only Host header (RFC 9112 3.2.2). `host` is empty only if an HTTP/1.0 request has none. `headers` have
    their names as received and their values without surrounding white space. `version` is 1.0 or 1.1.
    `content_length` (bytes) is valid with framing LENGTH, and is positive then. `upgrade`, in lower case, is None
    unless Connection lists it (RFC 9110 7.8). `expects_continue`: the client waits for 100 before it sends the body
    (RFC 9110 10.1.1). `connection_tokens` are the fields listed in Connection, in lower case, without close and
    keep-alive, and without Host, Content-Length and Expect, which no sender may make hop-by-hop.
    """

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    host: bytes
    framing: Framing
    content_length: int
    is_persistent: bool
    expects_continue: bool
    upgrade: bytes | None
    connection_tokens: frozenset[bytes]


@dataclass(slots=True)
class ResponseHead:
    """A response that may be forwarded, with fields as in RequestHead. `status` is 100-599, or
    up to 999 if that is taken leniently.

    `is_persistent` is false if the body ends with the connection. A 101 has framing NONE: what follows is not HTTP.
    """

    status: int
    reason: bytes
    version: bytes
    headers: Headers
    framing: Framing
    content_length: int
    is_persistent: bool
    upgrade: bytes | None
    connection_tokens: frozenset[bytes]


def parse_request(head: bytes) -> RequestHead:
    """Parse one head, from the first byte of its request line to its empty line. Raises BadMessage.

    The caller skips empty lines before it (RFC 9112 2.2).
    """
    line = _REQUEST_LINE.match(head)
    if line is None:
        raise refused(_request_line_fault(head))
    if head.find(b"\r\n\r\n") != len(head) - 4:
        raise refused("incomplete_head")
    method, target, version = line.groups()
    fields = _Fields()
    # A new parser costs 0.25 µs. Reusing one would save that, but only if it is at the start of a message: after a
    # body, an upgrade or an error it is not.
    try:
        HttpRequestParser(fields).feed_data(head)
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        if method == b"PRI" or not TOKEN.fullmatch(method):
            raise refused(_parser_fault(error, head, method, version)) from None
        # Methods are extensible (RFC 9110 9.1), the parser's table is not; and it knows two versions.
        fields = _Fields()
        known_version = b"1.0" if version == b"1.0" else b"1.1"
        _parse_fields(fields, b"POST %b HTTP/%b" % (target, known_version), head, method, version)
    if version != b"1.0":
        version = b"1.1"  # every later version of HTTP/1 is read as that (RFC 9110 2.5)
    if method == b"CONNECT":
        raise refused("method_not_implemented")
    headers = _without_trailing_space(head, fields.headers)
    known = _known(headers, _READ_OF_A_REQUEST)
    host = _host(known, version)
    if target[0] != _SLASH:
        target, host = _target(method, target, host, headers)
    framing, length = framing_of(known, version)
    is_persistent, options = connection_of(known.get(b"connection"), version)
    return RequestHead(
        method,
        target,
        version,
        headers,
        host,
        framing,
        length,
        is_persistent,
        # Expect is ignored in HTTP/1.0 (RFC 9110 10.1.1).
        known.get(b"expect", b"").lower() == b"100-continue" and version == b"1.1" and framing is not Framing.NONE,
        upgrade_of(known, options, version),
        options - _NEVER_HOP_BY_HOP,
    )


def parse_response(head: bytes, method: bytes, lenient: Collection[str] = ()) -> ResponseHead:
    """Parse the head of a response, 1xx included, to a request with this method. Raises BadMessage, always with 502.

    `lenient` are names of app.wire.http1_lenient.
    """
    try:
        if not lenient:
            return _parse_response(head, method, _STATUS_LINE)
        return _parse_response(repaired(head, lenient), method, _status_line(lenient))
    except BadMessage as fault:
        raise BadMessage(502, fault.reason) from None


def next_response(
    received: bytes, method: bytes, limit: int, lenient: Collection[str] = (), searched: int = 0
) -> tuple[ResponseHead, bytes] | None:
    """Read the head that `received` begins with; return it and what follows, or None while it is not whole.

    `searched` is the number of its bytes for which the result was None: they are not searched again. Raises BadMessage
    (502), also for a head of more than `limit` bytes. `lenient` as in parse_response.
    """
    if lenient and LEADING_EMPTY_LINES in lenient and len(received) <= limit:
        size = len(received)
        received = without_empty_lines(received)
        searched = max(0, searched - (size - len(received)))
    end = received.find(b"\r\n\r\n", searched - 3 if searched > 3 else 0) + 4
    if end > limit or (end == 3 and len(received) > limit):
        raise BadMessage(502, "head_too_long")
    if end == 3:
        if fault := _fault_so_far(
            received, _status_line(lenient), searched
        ):  # it never will be: another protocol, perhaps
            raise BadMessage(502, fault)
        return None
    return parse_response(received[:end], method, lenient), received[end:]


def request_bytes(method: bytes, target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a request head in HTTP/1.1. Nothing is checked: the parts are from parse_request or the configuration."""
    return _head_bytes(b"%b %b HTTP/1.1" % (method, target), headers)


def response_bytes(status: int, reason: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return a response head, in HTTP/1.1 whatever the version of the request (RFC 9110 2.5). Nothing is checked."""
    return _head_bytes(b"HTTP/1.1 %d %b" % (status, reason), headers)


_READ_OF_A_REQUEST: Final = frozenset(
    (b"host", b"content-length", b"transfer-encoding", b"connection", b"upgrade", b"expect")
)
_READ_OF_A_RESPONSE: Final = _READ_OF_A_REQUEST - {b"host", b"expect"}
_NEVER_HOP_BY_HOP: Final = frozenset((b"", b"close", b"keep-alive", b"host", b"content-length", b"expect"))
_SLASH: Final = ord("/")

# The parser reads this line too, but skips repeated spaces and takes a bare LF for the end of an HTTP/0.9 line: in
# "GET /\nX: HTTP/1.1" it would see a header. "#" is excluded because a fragment is never sent (RFC 9110 4.2.5), bytes
# above ASCII because no URI has them and the parser refuses them.
_REQUEST_LINE: Final = re.compile(rb"([!-~]+) ([!\"$-~]+) HTTP/(1\.[0-9])\r\n")
_VERSION: Final = re.compile(rb"HTTP/[0-9]\.[0-9]")
# A registered name, IPv4 address (RFC 3986 3.2.2) or IPv6 address, and a port. User information is an error (RFC 9110
# 4.2.4).
_AUTHORITY: Final = re.compile(
    rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=]|%[0-9A-Fa-f]{2})+(?::[0-9]{0,5})?|\[[0-9A-Fa-f:.]+\](?::[0-9]{0,5})?"
)
_ABSOLUTE_FORM: Final = re.compile(rb"(?i:https?)://([^/?#]+)(/[^?#]*)?(\?[^#]*)?")
# The reason phrase and the space before it may be missing: some servers omit them, and clients ignore them.
_STATUS_LINE: Final = re.compile(rb"HTTP/(1\.[0-9]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n")
_ANY_STATUS_LINE: Final = re.compile(_STATUS_LINE.pattern.replace(b"[1-5]", b"[1-9]"))


# Of 9 bytes or fewer.
_STATUS_LINE_BEGINS: Final = re.compile(rb"H?|HT|HTT|HTTP|HTTP/|HTTP/1|HTTP/1\.|HTTP/1\.[0-9] ?")


class _Fields:
    """Collects the header lines in order, as the callback object of httptools."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: Headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))


def _parse_fields(fields: _Fields, line: bytes, head: bytes, method: bytes, version: bytes) -> None:
    """Parse the header lines of a head below another request line. Raises BadMessage."""
    try:
        HttpRequestParser(fields).feed_data(line + head[head.index(b"\r\n") :])
    except HttpParserUpgrade:
        pass
    except HttpParserError as error:
        raise refused(_parser_fault(error, head, method, version)) from None


def _request_line_fault(head: bytes) -> str:
    """Return the fault in a request line that _REQUEST_LINE does not match, or in the line ends."""
    if reason := header_fault(head):
        return reason
    parts = head[: head.find(b"\r\n")].split(b" ")
    if len(parts) != 3 or not all(parts):
        return "request_line"
    method, _, version = parts
    if not _VERSION.fullmatch(version) or version == b"HTTP/0.9":
        return "bad_version"
    if not version.startswith(b"HTTP/1."):
        return "version_unsupported"
    return "target" if TOKEN.fullmatch(method) else "request_line"


def _parser_fault(error: HttpParserError, head: bytes, method: bytes, version: bytes) -> str:
    """Return the fault for which the parser refused a request whose line matches _REQUEST_LINE."""
    if isinstance(error, HttpParserInvalidURLError):
        return "target"
    if reason := header_fault(head) or framing_fault(head, version):
        return reason
    # The parser has separate error texts for methods of other protocols and for the preface of HTTP/2.
    if "method" in str(error) or method == b"PRI":
        return "method_not_implemented" if TOKEN.fullmatch(method) else "request_line"
    return "malformed"


def _without_trailing_space(head: bytes, headers: Headers) -> Headers:
    """Strip the white space that the parser leaves at the end of values (RFC 9112 5.1).

    There is hardly ever any, and two searches of the whole head cost less than a loop over all values.
    """
    if b" \r\n" in head or b"\t\r\n" in head:
        return [(name, value.rstrip(b" \t")) for name, value in headers]
    return headers


def _known(headers: Headers, names: frozenset[bytes]) -> dict[bytes, bytes]:
    """Collect the header lines with these names, given in lower case."""
    known: dict[bytes, bytes] = {}
    for header in headers:
        if (name := header[0].lower()) in names:
            add_field(known, name, header[1])
    return known


def _host(known: dict[bytes, bytes], version: bytes) -> bytes:
    """Check the Host header (RFC 9112 3.2)."""
    host = known.get(b"host")
    if host is None:
        if version == b"1.1":
            raise refused("host_missing")
        return b""
    if not _AUTHORITY.fullmatch(host):
        raise refused("host_invalid")
    return host


def _target(method: bytes, target: bytes, host: bytes, headers: Headers) -> tuple[bytes, bytes]:
    """Convert a target in absolute-form to origin-form and host, and replace the Host header; accept asterisk-form."""
    if target == b"*" and method == b"OPTIONS":
        return target, host
    absolute = _ABSOLUTE_FORM.fullmatch(target)
    if absolute is None:
        raise refused("target")
    authority, path, query = absolute.groups(b"")
    if not _AUTHORITY.fullmatch(authority):
        raise refused("host_invalid")
    headers[:] = [(b"Host", authority), *(header for header in headers if header[0].lower() != b"host")]
    # RFC 9112 3.2.4: for a URI without path and query the last proxy before the origin sends the asterisk.
    is_asterisk = method == b"OPTIONS" and not path and not query
    return b"*" if is_asterisk else (path or b"/") + query, authority


def _status_line(lenient: Collection[str]) -> re.Pattern[bytes]:
    return _ANY_STATUS_LINE if ANY_STATUS in lenient else _STATUS_LINE


def _fault_so_far(received: bytes, status_line: re.Pattern[bytes], searched: int) -> str | None:
    """Return the fault for which a response's head that is not whole cannot become valid; `searched` bytes had none."""
    if not _STATUS_LINE_BEGINS.fullmatch(received[:9]):
        return "status_line"
    start = searched - 1 if received[searched - 1 : searched] == b"\r" else searched
    lines = received.count(b"\n", start)
    if lines != received.count(b"\r\n", start):
        return "bare_lf"
    is_first = lines and received.find(b"\n", 0, start) < 0
    return "status_line" if is_first and not status_line.match(received) else None


def _parse_response(head: bytes, method: bytes, status_line: re.Pattern[bytes]) -> ResponseHead:
    line = status_line.match(head)
    if line is None:
        raise refused("status_line")
    if head.find(b"\r\n\r\n") != len(head) - 4:
        raise refused("incomplete_head")
    version, status, reason = line[1], int(line[2]), line[3] or b""
    if version not in (b"1.0", b"1.1"):
        version, head = b"1.1", b"HTTP/1.1" + head[8:]
    fields = _Fields()
    try:
        HttpResponseParser(fields).feed_data(head)
    except HttpParserUpgrade:
        pass
    except HttpParserError:
        default = "switching_without_upgrade" if status == 101 else "malformed"
        raise refused(header_fault(head) or framing_fault(head, version) or default) from None
    headers = _without_trailing_space(head, fields.headers)
    known = _known(headers, _READ_OF_A_RESPONSE)
    framing, length = framing_of(known, version)
    if method == b"HEAD" or status < 200 or status in (204, 304):
        framing, length = NO_BODY
    elif framing is Framing.NONE and b"content-length" not in known:
        framing = Framing.UNTIL_CLOSE
    is_persistent, options = connection_of(known.get(b"connection"), version)
    return ResponseHead(
        status,
        reason,
        version,
        headers,
        framing,
        length,
        is_persistent and framing is not Framing.UNTIL_CLOSE,
        upgrade_of(known, options, version),
        options - _NEVER_HOP_BY_HOP,
    )


def _head_bytes(line: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    return b"\r\n".join([line, *[b"%b: %b" % header for header in headers], b"", b""])
