"""The parsers of chunks and of heads against a plain reference, each with ten thousand spoilt messages a run."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.wire.http1 import parse_request
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing
from tests.unit.http1_corpus import ACCEPTED
from tests.unit.http1_reference import Bad, read_chunks, read_head

INPUTS = 10_000
INPUTS_AT_ONCE = 20
"""Drawn together: drawing costs more than both readings of a message."""
RECIPE_BYTES = 14
PIECES = [
    *[b"", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b"  ", b"\0", b"\x7f", b"\x80", b"\xff"],
    *[b"0", b"1", b"5", b"a", b"F", b"g", b"x", b"00", b"0" * 15, b"f" * 16, b"+5", b"-1", b"0x5", b"5_0"],
    *[b";", b";a", b";a=b", b'"', b'="x"', b"\\", b",", b":", b"=", b"#", b"/", b"?", b"%41", b"%", b"[::1]", b"@"],
    *[b"X: y\r\n", b"Host: a\r\n", b"Host: b\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"],
    *[b"chunked", b"close", b"keep-alive", b"Connection: ", b"HTTP/1.0", b"HTTP/1.1", b"HTTP/2.0", b"GET", b"BREW"],
]
GOOD_BODIES = [
    b"0\r\n\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\nX: y\r\n\r\n",
    b'5;a;b=c;d="e \\" ; \xff";f\r\nhello\r\n0;last\r\n\r\n',
    b'5 ;a\t= b ; c ="d"\r\nhello\r\n0\t; e\r\nY:\r\nZ:\t\xff \r\n\r\n',
    b"2;" + b"e" * 250 + b"\r\n\r\n\r\n0\r\n\r\n",
]
GOOD_HEADS = sorted({case.raw[: case.raw.index(b"\r\n\r\n") + 4] for case in ACCEPTED})
SIZE = INPUTS_AT_ONCE * RECIPE_BYTES
RECIPES = st.binary(min_size=SIZE, max_size=SIZE).map(
    lambda drawn: [drawn[start : start + RECIPE_BYTES] for start in range(0, SIZE, RECIPE_BYTES)]
)


def spoilt(good: list[bytes], recipe: bytes) -> bytes:
    """Return a good message after up to three edits.

    The recipe is its number, how many edits, and of each: where, in two bytes, how much to leave out, what to put in.
    """
    raw = good[recipe[0] % len(good)]
    for step in range(2, 2 + recipe[1] % 4 * 4, 4):
        where, more, out, put = recipe[step : step + 4]
        at = (where * 256 + more) % (len(raw) + 1)
        raw = raw[:at] + PIECES[put % len(PIECES)] + raw[at + out % 4 :]
    return raw


@settings(max_examples=INPUTS // INPUTS_AT_ONCE, deadline=None)
@given(RECIPES)
@example([bytes([number, 0]) for number in range(len(GOOD_BODIES))])
def test_chunks_are_read_as_the_grammar_says(recipes: list[bytes]) -> None:
    for recipe in recipes:
        check_chunks(spoilt(GOOD_BODIES, recipe))


def check_chunks(raw: bytes) -> None:
    try:
        expected = read_chunks(raw)
    except Bad:
        expected = None
    scanner, payload = ChunkScanner(), list[bytes | memoryview]()
    try:
        size = scanner.scan(raw, payload)
        found = size, b"".join(payload), scanner.is_complete
    except BadMessage:
        found = None
    assert found == expected, raw


@settings(max_examples=INPUTS // INPUTS_AT_ONCE, deadline=None)
@given(RECIPES)
@example([bytes([number, 0]) for number in range(len(GOOD_HEADS))])
def test_heads_are_read_as_the_grammar_says(recipes: list[bytes]) -> None:
    for recipe in recipes:
        check_head(spoilt(GOOD_HEADS, recipe).lstrip(b"\r\n"))


def check_head(raw: bytes) -> None:
    try:
        expected = read_head(raw)
    except Bad:
        expected = None
    try:
        found = parse_request(raw)
    except BadMessage:
        found = None
    assert (found is None) == (expected is None), raw
    if found is None or expected is None:
        return
    assert (found.method, found.target, found.version) == (expected.method, expected.target, expected.version), raw
    assert (found.headers, found.host) == (expected.headers, expected.host), raw
    assert (found.framing is Framing.CHUNKED, found.content_length) == (expected.is_chunked, expected.content_length)
    assert found.is_persistent == expected.is_persistent, raw
