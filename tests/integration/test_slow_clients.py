"""Slow clients of pools, handlers and TCP: how long each may take, and that others are served meanwhile."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack

import gevent
import pytest

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.harness import eventually, frontend, pool, row, write_backends
from tests.integration.http_peers import Origin, client_of, head, http_edge, leases, live, request_line
from tests.integration.peers import reset
from tests.traffic import is_cut, serving

MEBIBYTE = 1 << 20
LARGE = """
def handle(request, context):
    return bytes(24 << 20), 200, {"Content-Type": "application/octet-stream"}
"""
LENGTH = """
def handle(request, context):
    return str(len(request.get_data()))
"""
SILENT = """
import time


def handle(request, context):
    yield "begun"
    time.sleep(60)
"""
STREAMED = """
def handle(request, context):
    return (bytes(1 << 20) for _ in range(100))
"""
ENDPOINTS = [
    (Endpoint("large", "large", "/large", max_concurrency=1), LARGE),
    (Endpoint("length", "length", "/length", methods=("GET", "POST"), max_concurrency=1), LENGTH),
    (Endpoint("silent", "silent", "/silent", max_concurrency=1), SILENT),
    (Endpoint("streamed", "streamed", "/streamed", max_concurrency=1), STREAMED),
]
SLOW = {"request_body_timeout": "500ms", "min_body_rate": 100, "send_timeout": "500ms", "response_timeout": "500ms"}


def big(request):
    """Read the request, and answer with 24 MiB to /large, never to /never, and first with 100 to /invited."""
    if request.target == "/invited":
        request.sock.sendall(head("HTTP/1.1 100 Continue"))
    if request.target == "/never":
        request.wire.some()
    for _ in request.pieces():
        pass
    request.response(bytes(24 * MEBIBYTE) if request.target == "/large" else b"ok")


def pour(sock):
    """Send 24 MiB and end."""
    sock.sendall(bytes(24 * MEBIBYTE))


@pytest.fixture(scope="module")
def origin():
    origin = Origin(big)
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, origin):
    folder = tmp_path_factory.mktemp("slow")
    store = SqliteGatewayStore(folder / "gateway.db")
    for endpoint, source in ENDPOINTS:
        assert store.create_endpoint(endpoint)
        version = store.add_version(endpoint.id, source)
        assert store.set_deployed(endpoint.id, version.number, time.time())
    store.close()
    with ExitStack() as stack:
        config = {
            "frontends": [
                live("web", "web", http=SLOW),
                live("one", "one", http=SLOW),
                live("small", "web", http={"max_body_bytes": 1000}),
                live("patient", "web", tcp={"idle_timeout": "500ms"}, gateway=True),
                live("handlers", "web", http=SLOW, gateway=True, tcp={"idle_timeout": "500ms"}),
                frontend("tcp", "pour", tcp={"idle_timeout": "500ms"}),
            ],
            "backends": [
                pool("web", origin.port),
                pool("pour", stack.enter_context(serving(pour))),
                {"name": "one", "app": "one"},
            ],
        }
        edge = stack.enter_context(http_edge(folder, config, GATEWAY_DB_PATH=folder / "gateway.db"))
        write_backends(folder / "routing.db", [row("only", origin.port, app="one", hard_limit=1)])
        eventually(lambda: edge.ready()["pools"]["one"]["candidates"] == 1)
        yield edge


def posting(client, target, *lines):
    """Send the head of a POST."""
    client.send(head(f"POST {target} HTTP/1.1", "Host: x", *lines))


def read_slowly(sock, at_once=MEBIBYTE, pause=0.1):
    """Read everything, with pauses in which the kernel of the other side takes nothing more; return the size."""
    size = 0
    while data := sock.recv(at_once, socket.MSG_WAITALL):
        size += len(data)
        gevent.sleep(pause)
    return size


# Clients that are gone


def test_a_client_that_resets_a_response_in_which_nothing_comes_gives_its_slot_back(proxy):
    for _ in range(2):
        with client_of(proxy, frontend="patient") as client:
            client.send(head("GET /silent HTTP/1.1", "Host: x"))
            eventually(lambda client=client: client.wire.some())
            reset(client.sock)
        eventually(lambda: proxy.metrics()['edgeproxy_handler_requests_active{endpoint="silent"}'] == 0)


def test_a_client_that_resets_behind_a_pipelined_byte_gives_its_lease_back(proxy, origin):
    with client_of(proxy) as client:
        client.send(head("GET /never HTTP/1.1", "Host: x") + b"G")
        eventually(lambda: origin.requests and origin.requests[-1].target == "/never")
        reset(client.sock)
    line = request_line(proxy, "/never")
    assert (line["termination"], line["reason"]) == ("CW", "client_gone")


def test_a_client_that_was_told_to_send_is_late_and_not_its_backend(proxy):
    with client_of(proxy) as client:
        posting(client, "/invited", "Content-Length: 10", "Expect: 100-continue")
        assert client.read_head().status == 100
        assert client.read().status == 408
    assert request_line(proxy, "/invited")["reason"] == "body_timeout"


# A request's body that comes slowly


def test_nobody_else_waits_for_a_slow_body_of_a_handler(proxy):
    with client_of(proxy, frontend="handlers") as slow, client_of(proxy, frontend="handlers") as other:
        posting(slow, "/length", "Content-Length: 10")
        for digit in b"12345":
            slow.send(bytes([digit]))
            assert other.ask("/length").body == b"0", "at most one at once"
        slow.send(b"67890")
        assert slow.read().body == b"10"


def test_nobody_else_waits_for_a_slow_short_body_of_a_pool(proxy):
    with client_of(proxy, frontend="one") as slow, client_of(proxy, frontend="one") as other:
        posting(slow, "/slow", "Content-Length: 10")
        for digit in b"12345":
            slow.send(bytes([digit]))
            assert other.ask("/other").status == 200, "the only backend has a hard limit of one"
        slow.send(b"67890")
        assert slow.read().status == 200


@pytest.mark.parametrize(("name", "target"), [("handlers", "/length"), ("web", "/up")])
@pytest.mark.parametrize("framing", ["Content-Length: 10", "Content-Length: 100000", "Transfer-Encoding: chunked"])
def test_a_body_below_its_rate_is_refused(proxy, name, target, framing):
    with client_of(proxy, frontend=name) as client:
        posting(client, target, framing)
        started = time.monotonic()
        client.send(b"1\r\nx\r\n")
        response = client.read()
        assert (response.status, b'"reason":"body_timeout"' in response.body) == (408, True)
        assert 0.4 < time.monotonic() - started < 5
    eventually(lambda: leases(proxy) == 0)


@pytest.mark.parametrize(("name", "target"), [("handlers", "/length"), ("web", "/up")])
def test_a_body_at_its_rate_may_take_longer_than_every_timeout(proxy, name, target):
    with client_of(proxy, frontend=name) as client:
        posting(client, target, "Transfer-Encoding: chunked")
        for _ in range(15):
            client.send(b"64\r\n" + b"x" * 100 + b"\r\n")
            gevent.sleep(0.1)
        client.send(b"0\r\n\r\n")
        assert client.read().body in (b"1500", b"ok")


def test_a_body_that_is_too_large_for_a_pool_is_refused(proxy):
    with client_of(proxy, frontend="small") as client:
        assert client.ask("/fits", method="POST", body=bytes(1000)).status == 200
        refused = client.ask("/large-1", method="POST", body=bytes(1001))
        assert (refused.status, refused.headers["connection"]) == (413, "close"), "its body was not read"
    with client_of(proxy, frontend="small") as client:
        posting(client, "/large-2", "Transfer-Encoding: chunked")
        client.send(b"3e8\r\n" + bytes(1000) + b"\r\n")
        assert client.read().status == 413
    assert request_line(proxy, "/large-2")["reason"] == "body_too_large"


# A response that is taken slowly


def test_nobody_else_waits_for_a_slow_reader_of_a_handlers_response(proxy):
    with client_of(proxy, frontend="patient") as slow, client_of(proxy, frontend="patient") as other:
        slow.send(head("GET /large HTTP/1.1", "Host: x"))
        assert slow.read_head().status == 200
        assert len(other.ask("/large").body) == 24 * MEBIBYTE, "at most one at once"


@pytest.mark.parametrize("target", ["/large?stuck", "/streamed?stuck"])
def test_a_reader_of_a_handlers_response_that_takes_nothing_is_cut(proxy, target):
    with client_of(proxy, frontend="handlers") as client:
        client.send(head(f"GET {target} HTTP/1.1", "Host: x"))
        assert client.read_head().status == 200
        line = request_line(proxy, target)
        assert (line["termination"], line["reason"]) == ("cD", "send_timeout")
        assert is_cut(client.sock)
    with client_of(proxy, frontend="handlers") as client:
        client.send(head(f"GET {target} HTTP/1.1", "Host: x"))
        assert client.read_head().status == 200, "its slot was given back"


def test_a_reader_of_a_backends_response_that_takes_nothing_is_cut(proxy):
    with client_of(proxy, frontend="web") as client:
        client.send(head("GET /large HTTP/1.1", "Host: x"))
        assert client.read_head().status == 200
        eventually(lambda: leases(proxy) == 0, what="the lease is given back")
        assert is_cut(client.sock)


@pytest.mark.parametrize("name", ["handlers", "patient", "web"])
def test_a_slow_reader_gets_everything(proxy, name):
    with client_of(proxy, frontend=name) as client:
        client.send(head("GET /large HTTP/1.1", "Host: x", "Connection: close"))
        assert client.read_head().status == 200
        assert read_slowly(client.sock) > 23 * MEBIBYTE


def test_a_slow_reader_over_tcp_gets_everything(proxy):
    with proxy.connect(frontend="tcp") as sock:
        assert read_slowly(sock) == 24 * MEBIBYTE


def test_a_reader_over_tcp_that_takes_nothing_is_cut(proxy):
    with proxy.connect(frontend="tcp") as sock:
        (line,) = eventually(lambda: [x for x in proxy.access_lines() if x["reason"] == "idle_timeout"])
        assert line["termination"] == "tD"
        assert is_cut(sock), "a clean end would look like the end of the data"
