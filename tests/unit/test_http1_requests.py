"""Requests: the corpus, the meaning of heads, and that an accepted head is unambiguous."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.wire import http1, http1_faults
from app.wire.http1 import Headers, RequestHead, parse_request, request_bytes
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing
from tests.unit.http1_corpus import ACCEPTED, BAD_CHUNKS, REFUSED, Accepted, Refused, get, post


def head_of(raw: bytes) -> bytes:
    return raw[: raw.index(b"\r\n\r\n") + 4]


def parsed(*headers: bytes, version: bytes = b"1.1") -> RequestHead:
    return parse_request(post(*headers, version=version))


# --- The corpus ---


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.section}:{case.raw[:60]!r}")
def test_refused(case: Refused) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_request(head_of(case.raw))
    assert (fault.value.status, fault.value.reason) == (case.status, case.reason)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: f"{case.section}:{case.raw[:60]!r}")
def test_accepted(case: Accepted) -> None:
    head = parse_request(head_of(case.raw))
    assert (head.framing, head.host, head.target) == (case.framing, case.host, case.target)
    assert len(head_of(case.raw) + case.body) == len(case.raw)
    if head.framing is Framing.LENGTH:
        assert head.content_length == len(case.body)
    elif head.framing is Framing.CHUNKED:
        scanner = ChunkScanner()
        assert scanner.scan(case.body + b"GET") == len(case.body)
        assert scanner.is_complete
    else:
        assert head.content_length == 0


def test_every_reason_is_in_the_table_and_seen() -> None:
    seen = {(case.reason, case.status) for case in REFUSED} | {(reason, 400) for _, _, reason in BAD_CHUNKS}
    elsewhere = {"incomplete_head", "status_line", "switching_without_upgrade"}
    assert seen == {(reason, status) for reason, status in http1_faults.REASONS.items() if reason not in elsewhere}


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r",
        get() + b"X",
        get() + get(),
        post(b"Content-Length: 5") + b"hello",
        post(b"Content-Length: 4") + b"\r\n\r\n",
        b"\r\n" + get(),
        b"\r\n\r\n",
    ],
)
def test_anything_but_exactly_one_head_is_refused(head: bytes) -> None:
    with pytest.raises(BadMessage) as fault:
        parse_request(head)
    assert fault.value.status == 400


@pytest.mark.parametrize("byte", range(256))
def test_no_byte_but_those_of_a_uri_gets_into_the_target(byte: int) -> None:
    for form in (b"/%c", b"/a%cb", b"/?%c", b"http://a/%c", b"%c"):
        try:
            target = parse_request(get(b"GET %b HTTP/1.1" % (form % byte))).target
        except BadMessage:
            continue
        assert 0x21 <= byte <= 0x7E
        assert byte != ord("#")
        assert target == (form % byte).removeprefix(b"http://a")


# --- What a head means ---


def test_headers_keep_their_order_and_names_and_lose_the_space_around_values() -> None:
    head = parsed(b"X-a:b", b"x-A: \t b  c \t ", b"Y:", b"Z: \t")
    assert head.headers == [(b"Host", b"a"), (b"X-a", b"b"), (b"x-A", b"b  c"), (b"Y", b""), (b"Z", b"")]
    assert (head.method, head.version) == (b"POST", b"1.1")


@pytest.mark.parametrize(
    ("version", "connection", "is_persistent"),
    [
        (b"1.1", [], True),
        (b"1.1", [b"close"], False),
        (b"1.1", [b"Close"], False),
        (b"1.1", [b"keep-alive"], True),
        (b"1.1", [b"keep-alive, close"], False),
        (b"1.1", [b"x", b"CLOSE"], False),
        (b"1.1", [b"x,\tclose ,y"], False),
        (b"1.1", [b"closed"], True),
        (b"1.1", [b""], True),
        (b"1.0", [], False),
        (b"1.0", [b"Keep-Alive"], True),
        (b"1.0", [b"keep-alive, close"], False),
        (b"1.0", [b"x"], False),
    ],
)
def test_whether_the_connection_persists(version: bytes, connection: list[bytes], is_persistent: bool) -> None:
    head = parsed(*[b"Connection: " + value for value in connection], version=version)
    assert head.is_persistent == is_persistent


@pytest.mark.parametrize(
    ("connection", "tokens"),
    [
        ([], set()),
        ([b"close, keep-alive"], set()),
        ([b"X-A , x-b", b"TE"], {b"x-a", b"x-b", b"te"}),
        ([b"Host, Content-Length, x"], {b"x"}),
        ([b",, x,"], {b"x"}),
    ],
)
def test_what_connection_lists(connection: list[bytes], tokens: set[bytes]) -> None:
    head = parsed(*[b"Connection: " + value for value in connection])
    assert head.connection_tokens == tokens


@pytest.mark.parametrize(
    ("headers", "version", "upgrade"),
    [
        ([b"Connection: Upgrade", b"Upgrade: WebSocket"], b"1.1", b"websocket"),
        ([b"Connection: keep-alive, Upgrade", b"Upgrade: a/1, b"], b"1.1", b"a/1, b"),
        ([b"Upgrade: a", b"Connection: upgrade", b"Upgrade: b"], b"1.1", b"a, b"),
        ([b"Upgrade: websocket"], b"1.1", None),
        ([b"Connection: upgrade"], b"1.1", None),
        ([b"Connection: upgrade", b"Upgrade:"], b"1.1", None),
        ([b"Connection: upgrade", b"Upgrade: websocket"], b"1.0", None),
    ],
)
def test_upgrade(headers: list[bytes], version: bytes, upgrade: bytes | None) -> None:
    assert parsed(*headers, version=version).upgrade == upgrade


@pytest.mark.parametrize(
    ("headers", "version", "expects_continue"),
    [
        ([b"Expect: 100-continue", b"Content-Length: 5"], b"1.1", True),
        ([b"Expect: 100-Continue", b"Transfer-Encoding: chunked"], b"1.1", True),
        ([b"Expect: 100-continue", b"Content-Length: 5"], b"1.0", False),
        ([b"Expect: 100-continue"], b"1.1", False),
        ([b"Expect: 100-continue", b"Content-Length: 0"], b"1.1", False),
        ([b"Expect: something", b"Content-Length: 5"], b"1.1", False),
        ([b"Content-Length: 5"], b"1.1", False),
    ],
)
def test_expect(headers: list[bytes], version: bytes, expects_continue: bool) -> None:
    assert parsed(*headers, version=version).expects_continue == expects_continue


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_the_authority_of_an_absolute_target_replaces_host(version: bytes) -> None:
    head = parse_request(get(b"GET http://b:1/c HTTP/" + version, b"X: y", host=b"hOst: a\r\n"))
    assert (head.host, head.headers) == (b"b:1", [(b"Host", b"b:1"), (b"X", b"y")])


def test_and_is_added_where_http_1_0_had_none() -> None:
    head = parse_request(get(b"GET http://b/ HTTP/1.0", b"X: y", host=b""))
    assert head.headers == [(b"Host", b"b"), (b"X", b"y")]


def test_one_parser_knows_nothing_of_the_one_before() -> None:
    heads = [get(), post(b"Content-Length: 5"), post(b"Connection: upgrade", b"Upgrade: x"), get(b"GET / HTTP/1.0")]
    first = [parse_request(head) for head in heads]
    with pytest.raises(BadMessage):
        parse_request(get(b"GET / HTTP/1.1", b"X : y"))
    assert [parse_request(head) for head in reversed(heads)] == first[::-1]


# --- Writing ---


def test_a_request_is_written() -> None:
    assert request_bytes(b"GET", b"/a", [(b"Host", b"b"), (b"X", b"")]) == b"GET /a HTTP/1.1\r\nHost: b\r\nX: \r\n\r\n"
    assert request_bytes(b"GET", b"/", iter([])) == b"GET / HTTP/1.1\r\n\r\n"


def test_hop_by_hop_fields_are_those_of_the_rfc() -> None:
    named = b"connection proxy-connection keep-alive te transfer-encoding upgrade"
    assert frozenset(named.split()) == http1.HOP_BY_HOP


# --- Any bytes ---

TOKENS = st.sampled_from(b"X Host content-length Transfer-Encoding Connection Upgrade Expect a-b_c".split())
VALUES = st.one_of(
    st.sampled_from(
        [*b"5 0 005 chunked gzip CHUNKED close keep-alive upgrade a [::1]:80".split(), b"5, 5", b"gzip, chunked", b""]
    ),
    st.binary(max_size=6),
)
LINES = st.one_of(
    st.builds(b"%b: %b".__mod__, st.tuples(TOKENS, VALUES)),
    st.builds(b"%b%b%b".__mod__, st.tuples(TOKENS, st.sampled_from([b":", b": ", b" : ", b"", b":\t"]), VALUES)),
    st.binary(max_size=12),
)
REQUEST_LINES = st.one_of(
    st.builds(
        b"%b%b%b%b%b".__mod__,
        st.tuples(
            st.sampled_from(b"GET POST OPTIONS HEAD CONNECT PRI FLUSH get X".split()),
            st.sampled_from([b" ", b" ", b" ", b"  ", b"\t"]),
            st.sampled_from(b"/ /a?b * http://a/b http://a@b/ HTTP://[::1] a:80 /# //".split()) | st.binary(max_size=6),
            st.sampled_from([b" ", b" ", b" ", b"  ", b""]),
            st.sampled_from(b"HTTP/1.1 HTTP/1.1 HTTP/1.0 HTTP/0.9 HTTP/2.0 http/1.1 HTTP/1.".split()),
        ),
    ),
    st.binary(max_size=20),
)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """Draw a head that is nearly one; its bytes may be hit by others."""
    lines = [draw(REQUEST_LINES), *draw(st.lists(LINES, max_size=4))]
    if draw(st.booleans()):
        lines.insert(1, b"Host: a")
    head = draw(st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\r\n", b"\n"])).join(lines) + b"\r\n\r\n"
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(head)))
        head = (
            head[:at]
            + draw(st.sampled_from([b"\0", b"\r", b"\n", b" ", b"\t", b":", b",", b"\x80", b""]))
            + head[at + 1 :]
        )
    return head


@settings(max_examples=700, deadline=None)
@given(heads())
@example(b"GET /\nX: HTTP/1.1\r\nHost: a\r\n\r\n")
def test_what_is_accepted_means_the_same_when_written_again(head: bytes) -> None:
    try:
        first = parse_request(head)
    except BadMessage as fault:
        assert http1_faults.REASONS[fault.reason] == fault.status
        return
    # The next hop gets HTTP/1.1, and a Host.
    headers: Headers = first.headers if first.host else [(b"Host", b"a"), *first.headers]
    again = parse_request(request_bytes(first.method, first.target, headers))
    assert (again.method, again.target, again.headers) == (first.method, first.target, headers)
    assert (again.framing, again.content_length) == (first.framing, first.content_length)
    assert again.host == first.host or not first.host
    assert again.connection_tokens == first.connection_tokens
    # Nothing in it could end a line, or the head, anywhere else.
    parts = [first.method, first.target, first.host, *[part for header in first.headers for part in header]]
    assert not any(byte in part for part in parts for byte in b"\r\n\0")
    assert head.count(b"\n") == head.count(b"\r\n") == head.count(b"\r")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_a_bad_message(head: bytes) -> None:
    for end in (b"", b"\r\n\r\n"):
        try:
            parse_request(head + end)
        except BadMessage as fault:
            assert http1_faults.REASONS[fault.reason] == fault.status
