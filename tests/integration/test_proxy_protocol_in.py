"""A PROXY header from a trusted peer names the client; from any other peer it is payload."""

import socket
import struct

import gevent
import pytest

from tests.harness import eventually
from tests.integration.peers import (
    Stage,
    address_of,
    await_idle,
    crowd,
    echo,
    fresh_address,
    is_reset,
    lines_of,
    read_exactly,
    read_to_end,
)

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(command, family, block):
    return SIGNATURE + struct.pack("!BBH", 0x20 | command, family, len(block)) + block


def v2_tcp(source, destination="192.0.2.99", tlvs=b""):
    kind, family = (socket.AF_INET6, 0x21) if ":" in source else (socket.AF_INET, 0x11)
    ends = socket.inet_pton(kind, source) + socket.inet_pton(kind, destination)
    return v2(1, family, ends + struct.pack("!HH", 4711, 443) + tlvs)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    """Trusts 127.1.0.0/16, the addresses of `Stage.connect`."""
    stage = Stage(tmp_path_factory.mktemp("proxy_in"), PROXY_PROTOCOL_FROM="127.1.0.0/16,::1")
    yield stage
    stage.close()


def refused(stage, reason):
    return stage.edge.metrics().get(f'edgeproxy_connections_refused_total{{reason="{reason}"}}', 0)


@pytest.mark.parametrize(
    "header, client",
    [
        (b"PROXY TCP4 198.51.100.1 192.0.2.99 4711 443\r\n", "198.51.100.1"),
        (b"PROXY TCP6 2001:db8::1 2001:db8::99 4711 443\r\n", "2001:db8::1"),
        (v2_tcp("198.51.100.2"), "198.51.100.2"),
        (v2_tcp("2001:db8::2", "2001:db8::99"), "2001:db8::2"),
        (v2_tcp("198.51.100.3", tlvs=struct.pack("!BH", 0x04, 900) + bytes(900)), "198.51.100.3"),
        (b"PROXY TCP6 ::ffff:198.51.100.4 ::ffff:192.0.2.99 4711 443\r\n", "198.51.100.4"),
        (v2_tcp("::ffff:198.51.100.5", "::ffff:192.0.2.99"), "198.51.100.5"),
    ],
    ids=["v1", "v1 six", "v2", "v2 six", "v2 with tlvs", "v1 mapped", "v2 mapped"],
)
def test_a_header_names_the_client_and_is_not_passed_on(stage, header, client):
    backend = stage.play(read_to_end)
    with stage.connect() as proxy:
        proxy.sendall(header + b"payload in the same segment")
    assert backend() == b"payload in the same segment"
    line = stage.line_of(client)
    assert (line["termination"], line["bytes_up"]) == ("--", 27)


@pytest.mark.parametrize(
    "header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN what ever 1 2\r\n", v2(0, 0, b""), v2(1, 0, b"")]
)
def test_a_header_without_an_address_keeps_the_sockets_peer(stage, header):
    backend = stage.play(read_to_end)
    with stage.connect() as proxy:
        peer = address_of(proxy)
        proxy.sendall(header + b"a health check")
    assert backend() == b"a health check"
    assert stage.line_of(peer)["termination"] == "--"


@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.1 192.0.2.99 4711 443\r\n", v2_tcp("203.0.113.2")])
def test_a_header_may_come_in_single_bytes(stage, header):
    stage.play(echo)
    with stage.connect() as proxy:
        for number in range(len(header)):
            proxy.sendall(header[number : number + 1])
            gevent.sleep(0)
        proxy.sendall(b"hello")
        assert read_exactly(proxy, 5) == b"hello"


def test_a_server_that_speaks_first_waits_for_no_more_than_the_header(stage):
    stage.play(lambda sock: sock.sendall(b"220 ready"))
    with stage.connect() as proxy:
        proxy.sendall(b"PROXY TCP4 203.0.113.3 192.0.2.99 4711 443\r\n")
        assert read_to_end(proxy) == b"220 ready"


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"PROXY TCP4 300.1.1.1 192.0.2.99 4711 443\r\n",
        b"PROXY TCP4 " + b"1" * 200,
        b"PROXY UDP4 1.1.1.1 2.2.2.2 1 2\r\n",
        SIGNATURE + b"\x31\x11\x00\x0c" + bytes(12),
        v2(1, 0x11, bytes(4)),
    ],
    ids=["none", "not an address", "endless", "unknown protocol", "v2 version", "v2 too short"],
)
def test_a_bad_or_missing_header_is_reset_logged_and_counted(stage, junk):
    before = refused(stage, "bad_proxy_header")
    with stage.connect() as proxy:
        peer = address_of(proxy)
        proxy.sendall(junk)
        assert is_reset(proxy)
    line = stage.line_of(peer)
    assert (line["termination"], line["backend"], line["attempts"]) == ("PA", None, 0)
    assert line["reason"].startswith(("v1: ", "v2: ", "no PROXY protocol signature"))
    assert refused(stage, "bad_proxy_header") == before + 1


def test_a_peer_that_closes_within_its_header_is_logged_and_counted(stage):
    before = refused(stage, "client_gone")
    with stage.connect() as proxy:
        peer = address_of(proxy)
        proxy.sendall(b"PROXY TCP4 198.51")
    line = stage.line_of(peer)
    assert (line["termination"], line["reason"]) == ("CA", "client_gone")
    assert refused(stage, "client_gone") == before + 1


def test_silent_and_dripping_peers_are_reset_after_three_seconds(stage):
    with stage.connect() as silent, stage.connect() as dripping:
        peers = [address_of(silent), address_of(dripping)]

        def drip():
            for byte in b"PROXY TCP4 " + b"1" * 90:
                dripping.sendall(bytes([byte]))
                gevent.sleep(0.1)

        dripper = gevent.spawn(quietly, drip)
        assert is_reset(silent)
        assert dripper.get(timeout=10) in (ConnectionResetError, BrokenPipeError)
    for line in (stage.line_of(peer) for peer in peers):
        assert (line["termination"], line["reason"]) == ("cA", "slow_proxy_header")
        assert line["duration_ms"] >= 3000
    assert refused(stage, "slow_proxy_header") == 2


def quietly(work):
    try:
        work()
    except OSError as error:
        return type(error)


@pytest.mark.parametrize("header", [b"PROXY TCP4 203.0.113.9 192.0.2.99 4711 443\r\n", v2_tcp("203.0.113.9")])
def test_a_header_from_a_peer_that_is_not_trusted_is_payload(stage, header):
    backend = stage.play(read_to_end)
    with stage.edge.connect("127.0.0.77") as client:
        client.sendall(header + b"payload")
    assert backend() == header + b"payload"
    assert lines_of(stage.edge, "127.0.0.77")
    assert not [line for line in stage.edge.access_lines() if line["client"] == "203.0.113.9"]


def test_a_flood_of_bad_headers_leaves_nothing_behind(stage):
    before = refused(stage, "bad_proxy_header")
    with crowd(stage.edge, [fresh_address() for _ in range(100)]) as proxies:
        for proxy in proxies:
            proxy.sendall(b"junk")
        assert all(is_reset(proxy) for proxy in proxies)
    await_idle(stage.edge)
    assert eventually(lambda: refused(stage, "bad_proxy_header")) == before + 100
