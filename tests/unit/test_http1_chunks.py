"""Chunked bodies: their end under any split, refusals at the first bad byte, and agreement with httptools."""

import re
from typing import Final

import httptools
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from tests.unit.http1_corpus import BAD_CHUNKS

NEXT: Final = b"GET /next HTTP/1.1\r\n"


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {len(data)})
    return [data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def scan_all(pieces: list[bytes]) -> tuple[int, bytes, bool]:
    """Scan until the body ends; return its length, what it carries, and whether it ended. Raises BadMessage."""
    scanner, size, payload = ChunkScanner(), 0, list[bytes | memoryview]()
    for piece in pieces:
        taken = scanner.scan(memoryview(piece), payload)
        size += taken
        if taken < len(piece):
            assert scanner.is_complete
            break
    return size, b"".join(payload), scanner.is_complete


@pytest.mark.parametrize(("section", "body", "reason"), BAD_CHUNKS)
def test_bad_chunks_are_refused_under_any_split(section: str, body: bytes, reason: str) -> None:
    for pieces in ([body], [body[i : i + 1] for i in range(len(body))]):
        with pytest.raises(BadMessage) as fault:
            scan_all(pieces)
        assert (fault.value.status, fault.value.reason) == (400, reason)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        (b"", b"\r"),
        (b"", b";"),
        (b"", b"\xb2"),
        (b"5 ", b"\r"),
        (b"5", b"\n"),
        (b"5", b"h"),
        (b"5\r", b"\r"),
        (b"5\r", b"h"),
        (b"123456789abcdef", b"0"),
        (b"5;a ", b"\r"),
        (b"5;a ", b"b"),
        (b"5;a", b"\n"),
        (b"5;", b"="),
        (b"5;a=", b"\r"),
        (b"5;a=", b";"),
        (b'5;a="b', b"\0"),
        (b'5;a="b', b"\r"),
        (b'5;a="b\\', b"\n"),
        (b'5;a="b\\"', b"\n"),
        (b'5;a="b"', b"c"),
        (b"5;" + b"a" * 253, b"a"),
        (b"5\r\nhello", b"!"),
        (b"5\r\nhello", b"\n"),
        (b"5\r\nhello\r", b"0"),
        (b"5\r\nhello\r", b"\r\n5\r\n"),
        (b"5\r\nhello\r\n", b"\r"),
        (b"5\r\nhello", b"\r\n5\n"),
        (b"5\r\nhello", b"\n5\r\n"),
        (b"0\r\n", b":"),
        (b"0\r\n", b"\n"),
        (b"0\r\n", b" "),
        (b"0\r\n\r", b"\r"),
        (b"0\r\nX", b"\r"),
        (b"0\r\nX", b" "),
        (b"0\r\nX:", b"\0"),
        (b"0\r\nX: a", b"\n"),
        (b"0\r\nX: a\r", b"b"),
        (b"0\r\nX: a\r\n", b"\t"),
        (b"0\r\nX:" + b"a" * 8189, b"a"),
        (b"0\r\nHost: a\r", b"\n"),
    ],
)
def test_a_bad_byte_is_refused_when_it_comes_and_no_sooner(good: bytes, bad: bytes) -> None:
    for pieces in ([good], [bytes([byte]) for byte in good]):
        scanner = ChunkScanner()
        for piece in pieces:
            assert scanner.scan(piece) == len(piece)
        with pytest.raises(BadMessage):
            scanner.scan(bad)
    with pytest.raises(BadMessage):
        ChunkScanner().scan(good + bad)


@pytest.mark.parametrize(
    ("body", "payload"),
    [
        (b"0\r\n\r\n", b""),
        (b"000\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"005\r\nhello\r\n00\r\n\r\n", b"hello"),
        (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0\r\n\r\n", b"01234567890123456789"),
        (b"2\r\n\r\n\r\n0\r\n\r\n", b"\r\n"),
        (b'5;a;b=c;d="e \\" ; \xff";f\r\nhello\r\n0;last\r\n\r\n', b"hello"),
        (b'5 ;a\t= b ; c ="d"\r\nhello\r\n0\t; e\r\n\r\n', b"hello"),
        (b"5;a=" + b"b" * 250 + b"\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"0\r\nX: a\r\nY:\r\nZ:\t\xff \r\n\r\n", b""),
        (b"0\r\nX: " + b"a" * 8185 + b"\r\n\r\n", b""),
    ],
)
def test_good_bodies(body: bytes, payload: bytes) -> None:
    for pieces in ([body + NEXT], [bytes([byte]) for byte in body + NEXT]):
        assert scan_all(pieces) == (len(body), payload, True)


def test_a_huge_chunk_is_passed_over_without_its_bytes_being_there() -> None:
    class Huge(bytes):
        def __len__(self) -> int:
            return 0xFFFFFFFFFFFFFFF

    scanner = ChunkScanner()
    assert scanner.scan(b"fffffffffffffff\r\n") == 17
    assert scanner.scan(Huge()) == 0xFFFFFFFFFFFFFFF
    assert scanner.scan(b"\r\n0\r\n\r\n") == 7
    assert scanner.is_complete


def test_nothing_is_taken_after_the_end_nor_of_nothing() -> None:
    scanner = ChunkScanner()
    assert scanner.scan(b"") == 0
    assert scanner.scan(b"0\r\n\r\n") == 5
    assert scanner.scan(NEXT) == 0


# --- Any body, any split ---

TOKENS = st.text("abcXYZ0-!~", min_size=1, max_size=4).map(str.encode)
QUOTED = st.sampled_from([b'""', b'"a b"', b'"\\""', b'"\xff;,="'])
EXTENSIONS = st.lists(
    st.one_of(
        st.builds(b";%b".__mod__, TOKENS),
        st.builds(b";%b=%b".__mod__, st.tuples(TOKENS, TOKENS)),
        st.builds(b";%b=%b".__mod__, st.tuples(TOKENS, QUOTED)),
    ),
    max_size=2,
).map(b"".join)
TRAILERS = st.lists(
    st.builds(b"%b:%b\r\n".__mod__, st.tuples(TOKENS, st.sampled_from([b"", b" a", b"\tb c", b" \x80", b" "]))),
    max_size=2,
).map(b"".join)
CUTS = st.lists(st.integers(0, 400), max_size=12)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Draw a good body; return it with what it carries."""
    body, payload = b"", b""
    for data in draw(st.lists(st.binary(min_size=1, max_size=40) | st.just(b"\r\n0\r\n\r\n"), max_size=4)):
        size = draw(st.sampled_from([b"%x", b"%X", b"0%x", b"%06x"])) % len(data)
        body += size + draw(EXTENSIONS) + b"\r\n" + data + b"\r\n"
        payload += data
    last = draw(st.sampled_from([b"0", b"000"])) + draw(EXTENSIONS)
    return body + last + b"\r\n" + draw(TRAILERS) + b"\r\n", payload


@settings(max_examples=250, deadline=None)
@given(bodies(), st.binary(max_size=8), CUTS)
def test_a_body_ends_at_its_last_byte_under_any_split(body: tuple[bytes, bytes], after: bytes, cuts: list[int]) -> None:
    raw, payload = body
    assert scan_all(pieces_of(raw + after, cuts)) == (len(raw), payload, True)
    assert scan_all(pieces_of(raw[:-1], cuts)) == (len(raw) - 1, payload, False)


# --- httptools as the judge ---


class Judge:
    """httptools' reading of a body: what it carries, and whether it ended or was refused."""

    def __init__(self, body: bytes) -> None:
        self.payload = b""
        self.is_complete = False
        self.is_refused = False
        parser = httptools.HttpRequestParser(self)
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        try:
            parser.feed_data(body)
        except httptools.HttpParserError:
            self.is_refused = True

    def on_body(self, data: bytes) -> None:
        self.payload += data

    def on_message_complete(self) -> None:
        self.is_complete = True


@st.composite
def spoilt_bodies(draw: st.DrawFn) -> bytes:
    """Draw a body with some bytes changed, left out, put in or moved."""
    raw = draw(bodies())[0]
    for _ in range(draw(st.integers(1, 3))):
        at, upto = draw(st.integers(0, len(raw))), draw(st.integers(0, 2))
        put = draw(
            st.sampled_from([b"", b"\r", b"\n", b"\r\n", b" ", b"0", b"f", b";", b'"', b":", b"\0"])
            | st.binary(max_size=2)
        )
        raw = raw[:at] + put + raw[at + upto :]
    return raw


@settings(max_examples=400, deadline=None)
@given(spoilt_bodies(), CUTS)
@example(b"5\r\nhello\r\n0\r\nX: y\r\n\r\n", [])
@example(b"5;a\nhello\r\n0\r\n\r\n", [2, 4])
@example(b"5\r\nhello0\r\n\r\n", [])
def test_what_is_accepted_httptools_reads_in_the_same_way(raw: bytes, cuts: list[int]) -> None:
    try:
        whole = scan_all([raw])
    except BadMessage:
        whole = None
    try:
        split = scan_all(pieces_of(raw, cuts))
    except BadMessage:
        split = None
    assert split == whole
    if whole is None:
        return
    size, payload, is_complete = whole
    judge = Judge(raw[:size])
    if judge.is_refused:  # httptools refuses white space that must be accepted (RFC 9112 7.1.1)
        assert re.search(rb"[ \t];|[;=][ \t]|[ \t]=", raw)
        return
    assert (judge.payload, judge.is_complete) == (payload, is_complete)
    assert not (is_complete and Judge(raw[: size - 1]).is_complete)


@settings(max_examples=250, deadline=None)
@given(st.binary(max_size=60), CUTS)
def test_any_bytes_are_a_body_so_far_or_a_bad_message(raw: bytes, cuts: list[int]) -> None:
    try:
        scan_all(pieces_of(raw, cuts))
    except BadMessage as fault:
        assert fault.status == 400
