"""A plain reading of HTTP/1.1, byte by byte from the grammar of RFC 9112 and RFC 9110: slow, and without a library.

Where the RFCs leave a choice, this makes the edge's: strict, one reading only. It gives no reasons.
"""

from __future__ import annotations

from dataclasses import dataclass, field

TCHAR = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
HEX = frozenset(b"0123456789abcdefABCDEF")
DIGITS = frozenset(b"0123456789")
SPACE = frozenset(b" \t")
TEXT = SPACE | frozenset(range(0x21, 0x7F)) | frozenset(range(0x80, 0x100))
"""What a field's value is made of."""
FORBIDDEN_TRAILERS = frozenset(
    b"content-length transfer-encoding host connection keep-alive proxy-connection te trailer upgrade expect"
    b" max-forwards authorization proxy-authorization cookie set-cookie content-encoding content-type"
    b" content-range range forwarded x-forwarded-for x-forwarded-proto x-forwarded-host x-request-id".split()
)


class Bad(Exception):
    """No message has this byte here."""


class More(Exception):
    """So far all is well, and more bytes are needed."""


def must(condition: object) -> None:
    if not condition:
        raise Bad


# Chunks


class Cursor:
    """Reads bytes; `limit` is how many the current line, or the trailers, may still have."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.limit = 1 << 62

    def peek(self) -> int:
        if self.at == len(self.data):
            raise More
        return self.data[self.at]

    def take(self, allowed: frozenset[int]) -> int:
        byte = self.peek()
        must(byte in allowed and self.limit > 0)
        self.at += 1
        self.limit -= 1
        if self.limit == 0 and byte != 0x0A:  # as long as it may be, and not at its end
            raise Bad
        return byte

    def while_in(self, allowed: frozenset[int]) -> bytes:
        start = self.at
        while self.peek() in allowed:
            self.take(allowed)
        return self.data[start : self.at]

    def some(self, allowed: frozenset[int]) -> bytes:
        must(self.peek() in allowed)
        return self.while_in(allowed)

    def literal(self, text: bytes) -> None:
        for byte in text:
            self.take(frozenset((byte,)))


def read_chunks(data: bytes) -> tuple[int, bytes, bool]:
    """Return how much of the data is the body, what it carries, and whether it ended. Raises Bad."""
    cursor, payload = Cursor(data), b""
    try:
        while size := _size_line(cursor):
            cursor.limit = 1 << 62
            part = data[cursor.at : cursor.at + size]
            payload += part
            cursor.at += len(part)
            if len(part) < size:
                raise More
            cursor.literal(b"\r\n")
        cursor.limit = 8192
        while cursor.peek() != 0x0D:
            name = cursor.some(TCHAR)
            cursor.literal(b":")
            cursor.while_in(TEXT)
            cursor.literal(b"\r\n")
            must(name.lower() not in FORBIDDEN_TRAILERS)
        cursor.literal(b"\r\n")
    except More:
        return len(data), payload, False
    return cursor.at, payload, True


def _size_line(cursor: Cursor) -> int:
    cursor.limit = 256
    digits = b""
    while cursor.peek() in HEX:
        digits += bytes([cursor.take(HEX)])
        must(len(digits) <= 15)
    must(digits)
    while cursor.peek() != 0x0D:
        cursor.while_in(SPACE)
        cursor.literal(b";")
        cursor.while_in(SPACE)
        cursor.some(TCHAR)
        _value(cursor)
    cursor.literal(b"\r\n")
    return int(digits, 16)


def _value(cursor: Cursor) -> None:
    """Read the value of an extension, if there is one. White space after a name may belong to either "=" or ";"."""
    cursor.while_in(SPACE)
    if cursor.data[cursor.at - 1] in SPACE:
        must(cursor.peek() in b"=;")
    if cursor.peek() != 0x3D:
        return
    cursor.literal(b"=")
    cursor.while_in(SPACE)
    if cursor.peek() != 0x22:
        cursor.some(TCHAR)
        return
    cursor.literal(b'"')
    while cursor.peek() != 0x22:
        if cursor.take(TEXT) == 0x5C:
            cursor.take(TEXT)
    cursor.literal(b'"')


# Heads of requests


@dataclass
class Head:
    """What a request's head means; the fields as in app.wire.http1.RequestHead."""

    method: bytes
    target: bytes
    version: bytes
    headers: list[tuple[bytes, bytes]]
    host: bytes = b""
    is_chunked: bool = False
    content_length: int = 0
    is_persistent: bool = True
    options: set[bytes] = field(default_factory=set)

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]


def read_head(data: bytes) -> Head:
    """Return what a head means, which ends with the data. Raises Bad."""
    must(data.endswith(b"\r\n\r\n") and data.count(b"\r\n\r\n") == 1 and data.find(b"\r\n\r\n") == len(data) - 4)
    lines = data[:-4].split(b"\r\n")
    must(not any(byte in line for line in lines for byte in b"\r\n"))
    head = _request_line(lines[0])
    for line in lines[1:]:
        name, colon, value = line.partition(b":")
        must(colon and name and set(name) <= TCHAR and set(value) <= TEXT)
        head.headers.append((name, value.strip(b" \t")))
    _check_host(head)
    _check_framing(head)
    for value in head.values(b"connection"):
        head.options |= {option.strip(b" \t").lower() for option in value.split(b",")}
    is_1_0 = head.version == b"1.0"
    head.is_persistent = b"close" not in head.options and (not is_1_0 or b"keep-alive" in head.options)
    return head


def _request_line(line: bytes) -> Head:
    parts = line.split(b" ")
    must(len(parts) == 3)
    method, target, version = parts
    must(method and set(method) <= TCHAR and method not in (b"CONNECT", b"PRI"))
    must(len(version) == 8 and version[:7] == b"HTTP/1." and version[7] in DIGITS)
    must(target and all(0x21 <= byte <= 0x7E and byte != 0x23 for byte in target))
    return Head(method, target, b"1.0" if version == b"HTTP/1.0" else b"1.1", [])


def _check_host(head: Head) -> None:
    hosts = head.values(b"host")
    must(len(hosts) == 1 or (not hosts and head.version == b"1.0"))
    if hosts:
        must(is_authority(hosts[0]))
        head.host = hosts[0]
    if head.target[:1] == b"/" or (head.target == b"*" and head.method == b"OPTIONS"):
        return
    scheme, mark, rest = head.target.partition(b"://")
    must(mark and scheme.lower() in (b"http", b"https"))
    end = min((at for at in map(rest.find, (b"/", b"?")) if at >= 0), default=len(rest))
    head.host, path = rest[:end], rest[end:]
    must(is_authority(head.host))
    if not path and head.method == b"OPTIONS":
        head.target = b"*"
    else:
        head.target = path if path.startswith(b"/") else b"/" + path
    head.headers = [(b"Host", head.host), *(one for one in head.headers if one[0].lower() != b"host")]


def is_authority(text: bytes) -> bool:
    """Say whether a text is uri-host [":" port] with a host (RFC 3986, section 3.2)."""
    if text.startswith(b"["):
        host, closing, rest = text[1:].partition(b"]")
        must(closing)
        return bool(host) and set(host) <= HEX | set(b".:") and _is_port(rest)
    host, colon, port = text.partition(b":")
    at = 0
    while at < len(host):
        if host[at] == 0x25:
            must(at + 2 < len(host) and {host[at + 1], host[at + 2]} <= HEX)
            at += 3
        else:
            must(host[at] in b"-._~!$&'()*+,;=" or (chr(host[at]).isascii() and chr(host[at]).isalnum()))
            at += 1
    return bool(host) and _is_port(colon + port)


def _is_port(text: bytes) -> bool:
    return not text or (text[:1] == b":" and len(text) <= 6 and set(text[1:]) <= DIGITS)


def _check_framing(head: Head) -> None:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if codings:
        must(not lengths and head.version == b"1.1" and b", ".join(codings).lower() == b"chunked")
        head.is_chunked = True
    elif lengths:
        must(len(lengths) == 1 and lengths[0] and set(lengths[0]) <= DIGITS and len(lengths[0]) <= 19)
        head.content_length = int(lengths[0])
        must(head.content_length < 1 << 63)
