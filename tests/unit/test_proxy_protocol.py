"""The PROXY protocol: the specification's own examples, what HAProxy sends, round trips, and junk."""

import ast
import inspect
import ipaddress
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.wire import proxy_protocol
from app.wire.proxy_protocol import MAX_HEADER, Header, ProxyProtocolError, encode, parse

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")
FULL_IPV6 = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
TCP4_BLOCK = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + bytes.fromhex("dc04 01bb")
TCP4_ENDS = ("192.0.2.1", 56324), ("198.51.100.2", 443)

# Captured from HAProxy 2.6.12: send-proxy-v2 with proxy-v2-options crc32c,unique-id (the id is "abc").
FROM_HAPROXY = bytes.fromhex("0d0a0d0a000d0a515549540a211100197f0000017f000001a06e46a10300042a6e9ce9050003616263")


def v2(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(body) if length is None else length).to_bytes(2, "big") + body


def tlv(kind: int, value: bytes) -> bytes:
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


VALID = [
    b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n",
    b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535\r\n",
    b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 1 10\r\n",
    b"PROXY UNKNOWN\r\n",
    b"PROXY UNKNOWN \r\n",
    b"PROXY UNKNOWN any\rthing\n\x00\xff\r\r\n",
    v2(0x21, 0x11, TCP4_BLOCK),
    v2(0x21, 0x11, TCP4_BLOCK + tlv(0x04, b"") + tlv(0xE0, bytes(300))),
    v2(0x21, 0x21, bytes(36)),
    v2(0x21, 0x31, bytes(216) + tlv(0x04, b"pad")),
    v2(0x21, 0x00, b""),
    v2(0x21, 0x01, b"no TLV"),
    v2(0x21, 0x10, TCP4_BLOCK),
    v2(0x20, 0x00, b""),
    v2(0x20, 0xFF, b"no TLV either"),
    FROM_HAPROXY,
]


# --- Version 1 ---


def test_the_example_of_the_specification() -> None:
    line = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    request = b"GET / HTTP/1.1\r\nHost: 192.168.0.11\r\n\r\n"
    assert parse(line + request) == Header(len(line), ("192.168.0.1", 56324), ("192.168.0.11", 443))


@pytest.mark.parametrize(
    ("line", "size", "source"),
    [
        ("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n", 56, ("255.255.255.255", 65535)),
        (f"PROXY TCP6 {FULL_IPV6} {FULL_IPV6} 65535 65535\r\n", 104, (FULL_IPV6, 65535)),
        ("PROXY UNKNOWN\r\n", 15, None),
        (f"PROXY UNKNOWN {FULL_IPV6} {FULL_IPV6} 65535 65535\r\n", 107, None),
    ],
)
def test_the_worst_case_lines_of_the_specification(line: str, size: int, source: tuple[str, int] | None) -> None:
    assert len(line) == size
    assert parse(line.encode() + b"payload") == Header(size, source, source)


def test_addresses_become_canonical_and_mapped_ones_stay_ipv6() -> None:
    line = b"PROXY TCP6 2001:0DB8:0:0:0:0:0:1 ::FFFF:192.0.2.1 1 2\r\n"
    assert parse(line) == Header(len(line), ("2001:db8::1", 1), ("::ffff:192.0.2.1", 2))


V1_FAULTS = {
    "v1: protocol is not TCP4, TCP6 or UNKNOWN": [
        b"PROXY UDP4 ",
        b"PROXY  TCP4",
        b"PROXY tcp4",
        b"PROXY UNKNOWNX",
        b"PROXY UNKNOWN\n",
        b"PROXY UNKNOWN\rX",
        b"PROXY TCP4\t",
        b"PROXY \r\n",
    ],
    "v1: a byte that is not part of any address or port": [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\r\n",
        b"PROXY TCP4 192.0.2.1\rx",
        b"PROXY TCP4 192.0.2.1\x00",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2",
        b"PROXY TCP4 \xb2",
        b"PROXY TCP6 fe80::1%eth0",
        b"PROXY TCP4 GET / HTTP/1.1",
    ],
    "v1: no CRLF within 107 bytes": [
        b"PROXY TCP4 ".ljust(107, b"1"),
        b"PROXY UNKNOWN ".ljust(107, b"\xff"),
        b"PROXY UNKNOWN ".ljust(106, b"\xff") + b"\r",
        b"PROXY UNKNOWN ".ljust(106, b"\xff") + b"\r\n",
    ],
    "v1: not two addresses and two ports, each after one space": [
        b"PROXY TCP4 \r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
        b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
    ],
    "v1: not an address of the stated family": [
        b"PROXY TCP4 ::1 ::1 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 c0000202 1 2\r\n",
        b"PROXY TCP6 1::2::3 ::1 1 2\r\n",
        b"PROXY TCP6 00001:: ::1 1 2\r\n",
        b"PROXY TCP6 1:2:3:4:5:6:7 ::1 1 2\r\n",
        b"PROXY TCP4  192.0.2.1 1 2\r\n",
    ],
    "v1: not a port from 0 to 65535 without leading zeros": [
        b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 00\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 100000 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 a 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 \r\n",
    ],
}


# --- Version 2 ---


def test_tcp_over_ipv4() -> None:
    assert parse(v2(0x21, 0x11, TCP4_BLOCK) + b"GET /") == Header(28, *TCP4_ENDS)


def test_tcp_over_ipv6() -> None:
    block = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::ffff:192.0.2.1").packed
    data = v2(0x21, 0x21, block + bytes.fromhex("ffff 0000"))
    assert parse(data) == Header(52, ("2001:db8::1", 65535), ("::ffff:192.0.2.1", 0))


def test_what_haproxy_sends() -> None:
    unique_id = tlv(0x05, b"abc")
    assert parse(FROM_HAPROXY + b"hi") == Header(41, ("127.0.0.1", 41070), ("127.0.0.1", 18081), unique_id)


@pytest.mark.parametrize(
    "data",
    [
        v2(0x20, 0x00, b""),
        v2(0x20, 0x11, TCP4_BLOCK),
        v2(0x20, 0xFF, b"anything"),
        v2(0x21, 0x00, b"anything"),
        v2(0x21, 0x01, b"anything"),
        v2(0x21, 0x10, TCP4_BLOCK),
        v2(0x21, 0x31, bytes(216)),
    ],
)
def test_local_unspec_and_unix_headers_are_skipped_whole(data: bytes) -> None:
    assert parse(data + b"payload") == Header(len(data), None, None)


def test_tlvs_are_kept_up_to_the_largest_header() -> None:
    largest = tlv(0x20, bytes(MAX_HEADER - 28 - 3))
    assert parse(v2(0x21, 0x11, TCP4_BLOCK + largest)) == Header(MAX_HEADER, *TCP4_ENDS, largest)


def test_tlvs_are_passed_on_without_padding_and_checksum() -> None:
    authority, cloud = tlv(0x02, b"example.org"), tlv(0xEA, b"\x01vpce-08d2bf15fac5001c9")
    padded = v2(0x21, 0x11, TCP4_BLOCK + tlv(0x04, bytes(9)) + authority + tlv(0x04, b"") + cloud)
    received = parse(padded)
    assert received is not None
    assert received.tlvs == authority + cloud
    assert encode(2, *TCP4_ENDS, received.tlvs) == v2(0x21, 0x11, TCP4_BLOCK + authority + cloud)
    assert b"example.org" not in encode(1, *TCP4_ENDS, received.tlvs)


def test_any_changed_bit_breaks_the_checksum() -> None:
    for bit in range(16 * 8, len(FROM_HAPROXY) * 8):
        changed = bytearray(FROM_HAPROXY)
        changed[bit // 8] ^= 1 << bit % 8
        # A change to a TLV's type may hide the checksum itself; nothing can detect that.
        if bit // 8 != 28:
            with pytest.raises(ProxyProtocolError):
                parse(changed)


V2_FAULTS = {
    "no PROXY protocol signature": [
        b"GET / HTTP/1.1\r\n\r\n",
        b"proxy",
        b"PROXY\t",
        b"\r\n\r\n\x01",
        b"\x16\x03\x01",
    ],
    "v2: version is not 2": [SIGNATURE + b"\x11", v2(0x31, 0x11, TCP4_BLOCK), v2(0x01, 0x11, b"")],
    "v2: command is not LOCAL or PROXY": [SIGNATURE + b"\x22", v2(0x2F, 0x11, TCP4_BLOCK)],
    "v2: unassigned address family": [SIGNATURE + b"\x21\x41", v2(0x21, 0xF1, TCP4_BLOCK)],
    "v2: unassigned transport protocol": [SIGNATURE + b"\x21\x13", v2(0x21, 0x0F, b"")],
    "v2: datagram protocol on a TCP connection": [SIGNATURE + b"\x21\x12", v2(0x21, 0x22, bytes(36))],
    f"v2: header longer than {MAX_HEADER} bytes": [
        v2(0x21, 0x11, b"", length=MAX_HEADER - 16 + 1),
        v2(0x20, 0x00, b"", length=65535),
    ],
    "v2: length shorter than the addresses of the family": [
        v2(0x21, 0x11, b"", length=11),
        v2(0x21, 0x21, TCP4_BLOCK),
        v2(0x21, 0x31, bytes(215)),
    ],
    "v2: TLV goes past the end of the header": [
        v2(0x21, 0x11, TCP4_BLOCK + b"\x04"),
        v2(0x21, 0x11, TCP4_BLOCK + b"\x04\x00"),
        v2(0x21, 0x11, TCP4_BLOCK + b"\x04\x00\x01"),
        v2(0x21, 0x31, bytes(216) + b"\x04\xff\xff12") + bytes(70_000),
    ],
    "v2: not exactly one CRC32C of four bytes": [
        v2(0x21, 0x11, TCP4_BLOCK + tlv(0x03, bytes(3))),
        v2(0x21, 0x11, TCP4_BLOCK + tlv(0x03, bytes(4)) * 2),
    ],
    "v2: wrong CRC32C": [v2(0x21, 0x11, TCP4_BLOCK + tlv(0x03, bytes(4)))],
}


# --- Both versions ---

FAULTS = V1_FAULTS | V2_FAULTS
INVALID = [data for examples in FAULTS.values() for data in examples]


@pytest.mark.parametrize("reason", FAULTS)
def test_a_bad_header_is_refused_with_its_reason(reason: str) -> None:
    for data in FAULTS[reason]:
        with pytest.raises(ProxyProtocolError) as caught:
            parse(data)
        assert (data, caught.value.reason, str(caught.value)) == (data, reason, reason)


def test_every_reason_in_the_code_is_reached() -> None:
    tree = ast.parse(inspect.getsource(proxy_protocol))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    raised = [call.args[0] for call in calls if ast.unparse(call.func) == "ProxyProtocolError"]
    assert {ast.literal_eval(reason) for reason in raised} == set(FAULTS)


@pytest.mark.parametrize("data", VALID)
def test_every_prefix_of_a_valid_header_asks_for_more(data: bytes) -> None:
    assert [parse(data[:size]) for size in range(len(data))] == [None] * len(data)
    header = parse(data)
    assert header is not None
    assert header.size == len(data)
    assert parse(data + b"payload") == header


@pytest.mark.parametrize("data", INVALID)
def test_once_refused_more_bytes_do_not_help(data: bytes) -> None:
    responses = [response(data[:size]) for size in range(min(len(data), MAX_HEADER) + 1)]
    first_refusal = responses.index("refused")
    assert set(responses[:first_refusal]) <= {None}
    assert set(responses[first_refusal:]) == {"refused"}


def test_no_more_bytes_than_the_largest_header_are_ever_asked_for() -> None:
    for data in [*VALID, *INVALID]:
        assert response(data.ljust(MAX_HEADER, b"\0")) is not None


@pytest.mark.parametrize("data", VALID)
def test_any_kind_of_buffer_will_do(data: bytes) -> None:
    assert parse(data) == parse(bytearray(data)) == parse(memoryview(b"x" + data)[1:])


def response(data: bytes) -> Header | Literal["refused"] | None:
    try:
        return parse(data)
    except ProxyProtocolError:
        return "refused"


# --- Sending ---


@pytest.mark.parametrize(
    ("source", "destination", "line"),
    [
        ("192.0.2.1", "198.51.100.2", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        ("2001:DB8:0::1", "::1", b"PROXY TCP6 2001:db8::1 ::1 56324 443\r\n"),
        ("192.0.2.1", "2001:db8::1", b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 56324 443\r\n"),
        ("2001:db8::1", "192.0.2.1", b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 56324 443\r\n"),
        ("::ffff:192.0.2.1", "::ffff:198.51.100.2", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        ("::ffff:192.0.2.1", "198.51.100.2", b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"),
        ("::ffff:192.0.2.1", "::1", b"PROXY TCP6 ::ffff:192.0.2.1 ::1 56324 443\r\n"),
        ("fe80::1%eth0", "fe80::2%3", b"PROXY TCP6 fe80::1 fe80::2 56324 443\r\n"),
    ],
)
def test_families_and_scopes_when_sending(source: str, destination: str, line: bytes) -> None:
    assert encode(1, (source, 56324), (destination, 443)) == line
    sent, line_read = parse(encode(2, (source, 56324), (destination, 443))), parse(line)
    assert sent is not None
    assert line_read is not None
    assert (sent.source, sent.destination) == (line_read.source, line_read.destination)


def test_the_exact_bytes_of_version_2() -> None:
    assert encode(2, *TCP4_ENDS) == v2(0x21, 0x11, TCP4_BLOCK)
    ipv6 = ipaddress.ip_address("2001:db8::1").packed + ipaddress.ip_address("::1").packed
    assert encode(2, ("2001:db8::1", 1), ("::1", 65535)) == v2(0x21, 0x21, ipv6 + b"\x00\x01\xff\xff")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("bad", [("example.org", 1), ("", 1), ("192.0.2.01", 1), ("192.0.2.1", -1), ("::1", 65536)])
def test_only_ip_addresses_and_ports_are_sent(version: Literal[1, 2], bad: tuple[str, int]) -> None:
    for source, destination in [(bad, ("192.0.2.1", 1)), (("192.0.2.1", 1), bad)]:
        with pytest.raises(ValueError, match="not a"):
            encode(version, source, destination)


# --- Properties ---

versions: st.SearchStrategy[Literal[1, 2]] = st.sampled_from((1, 2))
ports = st.integers(0, 65535)


def end_points(ip_version: Literal[4, 6]) -> st.SearchStrategy[tuple[str, int]]:
    return st.tuples(st.ip_addresses(v=ip_version).map(str), ports)


def as_ipv6(ip: str) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(ip if ":" in ip else f"::ffff:{ip}")


@given(versions, end_points(4), end_points(4), st.binary(max_size=20))
def test_ipv4_round_trip(
    version: Literal[1, 2], source: tuple[str, int], destination: tuple[str, int], payload: bytes
) -> None:
    header = encode(version, source, destination)
    assert parse(header + payload) == Header(len(header), source, destination)
    assert all(parse(header[:size]) is None for size in range(len(header)))


@given(versions, end_points(4) | end_points(6), end_points(6), st.booleans())
def test_ipv6_and_mixed_round_trip(
    version: Literal[1, 2], source: tuple[str, int], destination: tuple[str, int], is_swapped: bool
) -> None:
    ends = (destination, source) if is_swapped else (source, destination)
    header = parse(encode(version, *ends))
    assert header is not None
    assert header.source is not None
    assert header.destination is not None
    for sent, received in zip(ends, (header.source, header.destination), strict=True):
        assert (as_ipv6(received[0]), received[1]) == (as_ipv6(sent[0]), sent[1])


junk = st.one_of(
    st.binary(max_size=200),
    st.binary(max_size=100).map(lambda tail: SIGNATURE + tail),
    st.binary(max_size=100).map(lambda tail: SIGNATURE + b"\x21\x11\x00" + tail),
    st.binary(max_size=60).map(lambda tail: v2(0x21, 0x11, TCP4_BLOCK + tail)),
    st.text("0123456789abcdef.: \r\n", max_size=100).map(lambda tail: b"PROXY TCP4 " + tail.encode()),
    st.text("0123456789abcdef: ", max_size=90).map(lambda tail: b"PROXY TCP6 " + tail.encode() + b"\r\n"),
    st.binary(max_size=100).map(lambda tail: b"PROXY UNKNOWN" + tail + b"\r\n"),
)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid header with one byte put in, changed or taken out."""
    data = draw(st.sampled_from(VALID))
    at = draw(st.integers(0, len(data) - 1))
    return data[:at] + draw(st.binary(max_size=1)) + data[at + draw(st.integers(0, 1)) :]


@given(junk | damaged())
def test_junk_never_raises_anything_else_and_splits_agree(data: bytes) -> None:
    whole = response(data)
    by_prefix = [response(data[:size]) for size in range(len(data) + 1)]
    undecided = by_prefix.count(None)
    # It asks for more up to one point, and from there on the answer is the answer to the whole.
    assert by_prefix == [None] * undecided + [whole] * (len(by_prefix) - undecided)
    if isinstance(whole, Header):
        assert whole.size == undecided
