"""Results of probes of servers that are healthy, refuse, hang, send slowly, or respond wrongly."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import gevent
import pytest
from loguru import logger

from app.domain.model import Backend
from app.domain.probe import ProbeSpec, Target
from app.outbound import probes
from app.outbound.probes import MAX_BODY_BYTES, MAX_HEAD_BYTES, probe
from tests.harness import PATIENCE_SECONDS, eventually
from tests.integration.peers import hanging_backend, read_to_end, refusing_port
from tests.traffic import serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


def target(port, host="127.0.0.1", kind="http", timeout_seconds=PATIENCE_SECONDS, **columns):
    spec = ProbeSpec(kind, interval_seconds=10.0, timeout_seconds=timeout_seconds, **columns)
    return Target("web", Backend("a", None, None, None, host, port), spec)


def read_request(sock):
    request = b""
    while not request.endswith(b"\r\n\r\n") and (piece := sock.recv(4096)):
        request += piece
    return request


def answering(*pieces, holds=False):
    """Return a server that sends this response and then closes, or waits for the client to close."""

    def part(sock):
        read_request(sock)
        for piece in pieces:
            sock.sendall(piece)
        if holds:
            sock.recv(1)

    return part


@pytest.fixture
def refused_port():
    with ExitStack() as stack:
        yield refusing_port(stack)


@pytest.fixture
def logged():
    lines = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{level}: {message}")
    yield lines
    logger.remove(sink)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_tcp_probe_connects_and_closes(origin, host):
    heard = []
    port = origin(lambda sock: heard.append(read_to_end(sock)), host)
    assert probe(target(port, host, kind="tcp")) is None
    assert eventually(lambda: heard) == [b""]


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_a_closed_port_is_connect_refused(refused_port, kind):
    assert probe(target(refused_port, kind=kind)) == "connect_refused"


@pytest.mark.parametrize("kind", ["tcp", "http"])
def test_no_connection_in_time(kind):
    with hanging_backend() as port:
        assert probe(target(port, kind=kind, timeout_seconds=0.2)) == "connect_timeout"


def test_an_address_that_cannot_be_used():
    assert probe(target(80, "fe80::1%nowhere", kind="tcp")) == "connect_failed"


@pytest.mark.parametrize(
    ("host", "host_name", "name"),
    [("127.0.0.1", None, "127.0.0.1"), ("::1", None, "[::1]"), ("127.0.0.1", "app.example", "app.example")],
)
def test_an_http_probe_requests_its_path_and_identifies_itself(origin, host, host_name, name):
    heard = []

    def part(sock):
        heard.append(read_request(sock))
        sock.sendall(OK)

    port = origin(part, host)
    one = target(port, host, path="/healthz?deep=1")
    assert probe(replace(one, backend=replace(one.backend, host_name=host_name))) is None
    line, *fields = heard[0].decode().removesuffix("\r\n\r\n").split("\r\n")
    assert line == "GET /healthz?deep=1 HTTP/1.1"
    assert fields == [f"Host: {name}:{port}", "User-Agent: edgeproxy-probe", "Connection: close"]


@pytest.mark.parametrize(
    ("status", "expected", "verdict"),
    [
        (200, None, None),
        (204, None, None),
        (302, None, None),
        (399, None, None),
        (400, None, "status"),
        (404, None, "status"),
        (503, None, "status"),
        (503, {503}, None),
        (200, {503}, "status"),
        (201, {200, 201}, None),
    ],
)
def test_the_status_decides(origin, status, expected, verdict, logged):
    port = origin(answering(b"HTTP/1.1 %d Whatever\r\nContent-Length: 0\r\n\r\n" % status))
    columns = {} if expected is None else {"expected_statuses": frozenset(expected)}
    assert probe(target(port, **columns)) == verdict
    assert any(f"'status', {status}" in line for line in logged) == (verdict == "status")


def test_interim_responses_are_skipped(origin):
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    assert probe(target(origin(answering(early, OK)), body="ok")) is None
    assert probe(target(origin(answering(early, OK.replace(b"200", b"500"))))) == "status"


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" * (MAX_HEAD_BYTES // 20),
        b"HTTP/1.1 200 OK\r\nA: " + b"a" * (MAX_HEAD_BYTES + 10_000),
    ],
)
def test_no_more_than_so_much_of_a_head_is_read(origin, response):
    assert probe(target(origin(answering(response, holds=True)), timeout_seconds=1.0)) == "bad_response"


@pytest.mark.parametrize(
    "response",
    [
        b"",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"220 mail ready\r\n",
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"<html>ok</html>\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n",
    ],
)
def test_an_invalid_http_response_is_bad_response(origin, response):
    assert probe(target(origin(answering(response)))) == "bad_response"


def test_one_that_resets(origin):
    def part(sock):
        read_request(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")

    assert probe(target(origin(part))) == "bad_response"


@pytest.mark.parametrize("beginning", [b"", b"HTTP/1.1 200 OK\r\n", CHUNKED, CHUNKED + b"5\r\nhel"])
def test_one_that_falls_silent(origin, beginning):
    port = origin(answering(beginning, holds=True))
    assert probe(target(port, timeout_seconds=0.2, body="hello")) == "timeout"


@pytest.mark.parametrize("drops", [OK, b"a" * 1000, UNTIL_CLOSE + b"a" * 1000])
def test_one_that_drips_does_not_outlast_the_deadline(origin, drops):
    sent = []

    def part(sock):
        read_request(sock)
        try:
            for drop in drops:
                sock.sendall(bytes([drop]))
                sent.append(drop)
                gevent.sleep(0.02)
        except OSError:
            pass

    assert probe(target(origin(part), timeout_seconds=0.2, body="never said")) == "timeout"
    assert 0 < len(sent) < len(drops)


def test_the_body_does_not_matter_unless_asked_for(origin):
    port = origin(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n", holds=True))
    assert probe(target(port)) is None


@pytest.mark.parametrize(
    "pieces",
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall well",),
        (UNTIL_CLOSE, b"all", b" well", b", and more"),
        (CHUNKED, b"8\r\nall well\r\n0\r\n\r\n"),
        (CHUNKED, b"5;a=b\r\nall w\r\n", b"3\r\nell\r\n0\r\nX-Sum: x\r\n\r\n"),
        (CHUNKED, *(b"1\r\n%c\r\n" % letter for letter in b"all well")),
        (CHUNKED, b"8\r\nal", b"l well"),
    ],
)
@pytest.mark.parametrize("holds", [False, True])
def test_the_text_is_found_however_the_body_is_framed(origin, pieces, holds):
    assert probe(target(origin(answering(*pieces, holds=holds)), body="all well")) is None


@pytest.mark.parametrize(
    "response",
    [
        OK,
        b"HTTP/1.1 204 No Content\r\n\r\nall well",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nall well",
        CHUNKED + b"3\r\nall\r\n4\r\nwell\r\n0\r\n\r\n",
        CHUNKED + b"0\r\n\r\nall well",
        UNTIL_CLOSE + b"all unwell",
        UNTIL_CLOSE,
    ],
)
def test_the_text_is_not_there(origin, response):
    assert probe(target(origin(answering(response)), body="all well")) == "body"


def test_invalid_chunks_are_bad_response(origin):
    assert probe(target(origin(answering(CHUNKED + b"all well\r\n")), body="all well")) == "bad_response"


@pytest.mark.parametrize(("before", "verdict"), [(MAX_BODY_BYTES - 2, None), (MAX_BODY_BYTES - 1, "body")])
@pytest.mark.parametrize("head", [UNTIL_CLOSE, b"HTTP/1.1 200 OK\r\nContent-Length: 999999999\r\n\r\n"])
def test_no_more_than_so_much_of_the_body_is_read(origin, head, before, verdict):
    port = origin(answering(head, b"a" * before, b"ok", holds=True))
    assert probe(target(port, body="ok")) == verdict


def test_an_endless_body_in_chunks_is_not_read_for_ever(origin):
    port = origin(answering(CHUNKED, *[b"400\r\n" + b"a" * 1024 + b"\r\n"] * 80, holds=True))
    assert probe(target(port, body="ok")) == "body"


def test_the_text_may_be_any_unicode(origin):
    text = "größer"
    port = origin(answering(UNTIL_CLOSE + text.encode()))
    assert probe(target(port, body=text)) is None


def test_a_lack_of_descriptors_is_no_verdict_on_the_backend(origin, monkeypatch):
    def out_of_descriptors(*_):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    port = origin(answering(OK))
    monkeypatch.setattr(probes.socket, "socket", out_of_descriptors)
    assert probe(target(port)) == "no_resources"


def test_a_fault_of_ours_is_logged_and_not_raised(origin, monkeypatch, logged):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr(probes, "parse_response", broken)
    assert probe(target(origin(answering(OK)))) == "internal_error"
    assert any(line.startswith("ERROR: the probe of backend a of pool web raised an exception") for line in logged)


def test_the_callers_own_timeout_is_the_callers(origin):
    port = origin(answering(holds=True))
    with pytest.raises(gevent.Timeout) as raised, gevent.Timeout(0.1) as callers:
        probe(target(port))
    assert raised.value is callers


def test_its_own_timeout_does_not_go_off_later(origin):
    assert probe(target(origin(answering(OK)), timeout_seconds=0.2)) is None
    gevent.sleep(0.3)  # a timer left behind would throw here


def test_no_probe_leaves_a_descriptor_behind(origin, refused_port):
    def open_sockets():
        return sum(one.is_socket() for one in Path("/proc/self/fd").iterdir())

    well, silent, garbage = origin(answering(OK)), origin(answering(holds=True)), origin(answering(b"garbage\r\n"))
    before = open_sockets()
    for _ in range(3):
        verdicts = [
            probe(target(well)),
            probe(target(well, kind="tcp")),
            probe(target(refused_port)),
            probe(target(garbage)),
            probe(target(silent, timeout_seconds=0.05)),
        ]
        assert verdicts == [None, None, "connect_refused", "bad_response", "timeout"]
    eventually(lambda: open_sockets() <= before)


@pytest.mark.parametrize("kind", ["tcp", "http"])
@pytest.mark.parametrize(
    ("header", "first"),
    [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_a_probe_begins_with_the_proxy_header_of_its_pool(kind, header, first):
    """PROXY protocol, section 2.2: what does not come from a client says so."""
    heard = []

    def serve(sock):
        heard.append(read_to_end(sock) if kind == "tcp" else sock.recv(len(first), socket.MSG_WAITALL))
        sock.sendall(OK)

    with serving(serve) as port:
        assert probe(target(port, kind=kind, proxy_header=header)) is None
        eventually(lambda: heard)
    assert heard == [first]
