"""Requests written from RFC 9112 and RFC 9110, good and bad: what each must be answered with, or how it is framed.

Every case is what a client sends: a head, and perhaps a body. Sections without a number before them are RFC 9112's.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.wire.http1_framing import Framing


@dataclass(frozen=True)
class Refused:
    """A request that is answered with this status, and of which nothing reaches an origin."""

    section: str
    raw: bytes
    status: int
    reason: str


@dataclass(frozen=True)
class Accepted:
    """A request that is forwarded. `body` are the bytes after the head that belong to it."""

    section: str
    raw: bytes
    framing: Framing = Framing.NONE
    body: bytes = b""
    host: bytes = b"a"
    target: bytes = b"/"


def get(line: bytes = b"GET / HTTP/1.1", *headers: bytes, host: bytes = b"Host: a\r\n") -> bytes:
    """Write a head, with one good Host unless `host` says otherwise."""
    return line + b"\r\n" + host + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


def post(*headers: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return get(b"POST / HTTP/" + version, *headers) + body


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
LENGTH, CODING = b"Content-Length: 5", b"Transfer-Encoding: chunked"
CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"

BAD_REQUEST_LINES = [
    # Spaces: exactly two single ones (3)
    Refused("3", get(b"GET  / HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET /  HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b" GET / HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET / HTTP/1.1 "), 400, "request_line"),
    Refused("3", get(b"GET / HTTP/1.1 HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET /a b HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET\t/ HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET /\tHTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET\x0b/ HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET\xa0/ HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET"), 400, "request_line"),
    Refused("3", get(b"GET HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"/ HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b"GET  HTTP/1.1"), 400, "request_line"),
    Refused("3", get(b" / HTTP/1.1"), 400, "request_line"),
    # HTTP/0.9 (2.3), which has no version, and would be answered without a head
    Refused("2.3", get(b"GET /"), 400, "request_line"),
    Refused("2.3", b"GET /\r\n\r\n", 400, "request_line"),
    Refused("2.3", get(b"GET / "), 400, "request_line"),
    Refused("2.3", get(b"GET / HTTP/0.9"), 400, "bad_version"),
    # Versions (2.3; RFC 9110 15.6.6)
    Refused("2.3", get(b"GET / http/1.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / Http/1.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/1."), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/1.1.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/11.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/1.10"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/01.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/+1.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP/1,1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTPS/1.1"), 400, "bad_version"),
    Refused("2.3", get(b"GET / HTTP 1.1"), 400, "request_line"),
    Refused("2.3", get(b"GET / HTTP/ 1.1"), 400, "request_line"),
    Refused("2.3", get(b"GET / RTSP/1.0"), 400, "bad_version"),
    Refused("2.3", get(b"SOURCE / ICE/1.0"), 400, "bad_version"),
    Refused("RFC 9110 15.6.6", get(b"GET / HTTP/2.0"), 505, "version_unsupported"),
    Refused("RFC 9110 15.6.6", get(b"GET / HTTP/3.0"), 505, "version_unsupported"),
    Refused("RFC 9110 15.6.6", get(b"GET / HTTP/0.1"), 505, "version_unsupported"),
    Refused("RFC 9110 15.6.6", get(b"GET / HTTP/9.9"), 505, "version_unsupported"),
    Refused("RFC 9113 3.4", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version_unsupported"),
    # Methods (RFC 9110 9.1: case-sensitive tokens; 15.6.2)
    Refused("RFC 9110 9.1", get(b"PRI * HTTP/1.1"), 501, "method_not_implemented"),
    Refused("RFC 9110 9.3.6", get(b"CONNECT a:80 HTTP/1.1"), 501, "method_not_implemented"),
    Refused("RFC 9110 9.3.6", get(b"CONNECT / HTTP/1.1"), 501, "method_not_implemented"),
    Refused("RFC 9110 9.1", get(b"G@T / HTTP/1.1"), 400, "request_line"),
    Refused("RFC 9110 9.1", get(b"GET: / HTTP/1.1"), 400, "request_line"),
    Refused("RFC 9110 9.1", get(b"G\x00ET / HTTP/1.1"), 400, "request_line"),
    Refused("RFC 9110 9.1", get(b"G\xc9T / HTTP/1.1"), 400, "request_line"),
    # Targets (3.2; RFC 3986)
    Refused("3.2", get(b"GET a HTTP/1.1"), 400, "target"),
    Refused("3.2", get(b"GET a/b HTTP/1.1"), 400, "target"),
    Refused("3.2", get(b"GET ?a HTTP/1.1"), 400, "target"),
    Refused("3.2", get(b"GET ../a HTTP/1.1"), 400, "target"),
    Refused("3.2", get(b"GET \\a HTTP/1.1"), 400, "target"),
    Refused("3.2", get(b"GET a:80 HTTP/1.1"), 400, "target"),
    Refused("3.2.4", get(b"GET * HTTP/1.1"), 400, "target"),
    Refused("3.2.4", get(b"OPTIONS ** HTTP/1.1"), 400, "target"),
    Refused("3.2.4", get(b"OPTIONS *a HTTP/1.1"), 400, "target"),
    Refused("3.2.4", get(b"OPTIONS /* * HTTP/1.1"), 400, "request_line"),
    Refused("3.2.2", get(b"GET ftp://a/ HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http:/a HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http:a HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http:///a HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http://?a HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http:// HTTP/1.1"), 400, "target"),
    Refused("3.2.2", get(b"GET http+unix://a/ HTTP/1.1"), 400, "target"),
    Refused("RFC 9110 4.2.4", get(b"GET http://user@a/ HTTP/1.1"), 400, "host_invalid"),
    Refused("RFC 9110 4.2.4", get(b"GET http://user:word@a/ HTTP/1.1"), 400, "host_invalid"),
    Refused("RFC 9110 4.2.4", get(b"GET http://b@c@a/ HTTP/1.1"), 400, "host_invalid"),
    Refused("RFC 3986 3.2.3", get(b"GET http://a:b/ HTTP/1.1"), 400, "host_invalid"),
    Refused("RFC 3986 3.2.2", get(b"GET http://[::1/ HTTP/1.1"), 400, "host_invalid"),
    Refused("RFC 3986 3.2.2", get(b"GET http://a\\b/ HTTP/1.1"), 400, "target"),
    Refused("RFC 9110 4.2.5", get(b"GET /#a HTTP/1.1"), 400, "target"),
    Refused("RFC 9110 4.2.5", get(b"GET /?b#a HTTP/1.1"), 400, "target"),
    Refused("RFC 9110 4.2.5", get(b"GET http://a/#b HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /\x00 HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /a\x01b HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /a\tb HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /a\x0cb HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /a\x7fb HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /\xe9 HTTP/1.1"), 400, "target"),
    Refused("RFC 3986 2", get(b"GET /?\xc3\xa9 HTTP/1.1"), 400, "target"),
    # Line ends (2.2): a parser that takes a bare LF sees another request line here, or other headers
    Refused("2.2", get(b"GET /a\rb HTTP/1.1"), 400, "bare_cr"),
    Refused("2.2", get(b"GET /a\nb HTTP/1.1"), 400, "bare_lf"),
    Refused("2.2", get(b"GET /a\nX: HTTP/1.1"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1\nX: HTTP/1.1"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1\r"), 400, "bare_cr"),
    Refused("2.2", b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400, "bare_lf"),
    Refused("2.2", b"GET / HTTP/1.1\rHost: a\r\n\r\n", 400, "bare_cr"),
    Refused("2.2", b"GET / HTTP/1.1\nHost: a\n\n" + SMUGGLED, 400, "bare_lf"),
]

BAD_HEADERS = [
    # Line ends and folding (2.2, 5.2)
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\nY: b"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\n"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"\nX: a"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\n\nGET /smuggled HTTP/1.1"), 400, "bare_lf"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\rY: b"), 400, "bare_cr"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\r"), 400, "bare_cr"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X: a\r\rY: b"), 400, "bare_cr"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"\rX: a"), 400, "bare_cr"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X\r: a"), 400, "bare_cr"),
    Refused("2.2", get(b"GET / HTTP/1.1", b"X\n: a"), 400, "bare_lf"),
    Refused("5.2", get(b"GET / HTTP/1.1", b"X: a", b" b"), 400, "obs_fold"),
    Refused("5.2", get(b"GET / HTTP/1.1", b"X: a", b"\tb"), 400, "obs_fold"),
    Refused("5.2", get(b"GET / HTTP/1.1", b"X:", b" b"), 400, "obs_fold"),
    Refused("5.2", get(b"GET / HTTP/1.1", b"X: a", b" "), 400, "obs_fold"),
    Refused("5.2", get(b"GET / HTTP/1.1", b"X: a", b" Y: b"), 400, "obs_fold"),
    Refused("5.2", post(b"Transfer-Encoding:", b" chunked", body=CHUNKS), 400, "obs_fold"),
    Refused("5.2", post(b"X: a", b" Transfer-Encoding: chunked", LENGTH, body=b"hello"), 400, "obs_fold"),
    Refused("2.2", b"GET / HTTP/1.1\r\n X: a\r\nHost: a\r\n\r\n", 400, "obs_fold"),
    Refused("2.2", b"GET / HTTP/1.1\r\n\tHost: a\r\n\r\n", 400, "obs_fold"),
    # Names (5, 5.1; RFC 9110 5.1, 5.6.2)
    Refused("5", get(b"GET / HTTP/1.1", b"X"), 400, "header_without_colon"),
    Refused("5", get(b"GET / HTTP/1.1", b"X a"), 400, "header_without_colon"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X : a"), 400, "space_before_colon"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X\t: a"), 400, "space_before_colon"),
    Refused("5.1", post(b"Content-Length : 5", body=b"hello"), 400, "space_before_colon"),
    Refused("5.1", post(b"Transfer-Encoding : chunked", LENGTH, body=b"hello"), 400, "space_before_colon"),
    Refused("5.1", get(host=b"Host : a\r\n"), 400, "space_before_colon"),
    Refused("5.1", get(b"GET / HTTP/1.1", b": a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b":"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X Y: a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X\x00: a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"Transfer-Encoding\x00: chunked"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X\x0b: a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X\x7f: a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"\xe9: a"), 400, "header_name"),
    Refused("5.1", get(b"GET / HTTP/1.1", b"X\xa0: a"), 400, "header_name"),
    *[
        Refused("RFC 9110 5.6.2", get(b"GET / HTTP/1.1", b"X%cY: a" % delimiter), 400, "header_name")
        for delimiter in b'"(),/;<=>?@[\\]{}'
    ],
    # Values (RFC 9110 5.5)
    *[
        Refused("RFC 9110 5.5", get(b"GET / HTTP/1.1", b"X: a%cb" % control), 400, "header_value")
        for control in (0x00, 0x01, 0x08, 0x0B, 0x0C, 0x1B, 0x1F, 0x7F)
    ],
    Refused("RFC 9110 5.5", get(b"GET / HTTP/1.1", b"X:\x00"), 400, "header_value"),
    Refused("RFC 9110 5.5", post(b"Transfer-Encoding: \x0bchunked", body=CHUNKS), 400, "header_value"),
    Refused("RFC 9110 5.5", post(b"Transfer-Encoding: chunked\x00", body=CHUNKS), 400, "header_value"),
    Refused("RFC 9110 5.5", post(b"Content-Length: 5\x00", body=b"hello"), 400, "header_value"),
    # Host (3.2, 3.3)
    Refused("3.2", get(host=b""), 400, "host_missing"),
    Refused("3.2", get(b"GET http://a/ HTTP/1.1", host=b""), 400, "host_missing"),
    Refused("3.2", get(host=b"Hos: a\r\n"), 400, "host_missing"),
    Refused("3.2", get(b"GET / HTTP/1.1", b"Host: a"), 400, "host_repeated"),
    Refused("3.2", get(b"GET / HTTP/1.1", b"Host: b"), 400, "host_repeated"),
    Refused("3.2", get(b"GET / HTTP/1.1", b"hOST: b"), 400, "host_repeated"),
    Refused("3.2", get(b"GET / HTTP/1.1", b"X: y", b"Host:"), 400, "host_repeated"),
    Refused("3.2", get(b"GET / HTTP/1.0", b"Host: b"), 400, "host_repeated"),
    Refused("3.2", get(b"GET http://a/ HTTP/1.1", b"Host: b"), 400, "host_repeated"),
    *[
        Refused("3.2", get(host=b"Host: %b\r\n" % host), 400, "host_invalid")
        for host in (
            b"",
            b"a b",
            b"a, b",
            b"a/b",
            b"a/",
            b"user@a",
            b"http://a",
            b"a?b",
            b"a#b",
            b"a\\b",
            b'"a"',
            b"<a>",
            b"a%",
            b"a%zz",
            b":80",
            b"a:b",
            b"a:-1",
            b"a:80:80",
            b"a:123456",
            b"a: 80",
            b"::1",
            b"[::1",
            b"::1]",
            b"[]",
            b"[::1]a",
            b"[fe80::1%eth0]",
            b"[a]b]",
            b"\xc3\xa9",
        )
    ],
    Refused("3.2", get(b"GET / HTTP/1.0", host=b"Host: a b\r\n"), 400, "host_invalid"),
    Refused("3.2.2", get(b"GET http://a/ HTTP/1.1", host=b"Host: b c\r\n"), 400, "host_invalid"),
]

BAD_FRAMING = [
    # Content-Length (6.3 rule 5; RFC 9110 8.6)
    *[
        Refused("6.3", post(b"Content-Length:" + length, body=b"hello"), 400, "content_length")
        for length in (
            b"",
            b" ",
            b" +5",
            b" -5",
            b" -0",
            b" 5 5",
            b" 5, 5",
            b" 5,5",
            b" 5, 6",
            b" 5,",
            b" ,5",
            b" 5;",
            b" 5.0",
            b" 5e0",
            b" 0x5",
            b" 5h",
            b" 5_0",
            b' "5"',
            b" five",
            b" \xb2",
            b" \xd9\xa5",
            b" 9223372036854775808",  # 2^63
            b" 18446744073709551615",
            b" 18446744073709551616",
            b" 18446744073709551621",  # 5 in 64 bits
            b" 99999999999999999999",
            b" " + b"0" * 5000 + b"5",
        )
    ],
    Refused("6.3", post(LENGTH, LENGTH, body=b"hello"), 400, "content_length_repeated"),
    Refused("6.3", post(LENGTH, b"content-length: 5", body=b"hello"), 400, "content_length_repeated"),
    Refused("6.3", post(LENGTH, b"Content-Length: 6", body=b"hello" + SMUGGLED), 400, "content_length_repeated"),
    Refused("6.3", post(b"Content-Length: 0", LENGTH, body=b"hello"), 400, "content_length_repeated"),
    Refused("6.3", post(LENGTH, b"X: y", b"Content-Length:", body=b"hello"), 400, "content_length_repeated"),
    Refused("6.3", get(b"GET / HTTP/1.1", b"Content-Length: -1"), 400, "content_length"),
    Refused("6.3", post(b"Content-Length: +5", version=b"1.0", body=b"hello"), 400, "content_length"),
    # Both (6.1, 6.3 rule 3)
    Refused("6.1", post(LENGTH, CODING, body=CHUNKS), 400, "content_length_and_transfer_encoding"),
    Refused("6.1", post(CODING, LENGTH, body=CHUNKS), 400, "content_length_and_transfer_encoding"),
    Refused("6.1", post(CODING, b"Content-Length: 0", body=CHUNKS), 400, "content_length_and_transfer_encoding"),
    Refused(
        "6.1", post(b"content-length: 5", b"TRANSFER-ENCODING: CHUNKED"), 400, "content_length_and_transfer_encoding"
    ),
    Refused("6.1", post(b"Transfer-Encoding: gzip", LENGTH), 400, "content_length_and_transfer_encoding"),
    Refused("6.1", post(b"Transfer-Encoding:", LENGTH), 400, "content_length_and_transfer_encoding"),
    Refused("6.1", post(LENGTH, CODING, version=b"1.0"), 400, "content_length_and_transfer_encoding"),
    # Transfer-Encoding (6.1, 6.3 rule 4, 7)
    Refused("6.1", post(CODING, version=b"1.0", body=CHUNKS), 400, "transfer_encoding_in_http_1_0"),
    Refused("6.1", post(b"Transfer-Encoding: gzip", version=b"1.0"), 400, "transfer_encoding_in_http_1_0"),
    *[
        Refused("6.3", post(b"Transfer-Encoding:" + coding, body=CHUNKS), 400, "transfer_encoding")
        for coding in (
            b"",
            b" ",
            b" chunked, gzip",
            b" chunked, identity",
            b" chunked, chunked",
            b" chunked,chunked",
            b" chunked,",
            b" ,chunked",
            b" , chunked",
            b" chunked, ,",
            b" chunked;a=b",
            b" chun ked",
            b" gzip chunked",
            b' "chunked"',
            b" [chunked]",
            b" \xa0chunked",
            b" chunked, gzip, chunked",
        )
    ],
    Refused("6.3", post(CODING, CODING, body=CHUNKS), 400, "transfer_encoding"),
    # A tab there is optional white space (5), but to the parser part of the coding: it refuses more than it has to.
    Refused("5", post(b"Transfer-Encoding: chunked\t", body=CHUNKS), 400, "malformed"),
    Refused("6.3", post(CODING, b"Transfer-Encoding: gzip", body=CHUNKS), 400, "transfer_encoding"),
    Refused("6.3", post(CODING, b"transfer-encoding: x", body=CHUNKS), 400, "transfer_encoding"),
    Refused("6.3", post(CODING, b"Transfer-Encoding:", body=CHUNKS), 400, "transfer_encoding"),
    Refused("6.3", post(b"Transfer-Encoding:", CODING, body=CHUNKS), 400, "transfer_encoding"),
    *[
        Refused("6.1", post(b"Transfer-Encoding: " + coding, body=CHUNKS), 501, "unknown_transfer_coding")
        for coding in (
            b"gzip",
            b"identity",
            b"gzip, chunked",
            b"gzip,chunked",
            b"gzip;q=1, chunked",
            b"identity, chunked",
            b"deflate, gzip, chunked",
            b"xchunked",
            b"chunkedx",
            b"chunked-",
            b"trailers",
            b"*",
        )
    ],
    Refused("6.1", post(b"Transfer-Encoding: gzip", CODING, body=CHUNKS), 501, "unknown_transfer_coding"),
]

REFUSED = [*BAD_REQUEST_LINES, *BAD_HEADERS, *BAD_FRAMING]

ACCEPTED = [
    # Request lines
    Accepted("3", get()),
    Accepted("3", get(b"GET /a/b?c=d&e=%20 HTTP/1.1"), target=b"/a/b?c=d&e=%20"),
    Accepted("3.2.1", get(b"GET //a/../b;c HTTP/1.1"), target=b"//a/../b;c"),
    Accepted("3.2.1", get(b"GET /? HTTP/1.1"), target=b"/?"),
    Accepted("3.2.1", get(b"GET /http://b/ HTTP/1.1"), target=b"/http://b/"),
    # Bytes that no URI has, and browsers send all the same: no two parsers end a target at one of them.
    Accepted("3.2.1", get(b'GET /a|b"<>^`{}\\[] HTTP/1.1'), target=b'/a|b"<>^`{}\\[]'),
    *[
        Accepted("RFC 9110 9", get(method + b" / HTTP/1.1"))
        for method in b"HEAD POST PUT DELETE OPTIONS TRACE PATCH PROPFIND REPORT PURGE M-SEARCH".split()
    ],
    # Methods are extensible, and tokens with case (RFC 9110 9.1).
    *[
        Accepted("RFC 9110 9.1", get(method + b" / HTTP/1.1"))
        for method in b"BAN VERSION-CONTROL BASELINE-CONTROL RPC_IN_DATA FOO get Get GETX GE DESCRIBE "
        b"!#$%&'*+-.^_`|~".split()
    ],
    # A later minor version is taken for 1.1 (RFC 9110 2.5).
    Accepted("RFC 9110 2.5", get(b"GET / HTTP/1.2")),
    Accepted("RFC 9110 2.5", get(b"BAN / HTTP/1.9")),
    # The other forms of targets
    Accepted("3.2.4", get(b"OPTIONS * HTTP/1.1"), target=b"*"),
    Accepted("3.2.2", get(b"GET http://b/c?d HTTP/1.1"), host=b"b", target=b"/c?d"),
    Accepted("3.2.2", get(b"GET HTTP://B:8080/ HTTP/1.1"), host=b"B:8080"),
    Accepted("3.2.2", get(b"GET https://b HTTP/1.1"), host=b"b"),
    Accepted("3.2.2", get(b"GET http://b?c HTTP/1.1"), host=b"b", target=b"/?c"),
    Accepted("3.2.2", get(b"GET http://[::1]:80/ HTTP/1.1"), host=b"[::1]:80"),
    Accepted("3.2.2", get(b"GET http://b/ HTTP/1.0", host=b""), host=b"b"),
    Accepted("3.2.4", get(b"OPTIONS http://b HTTP/1.1"), host=b"b", target=b"*"),
    Accepted("3.2.4", get(b"OPTIONS http://b/ HTTP/1.1"), host=b"b", target=b"/"),
    # Host
    *[
        Accepted("3.2", get(host=b"Host: %b\r\n" % host), host=host)
        for host in (
            b"127.0.0.1:8080",
            b"www.example.com",
            b"EXAMPLE.com.",
            b"a:",
            b"a:0",
            b"a_b",
            b"xn--e1afmkfd",
            b"a%20b",
            b"[::1]",
            b"[2001:db8::192.0.2.1]:443",
        )
    ],
    Accepted("3.2", get(host=b"hOsT:\t a \t\r\n")),
    Accepted("3.2", get(b"GET / HTTP/1.0")),
    Accepted("3.2", get(b"GET / HTTP/1.0", host=b""), host=b""),
    # Headers
    Accepted("5.1", get(b"GET / HTTP/1.1", b"X:a", b"X:", b"X: ", b"X:\t", b"x: b\t \t", b"Y:  a  b  ")),
    Accepted("5.1", get(b"GET / HTTP/1.1", b"!#$%&'*+-.^_`|~0aZ: b")),
    Accepted("RFC 9110 5.5", get(b"GET / HTTP/1.1", b"X: \x80\xff \xc3\xa9", b"Y: a\tb", b'Z: :"\\(,;')),
    # Bodies
    Accepted("6.3", post(LENGTH, body=b"hello"), Framing.LENGTH, b"hello"),
    Accepted("6.3", post(b"content-length:5", body=b"hello"), Framing.LENGTH, b"hello"),
    Accepted("6.3", post(b"Content-Length: \t5 \t", body=b"hello"), Framing.LENGTH, b"hello"),
    Accepted("6.3", post(b"Content-Length: 0005", body=b"hello"), Framing.LENGTH, b"hello"),
    Accepted("6.3", post(LENGTH, body=b"hello", version=b"1.0"), Framing.LENGTH, b"hello"),
    Accepted("6.3", post(LENGTH, body=b"\r\n\r\n\r"), Framing.LENGTH, b"\r\n\r\n\r"),
    Accepted("6.3", get(b"GET / HTTP/1.1", LENGTH) + b"hello", Framing.LENGTH, b"hello"),
    Accepted("6.3", post(b"Content-Length: 0")),
    Accepted("6.3", post()),
    Accepted("6.1", post(CODING, body=CHUNKS), Framing.CHUNKED, CHUNKS),
    Accepted("6.1", post(b"transfer-encoding:CHUNKED ", body=CHUNKS), Framing.CHUNKED, CHUNKS),
    Accepted("6.1", get(b"GET / HTTP/1.1", CODING) + CHUNKS, Framing.CHUNKED, CHUNKS),
    Accepted("7.1", post(CODING, body=b"0\r\n\r\n"), Framing.CHUNKED, b"0\r\n\r\n"),
    Accepted(
        "RFC 9110 7.8",
        post(b"Connection: upgrade", b"Upgrade: websocket", LENGTH, body=b"hello"),
        Framing.LENGTH,
        b"hello",
    ),
]

# Bodies of requests with Transfer-Encoding: chunked. The faults come after the head, which may be on its way by then;
# what must not happen is that the origin sees a whole request, or another one in what follows.
BAD_CHUNKS: list[tuple[str, bytes, str]] = [
    *[
        ("7.1", size + b"\r\nhello\r\n0\r\n\r\n", "bad_chunk_size")
        for size in (
            b"",
            b" 5",
            b"5 ",
            b"5\t",
            b"+5",
            b"-5",
            b"0x5",
            b"5h",
            b"5,",
            b"g",
            b"5_0",
            b"5\x00",
            b"\xb2",
            b"5\r",
            b"\r\n5",
        )
    ],
    ("7.1", b"5\nhello\r\n0\r\n\r\n", "bad_chunk_size"),
    ("7.1", b"5\rhello\r\n0\r\n\r\n", "bad_chunk_size"),
    ("7.1", b"5hello", "bad_chunk_size"),
    ("7.1", b"5\r\nhello\r\n\r\n\r\n", "bad_chunk_size"),
    ("7.1", b"5\r\nhello\r\n0\r\n0\r\n\r\n", "bad_trailer"),
    ("7.1", b"1000000000000000\r\n", "chunk_size_too_large"),
    ("7.1", b"10000000000000005\r\nhello\r\n0\r\n\r\n", "chunk_size_too_large"),
    ("7.1", b"0000000000000005\r\nhello\r\n0\r\n\r\n", "chunk_size_too_large"),
    ("7.1", b"ffffffffffffffff\r\n", "chunk_size_too_large"),
    ("7.1", b"5\r\nhello0\r\n\r\n", "bad_chunk_end"),
    ("7.1", b"5\r\nhello!\r\n0\r\n\r\n", "bad_chunk_end"),
    ("7.1", b"5\r\nhello\n0\r\n\r\n", "bad_chunk_end"),
    ("7.1", b"5\r\nhello\r0\r\n\r\n", "bad_chunk_end"),
    ("7.1", b"5\r\nhello\r\r0\r\n\r\n", "bad_chunk_end"),
    ("7.1", b"6\r\nhello\r\n0\r\n\r\n", "bad_chunk_end"),
    *[
        ("7.1.1", b"5" + extension + b"\r\nhello\r\n0\r\n\r\n", "bad_chunk_size")
        for extension in (
            b";",
            b";;",
            b";=b",
            b";a=",
            b';a="b',
            b';a="b"c',
            b';a="\x00"',
            b";a=b;",
            b";a\nb",
            b";\n",
            b";a\r",
            b";a,b",
        )
    ],
    ("7.1.1", b"5;" + b"a" * 300 + b"\r\nhello\r\n0\r\n\r\n", "chunk_line_too_long"),
    ("7.1.1", b"5" + b";a" * 200 + b"\r\nhello\r\n0\r\n\r\n", "chunk_line_too_long"),
    *[
        ("7.1.2", b"0\r\n" + trailer + b"\r\n\r\n", "bad_trailer")
        for trailer in (
            b"X",
            b"X : a",
            b": a",
            b"X Y: a",
            b"X: a\x00",
            b"X: a\r",
            b"X: a\nY: b",
            b"X: a\r\n b",
            b" X: a",
            b"X: a\x7f",
            b"\xe9: a",
            b"\n",
            b"\r",
            b"GET /smuggled HTTP/1.1",
        )
    ],
    ("7.1.2", b"0\r\nX: " + b"a" * 8192 + b"\r\n\r\n", "trailer_too_long"),
    ("7.1.2", b"0\r\n" + b"X: a\r\n" * 1366, "trailer_too_long"),
    *[
        ("RFC 9110 6.5.1", b"0\r\n" + trailer + b"\r\n\r\n", "forbidden_trailer")
        for trailer in (b"Content-Length: 5", b"transfer-encoding: chunked", b"HOST: b", b"X: a\r\nHost: b")
    ],
]
"""Section, body, reason."""
