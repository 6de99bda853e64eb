"""Responses: refused ones, how their bodies end, and that any bytes are a response or a bad message."""

import time
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.wire.http1 import next_response, parse_response, response_bytes
from app.wire.http1_faults import REASONS, BadMessage
from app.wire.http1_framing import Framing


def response(*headers: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK", 200, b"OK"),
        (b"HTTP/1.0 404 Not Found", 404, b"Not Found"),
        (b"HTTP/1.1 200 ", 200, b""),
        (b"HTTP/1.1 200", 200, b""),
        (b"HTTP/1.1 100 Continue", 100, b"Continue"),
        (b"HTTP/1.1 599 \xc3\xa9\tb", 599, b"\xc3\xa9\tb"),
        (b"HTTP/1.1 299  a ", 299, b" a "),
    ],
)
def test_status_lines(line: bytes, status: int, reason: bytes) -> None:
    head = parse_response(response(line=line), b"GET")
    assert (head.status, head.reason) == (status, reason)
    assert head.version == line[5:8]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1 20",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 2x0 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 999 OK",
        b"HTTP/1.1 200OK",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1\t200 OK",
        b"HTTP/1.1 200\tOK",
        b" HTTP/1.1 200 OK",
        b"http/1.1 200 OK",
        b"HTTP/0.9 200 OK",
        b"HTTP/2.0 200 OK",
        b"HTTP/2 200 OK",
        b"ICE/1.0 200 OK",
        b"RTSP/1.0 200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 O\0K",
        b"HTTP/1.1 200 O\x7fK",
        b"HTTP/1.1 200 O\rK",
        b"HTTP/1.1 200 O\nK: v",
        b"<html>",
    ],
)
def test_a_bad_status_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_response(response(line=line), b"GET")
    assert (fault.value.status, fault.value.reason) == (502, "status_line")


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([b"Content-Length: 5", b"Transfer-Encoding: chunked"], "content_length_and_transfer_encoding"),
        ([b"Transfer-Encoding: chunked", b"Content-Length: 5"], "content_length_and_transfer_encoding"),
        ([b"Content-Length: 5", b"Content-Length: 6"], "content_length_repeated"),
        ([b"Content-Length: 5", b"Content-Length: 5"], "content_length_repeated"),
        ([b"Content-Length: 5, 5"], "content_length"),
        ([b"Content-Length: -5"], "content_length"),
        ([b"Content-Length:"], "content_length"),
        ([b"Content-Length: 18446744073709551615"], "content_length"),
        ([b"Transfer-Encoding: gzip"], "unknown_transfer_coding"),
        ([b"Transfer-Encoding: gzip, chunked"], "unknown_transfer_coding"),
        ([b"Transfer-Encoding: identity"], "unknown_transfer_coding"),
        ([b"Transfer-Encoding: chunked, gzip"], "transfer_encoding"),
        ([b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"], "transfer_encoding"),
        ([b"Transfer-Encoding:"], "transfer_encoding"),
        ([b"X: a", b" b"], "obs_fold"),
        ([b" X: a"], "obs_fold"),
        ([b"X : a"], "space_before_colon"),
        ([b": a"], "header_name"),
        ([b"X"], "header_without_colon"),
        ([b"X: \0"], "header_value"),
        ([b"X: a\nY: b"], "bare_lf"),
        ([b"X: a\rY: b"], "bare_cr"),
        ([b"X: a\r\n\r\nHTTP/1.1 200 OK"], "incomplete_head"),
    ],
)
@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK", b"HTTP/1.1 304 Not Modified"])
def test_a_bad_head_is_a_502(headers: list[bytes], reason: str, line: bytes) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_response(response(*headers, line=line), b"GET")
    assert (fault.value.status, fault.value.reason) == (502, reason)


def test_http_1_0_has_no_transfer_codings() -> None:
    with pytest.raises(BadMessage) as fault:
        parse_response(response(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK"), b"GET")
    assert (fault.value.status, fault.value.reason) == (502, "transfer_encoding_in_http_1_0")


@pytest.mark.parametrize("headers", [[], [b"Upgrade: a"], [b"Connection: upgrade"], [b"Content-Length: 5"]])
def test_a_101_says_what_it_switches_to(headers: list[bytes]) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_response(response(*headers, line=b"HTTP/1.1 101 Switching Protocols"), b"GET")
    assert (fault.value.status, fault.value.reason) == (502, "switching_without_upgrade")


LENGTH, CODING = b"Content-Length: 5", b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    ("method", "status", "header", "framing", "length"),
    [
        # RFC 9112 6.3, rule by rule
        (b"HEAD", 200, LENGTH, Framing.NONE, 0),
        (b"HEAD", 200, CODING, Framing.NONE, 0),
        (b"HEAD", 200, b"X: y", Framing.NONE, 0),
        (b"GET", 100, b"X: y", Framing.NONE, 0),
        (b"GET", 103, b"Link: a", Framing.NONE, 0),
        (b"GET", 101, b"Connection: upgrade\r\nUpgrade: a", Framing.NONE, 0),
        (b"GET", 204, LENGTH, Framing.NONE, 0),
        (b"GET", 204, CODING, Framing.NONE, 0),
        (b"GET", 304, LENGTH, Framing.NONE, 0),
        (b"GET", 304, b"X: y", Framing.NONE, 0),
        (b"GET", 200, CODING, Framing.CHUNKED, 0),
        (b"GET", 200, b"transfer-encoding:Chunked ", Framing.CHUNKED, 0),
        (b"GET", 200, LENGTH, Framing.LENGTH, 5),
        (b"GET", 404, LENGTH, Framing.LENGTH, 5),
        (b"GET", 200, b"Content-Length: 9223372036854775807", Framing.LENGTH, (1 << 63) - 1),
        (b"GET", 200, b"Content-Length: 0", Framing.NONE, 0),
        (b"GET", 205, b"Content-Length: 0", Framing.NONE, 0),
        (b"GET", 200, b"X: y", Framing.UNTIL_CLOSE, 0),
        (b"POST", 500, b"X: y", Framing.UNTIL_CLOSE, 0),
    ],
)
def test_how_the_body_ends(method: bytes, status: int, header: bytes, framing: Framing, length: int) -> None:
    head = parse_response(response(header, line=b"HTTP/1.1 %d X" % status), method)
    assert (head.framing, head.content_length) == (framing, length)
    assert head.is_persistent == (framing is not Framing.UNTIL_CLOSE)


@pytest.mark.parametrize(
    ("line", "headers", "is_persistent"),
    [
        (b"HTTP/1.1 200 OK", [LENGTH], True),
        (b"HTTP/1.1 200 OK", [LENGTH, b"Connection: Close"], False),
        (b"HTTP/1.0 200 OK", [LENGTH], False),
        (b"HTTP/1.0 200 OK", [LENGTH, b"Connection: Keep-Alive"], True),
        (b"HTTP/1.0 200 OK", [b"Connection: keep-alive"], False),
    ],
)
def test_whether_the_connection_persists(line: bytes, headers: list[bytes], is_persistent: bool) -> None:
    assert parse_response(response(*headers, line=line), b"GET").is_persistent == is_persistent


def test_an_upgrade_and_what_connection_lists() -> None:
    raw = response(b"Connection: Upgrade, X-A", b"Upgrade: WebSocket", line=b"HTTP/1.1 101 Switching Protocols")
    head = parse_response(raw, b"GET")
    assert head.upgrade == b"websocket"
    assert head.connection_tokens == {b"upgrade", b"x-a"}


def test_headers_keep_their_order_and_repetitions() -> None:
    head = parse_response(response(b"Set-Cookie: a", b"X:", b"set-cookie: b \t", b"Host: a", b"Host: b"), b"GET")
    expected = [(b"Set-Cookie", b"a"), (b"X", b""), (b"set-cookie", b"b"), (b"Host", b"a"), (b"Host", b"b")]
    assert head.headers == expected


def test_a_response_is_written() -> None:
    assert (
        response_bytes(404, b"Not Found", [(b"A", b"b"), (b"C", b"")])
        == b"HTTP/1.1 404 Not Found\r\nA: b\r\nC: \r\n\r\n"
    )
    assert response_bytes(200, b"", []) == b"HTTP/1.1 200 \r\n\r\n"


LINES = st.one_of(
    st.sampled_from([LENGTH, CODING, b"Connection: close", b"Upgrade: a", b"Connection: upgrade", b"X: y\t", b" z"]),
    st.binary(max_size=12),
)
STATUS_LINES = st.one_of(
    st.builds(b"HTTP/1.%d %d%b".__mod__, st.tuples(st.integers(0, 1), st.integers(99, 600), st.binary(max_size=4))),
    st.builds(b"HTTP/1.1 %d OK".__mod__, st.integers(100, 599)),
)


@settings(max_examples=400, deadline=None)
@given(st.builds(lambda line, lines: response(*lines, line=line), STATUS_LINES, st.lists(LINES, max_size=4)))
def test_any_bytes_mean_the_same_when_written_again_or_are_refused(raw: bytes) -> None:
    for method in (b"GET", b"HEAD"):
        try:
            head = parse_response(raw, method)
        except BadMessage as fault:
            assert fault.status == 502
            assert fault.reason in REASONS
            continue
        again = parse_response(response_bytes(head.status, head.reason, head.headers), method)
        assert (again.status, again.reason, again.headers) == (head.status, head.reason, head.headers)
        assert (again.framing, again.content_length) == (head.framing, head.content_length)


@pytest.mark.parametrize(
    "received", [b"SSH-2.0-x\r\n", b"S", b"HTTX", b"\r\n", b"HTTP/2.0 200", b"HTTP/1.1\t200", b"\x16\x03\x01"]
)
def test_what_cannot_become_a_head_is_refused_at_once(received: bytes) -> None:
    with pytest.raises(BadMessage) as fault:
        next_response(received, b"GET", 1000)
    assert (fault.value.status, fault.value.reason) == (502, "status_line")


@pytest.mark.parametrize(
    ("received", "reason"),
    [
        (b"HTTP/1.1 abc\r\n", "status_line"),
        (b"HTTP/1.1 600 Odd\r\nX: 1\r\n", "status_line"),
        (b"HTTP/1.1 200 OK\n", "bare_lf"),
        (b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "bare_lf"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\n\nok", "bare_lf"),
    ],
)
def test_a_faulty_line_is_refused_when_it_is_there(received: bytes, reason: str) -> None:
    with pytest.raises(BadMessage) as fault:
        next_response(received, b"GET", 1000)
    assert (fault.value.status, fault.value.reason) == (502, reason)


def test_a_status_line_that_is_taken_leniently_is_no_fault_so_far() -> None:
    assert next_response(b"HTTP/1.1 600 Odd\r\nX: 1\r\n", b"GET", 1000, ["any_status"]) is None


def test_a_head_that_comes_byte_by_byte_is_awaited() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\n"
    assert [next_response(head[:size], b"GET", 1000) for size in range(len(head))] == [None] * len(head)


PIECES = st.sampled_from(
    [b"HTTP/1.1 ", b"HTTP", b"200 OK", b"600 Odd", b"\r", b"\n", b"\r\n", b"X-A: 1", b":", b"x", b"\r\n\r\n"]
)
LENIENT = st.sampled_from([(), ("any_status", "leading_empty_lines")])


def result_of(work: Callable[[], object]) -> object:
    try:
        return work()
    except BadMessage as bad:
        return bad.status, bad.reason


@given(st.lists(PIECES, max_size=20), LENIENT, st.sampled_from([10, 40, 1000]))
def test_a_search_that_is_continued_finds_what_one_from_the_beginning_finds(
    pieces: list[bytes], lenient: tuple[str, ...], limit: int
) -> None:
    received = b""
    for piece in pieces:
        searched, received = len(received), received + piece
        found = result_of(lambda: next_response(received, b"GET", limit, lenient, searched))  # noqa: B023
        assert found == result_of(lambda: next_response(received, b"GET", limit, lenient))  # noqa: B023
        if found is not None:
            return


def test_a_head_that_comes_in_many_pieces_is_searched_once() -> None:
    head = response(*[b"X-%d: %b" % (number, b"a" * 20) for number in range(2000)])[:-4]
    begun = [head[:size] for size in range(100, len(head), 100)]

    def seconds(work: Callable[[bytes], object]) -> float:
        before = time.process_time()
        assert not any([work(received) for received in begun])
        return time.process_time() - before

    limit = len(head)
    anew = seconds(lambda received: next_response(received, b"GET", limit))
    assert seconds(lambda received: next_response(received, b"GET", limit, (), len(received) - 100)) < anew / 3
