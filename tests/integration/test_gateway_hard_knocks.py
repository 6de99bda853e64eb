"""Misbehaving handlers, and clients that forge their identity."""

from __future__ import annotations

import http.client
import json
import time
from contextlib import ExitStack

import pytest

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.harness import EdgeProcess, eventually

SEES = """
def handle(request, context):
    return {
        "param": context.params["rest"],
        "path": request.path,
        "cookies": dict(request.cookies),
        "access_route": list(request.access_route),
        "forwarding": [name for name, _ in request.headers if name.startswith(("X-", "Forwarded"))],
        "server": [request.environ["SERVER_NAME"], request.environ["SERVER_PORT"]],
    }
"""
ENDS = """
from app.gateway.sdk import Response

def leave():
    raise SystemExit(1)

def handle(request, context):
    made = Response("said")
    made.call_on_close(leave)
    return made
"""
ENDS_BESIDE = """
import sys, gevent

def handle(request, context):
    gevent.spawn(sys.exit, 1).join()
    return "said"
"""
PROMISES = """
from app.gateway.sdk import Response

def handle(request, context):
    return Response(iter(["a" * int(request.args["length"])]), headers={"Content-Length": "5"})
"""
ENDLESS = """
def handle(request, context):
    while True:
        yield b""
"""
TICKS = """
import time

def handle(request, context):
    for number in range(5):
        time.sleep(0.5)
        yield f"{number}"
"""
SLEEPS = """
import time

def handle(request, context):
    time.sleep(2.5)
    return "awake"
"""
FAILS_LATE = """
def handle(request, context):
    yield "half"
    raise BaseException("of its own")
"""
SOURCES = {"sees": SEES, "ends": ENDS, "ends-beside": ENDS_BESIDE, "promises": PROMISES, "endless": ENDLESS,
           "ticks": TICKS, "sleeps": SLEEPS, "fails-late": FAILS_LATE}  # fmt: skip


class Town:
    """An edge with these handlers."""

    def __init__(self, folder, stack):
        store = SqliteGatewayStore(folder / "gateway.db")
        for name, source in SOURCES.items():
            store.create_endpoint(Endpoint(name, name, f"/{name}/<path:rest>"))
            store.set_deployed(name, store.add_version(name, source).number, time.time())
        store.close()
        web = {"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}
        config = {"frontends": [{**web, "tcp": {"idle_timeout": "1s"}}]}
        variables = {"GEOIP_PATH": "off", "GATEWAY_DB_PATH": str(folder / "gateway.db")}
        self.edge = EdgeProcess(folder, folder / "no.db", "", variables, config)
        stack.callback(self.edge.kill)

    def exchange(self, data):
        """Send bytes that ask to close the connection. Returns everything received."""
        with self.edge.connect() as sock:
            sock.sendall(data)
            return b"".join(iter(lambda: sock.recv(65536), b""))

    def sees(self, target="/sees/x", *headers, host="a"):
        """Return what a handler sees of a request."""
        lines = [f"GET {target} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
        return json.loads(self.exchange("\r\n".join(lines).encode()).partition(b"\r\n\r\n")[2])


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    with ExitStack() as stack:
        yield Town(tmp_path_factory.mktemp("gateway"), stack)


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        ("a%2541", "a%41"),
        ("%252e%252e/x", "%2e%2e/x"),
        ("a%2Fb", "a/b"),
        ("%C3%A9", "é"),
        ("%FF", "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_a_path_is_decoded_once(town, target, rest):
    seen = town.sees(f"/sees/{target}")
    assert (seen["param"], seen["path"]) == (rest, f"/sees/{rest}")


def test_only_a_trusted_proxy_names_the_client(town):
    seen = town.sees(
        "/sees/x", "X-Forwarded-For: 9.9.9.9", "x_forwarded_for: 8.8.8.8", "Forwarded: for=9.9.9.9",
        "X-Forwarded-Proto: https", "X-Forwarded-Host: elsewhere", "X-Request-Id: mine", "X-Own: kept",
    )  # fmt: skip
    assert seen["access_route"] == ["127.0.0.1"]
    assert seen["forwarding"] == ["X-Own"]


def test_several_cookie_lines_are_joined(town):
    assert town.sees("/sees/x", "Cookie: a=1", "Cookie: b=2")["cookies"] == {"a": "1", "b": "2"}


@pytest.mark.parametrize(
    ("host", "server"),
    [("a:81", ["a", "81"]), ("a", ["a", "80"]), ("[::1]", ["[::1]", "80"]), ("[::1]:81", ["[::1]", "81"])],
)
def test_host_and_port_are_told_apart(town, host, server):
    assert town.sees(host=host)["server"] == server


@pytest.mark.parametrize("name", ["ends", "ends-beside"])
def test_no_handler_ends_the_edge(town, name):
    request = f"GET /{name}/x HTTP/1.1\r\nHost: a\r\n".encode()
    responses = town.exchange(request + b"\r\n" + request + b"Connection: close\r\n\r\n")
    assert responses.count(b"HTTP/1.1 200 OK") == 2
    assert responses.endswith(b"said")
    assert town.edge.process.poll() is None


@pytest.mark.parametrize("length", [4, 6])
def test_a_body_of_the_wrong_length_does_not_look_complete(town, length):
    connection = http.client.HTTPConnection(*town.edge.address, timeout=10)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        connection.request("GET", f"/promises/x?length={length}")
        connection.getresponse().read()
    connection.close()


def test_an_endless_stream_does_not_block_the_loop(town):
    with town.edge.connect() as sock:
        sock.sendall(b"GET /endless/x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(15) == b"HTTP/1.1 200 OK"
        assert town.sees()["param"] == "x"


@pytest.mark.parametrize(("name", "end"), [("ticks", b"4\r\n0\r\n\r\n"), ("sleeps", b"awake")])
def test_a_connection_with_a_running_handler_is_not_idle(town, name, end):
    response = town.exchange(f"GET /{name}/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert response.endswith(end), "whole, though it took longer than the idle timeout"


def test_a_truncated_stream_has_its_access_line(town):
    with pytest.raises(ConnectionResetError):
        town.exchange(b"GET /fails-late/x HTTP/1.1\r\nHost: a\r\n\r\n")
    lines = eventually(lambda: [one for one in town.edge.log() if one.get("target") == "/fails-late/x"])
    assert [(one["status"], one["reason"]) for one in lines] == [(200, "handler_failed")]


def test_an_edge_of_handlers_alone_is_ready(town):
    assert town.edge.get("/ready")[0] == 200


def test_no_internal_error_was_counted(town):
    assert not [name for name in town.edge.metrics() if name.startswith("edgeproxy_internal_errors_total{")]
