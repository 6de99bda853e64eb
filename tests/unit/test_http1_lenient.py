"""What is taken leniently is made regular; what is ambiguous stays refused."""

import pytest

from app.wire.http1 import next_response, parse_response
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing
from app.wire.http1_lenient import (
    ANY_STATUS,
    FOLDED_HEADERS,
    LEADING_EMPTY_LINES,
    PADDED_CHUNK_SIZES,
    REPEATED_CONTENT_LENGTH,
)

ALL = (REPEATED_CONTENT_LENGTH, FOLDED_HEADERS, LEADING_EMPTY_LINES, ANY_STATUS, PADDED_CHUNK_SIZES)


def response(*headers: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return b"\r\n".join([line, *headers, b"", b""])


@pytest.mark.parametrize(
    "headers",
    [
        [b"Content-Length: 5", b"Content-Length: 5"],
        [b"Content-Length: 5", b"A: b", b"CONTENT-LENGTH:5"],
        [b"Content-Length: 5, 5,5"],
        [b"Content-Length: 5 ,\t5"],
        [b"Content-Length: 5", b"Content-Length: 5, 5"],
        [b"Content-Length:", b" 5", b"Content-Length: 5,", b"\t5"],
    ],
)
def test_lengths_that_agree_are_one(headers: list[bytes]) -> None:
    head = parse_response(response(*headers), b"GET", ALL)
    assert (head.framing, head.content_length) == (Framing.LENGTH, 5)
    assert [value for name, value in head.headers if name.lower() == b"content-length"] == [b"5"]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([b"Content-Length: 5", b"Content-Length: 6"], "content_length_repeated"),
        ([b"Content-Length: 5", b"Content-Length: 05"], "content_length_repeated"),
        ([b"Content-Length: 5, 6"], "content_length"),
        ([b"Content-Length: 5,"], "content_length"),
        ([b"Content-Length: 5 5"], "content_length"),
        ([b"Content-Length: 5, 5", b"Content-Length: +5"], "content_length_repeated"),
        ([b"Content-Length: 5", b"Content-Length: 5", b"Transfer-Encoding: chunked"], None),
        ([b"Content-Length: 5", b"Transfer-Encoding:", b" chunked"], None),
        ([b" A: b"], "obs_fold"),
        ([b"A: b", b" c\0d"], None),
        ([b"A: b\r", b" c"], None),
    ],
)
def test_what_is_ambiguous_stays_refused(headers: list[bytes], reason: str | None) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_response(response(*headers), b"GET", ALL)
    assert fault.value.status == 502
    assert reason in (None, fault.value.reason)


@pytest.mark.parametrize("headers", [[], [b"A: b"], [b"A: b", b" "]])
def test_a_regular_head_stays_as_it_is(headers: list[bytes]) -> None:
    for line in (b"HTTP/1.1 100 Continue", b"HTTP/1.1 200 OK"):
        assert parse_response(response(*headers, line=line), b"GET", ALL).headers == [(b"A", b"b")] * bool(headers)


def test_a_folded_value_has_single_spaces() -> None:
    head = parse_response(response(b"A: b \t", b"  c", b"\td", b" ", b"E: f"), b"GET", ALL)
    assert head.headers == [(b"A", b"b c d"), (b"E", b"f")]


def test_a_fold_is_no_part_of_the_body() -> None:
    found = next_response(b"\r\n" + response(b"A: b", b" c") + b"\r\n body\r\n", b"GET", 1000, ALL)
    assert found is not None
    assert (found[0].headers, found[1]) == ([(b"A", b"b c")], b"\r\n body\r\n")


@pytest.mark.parametrize("line", [b"HTTP/1.1 600 OK", b"HTTP/1.1 999", b"HTTP/1.0 700 x"])
def test_any_status_has_three_digits(line: bytes) -> None:
    assert parse_response(response(line=line), b"GET", (ANY_STATUS,)).status == int(line[9:12])
    for bad in (line[:9] + b"0" + line[10:], line[:12] + b"0", line[:11]):
        with pytest.raises(BadMessage):
            parse_response(response(line=bad), b"GET", (ANY_STATUS,))


def test_empty_lines_have_a_bound() -> None:
    assert next_response(b"\r\n" * 10, b"GET", 100, ALL) is None
    with pytest.raises(BadMessage):
        next_response(b"\r\n" * 51, b"GET", 100, ALL)
