"""An upgraded connection is only copied: WebSocket with a real library on both sides, and the corners byte by byte."""

from __future__ import annotations

import os
import selectors
import socket
from contextlib import contextmanager

import gevent
import pytest
from gevent.event import Event
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import serve

from tests.harness import eventually, pool
from tests.integration.http_peers import Origin, client_of, head, http_edge, live, request_line, say_who, whole
from tests.integration.peers import await_idle, read_exactly, read_to_end, reset

ASK = ["Host: x", "Connection: Upgrade", "Upgrade: words"]
AGREE = head("HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", "Upgrade: words")


@pytest.fixture(scope="module")
def origin():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def echo_port():
    """A WebSocket server that says back what it hears, and closes with a code of its own at "bye"."""

    def echo(connection):
        for message in connection:
            if message == "bye":
                connection.close(4001, "see you")
            else:
                connection.send(message)

    with pytest.MonkeyPatch.context() as patch, serve(echo, "127.0.0.1", 0, max_size=None) as server:
        # The server does not close its selector. gevent's then goes on watching a number that later sockets get, and
        # close() of such a socket waits for the next event of the loop: for ever, if no other is to come.
        patch.setattr(selectors, "DefaultSelector", selectors.SelectSelector)
        server_greenlet = gevent.spawn(server.serve_forever)
        yield server.socket.getsockname()[1]
        server.shutdown()
        server_greenlet.join(10)


def config_of(origin, echo_port):
    quick = {"keep_alive_timeout": "200ms", "response_timeout": "200ms", "head_timeout": "200ms"}
    return {
        "frontends": [
            live("chat", "chat"),
            live("quick", "chat", http=quick),
            live("raw", "raw"),
            live("impatient", "raw", tcp={"idle_timeout": "300ms"}),
            live("lingering", "raw", tcp={"linger_timeout": "300ms"}),
        ],
        "backends": [pool("chat", echo_port), pool("raw", origin.port)],
    }


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, origin, echo_port):
    with http_edge(tmp_path_factory.mktemp("upgrade"), config_of(origin, echo_port)) as proxy:
        yield proxy


@contextmanager
def chat(proxy, target="/", frontend="chat"):
    """Open a WebSocket through the edge."""
    host, port = proxy.frontends[frontend][0]
    with connect(f"ws://{host}:{port}{target}", max_size=None, open_timeout=10) as one:
        yield one


# WebSocket


def test_text_and_large_binary_messages_and_pings_pass_both_ways(proxy):
    with chat(proxy, "/talk") as one:
        for message in ("hello", "größer", os.urandom(1 << 20), "", os.urandom(65_536)):
            one.send(message)
            assert one.recv(10) == message
        assert one.ping().wait(10), "the pong comes back"
    line = request_line(proxy, "/talk")
    assert (line["status"], line["termination"], line["reason"]) == (101, "--", None)
    assert min(line["bytes_up"], line["bytes_down"]) > (1 << 20) + 65_536


def test_the_closing_handshake_of_either_side_arrives(proxy):
    with chat(proxy) as one:
        one.send("bye")
        with pytest.raises(ConnectionClosed) as closed:
            one.recv(10)
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4001, "see you")
    assert closed.value.sent.code == 4001
    with chat(proxy) as one:
        one.close(4002, "enough")
        assert (one.close_code, one.close_reason) == (4002, "enough")


def test_many_at_once_do_not_mix(proxy):
    def talk(number):
        with chat(proxy) as one:
            for turn in range(10):
                one.send(f"{number} {turn}")
                assert one.recv(10) == f"{number} {turn}"

    for job in [gevent.spawn(talk, number) for number in range(20)]:
        job.get(timeout=20)


def test_an_idle_one_outlives_the_timeouts_of_requests(proxy):
    with chat(proxy, frontend="quick") as one:
        gevent.sleep(1.5)  # the timeouts are a seventh of it
        one.send("still there?")
        assert one.recv(10) == "still there?"


# Byte by byte


def test_what_comes_right_behind_the_101_arrives_and_every_byte_is_counted(proxy, origin):
    heard = []

    def part(request):
        heard.append(request.wire.received)
        request.sock.sendall(AGREE + b"first words")
        request.sock.sendall(b"more")
        heard.append(read_to_end(request.sock))
        request.sock.sendall(b"last")
        return True

    origin.play(part)
    with client_of(proxy, frontend="raw") as client:
        client.send(head("GET /words HTTP/1.1", *ASK))
        response = client.read_head()
        assert (response.status, response.headers["upgrade"], response.headers["connection"]) == (
            101,
            "words",
            "upgrade",
        )
        assert client.wire.until(b"more") == b"first wordsmore"
        client.send(b"up" * 1000)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.wire.until(b"last") == b"last"
        assert client.has_ended()
        received = client.wire.received
    assert heard[1] == b"up" * 1000
    line = request_line(proxy, "/words")
    assert (line["status"], line["termination"]) == (101, "--")
    assert (line["bytes_up"], line["bytes_down"]) == (heard[0] + 2000, received)


@pytest.mark.parametrize("status", ["200 OK", "426 Upgrade Required"])
def test_a_refused_upgrade_is_an_answer_like_any_other(proxy, origin, status):
    def part(request):
        assert request.headers["upgrade"] == "words"
        assert request.headers["connection"].lower() == "upgrade"
        request.response(b"no", status=status)

    origin.play(part)
    with client_of(proxy, frontend="raw") as client:
        for _ in range(2):
            client.send(head("GET / HTTP/1.1", *ASK))
            response = client.read()
            assert (str(response.status), response.body) == (status[:3], b"no")
    assert origin.used[0] == origin.used[1]


def test_an_upgrade_that_nobody_asked_for_is_a_bad_gateway(proxy, origin):
    origin.play(lambda request: request.sock.sendall(AGREE + b"words"))
    with client_of(proxy, frontend="raw") as client:
        response = client.ask("/unasked")
        assert (response.status, b"switching_without_upgrade" in response.body) == (502, True)
        origin.part = say_who
        assert client.ask().status == 200
    assert origin.used[0] != origin.used[1]


def test_a_client_of_http_1_0_cannot_upgrade(proxy, origin):
    origin.play(lambda request: request.response(str("upgrade" in request.headers).encode()))
    with client_of(proxy, frontend="raw") as client:
        client.send(head("GET / HTTP/1.0", *ASK))
        assert client.read().body == b"False"


@pytest.mark.parametrize("ends", [False, True], ids=["reset", "close"])
def test_the_end_of_the_backend_is_the_clients(proxy, origin, ends):
    def part(request):
        request.sock.sendall(AGREE + b"words")
        assert request.wire.some() == b"go"
        if not ends:
            reset(request.sock)
        return True

    origin.play(part)
    target = f"/end-{ends}"
    with client_of(proxy, frontend="raw") as client:
        client.send(head(f"GET {target} HTTP/1.1", *ASK))
        client.read_head()
        assert client.wire.until(b"words")
        client.send(b"go")
        if ends:
            assert client.has_ended()
        else:
            with pytest.raises(ConnectionResetError):
                client.wire.some()
    assert request_line(proxy, target)["termination"] == ("--" if ends else "SD")


def test_a_quiet_one_is_ended_after_the_idle_timeout(proxy, origin):
    origin.play(lambda request: (request.sock.sendall(AGREE), request.wire.some())[0])
    with client_of(proxy, frontend="impatient") as client:
        client.send(head("GET /quiet HTTP/1.1", *ASK))
        assert client.read_head().status == 101
        with pytest.raises(ConnectionResetError):
            client.wire.some()
    line = request_line(proxy, "/quiet")
    assert (line["termination"], line["reason"]) == ("tD", "idle_timeout")


def test_what_the_client_sends_before_the_101_comes_after_it(proxy, origin):
    def part(request):
        assert not request.wire.buffered
        request.sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            request.sock.recv(1)  # nobody has agreed yet to what these bytes are
        request.sock.settimeout(10)
        request.sock.sendall(AGREE)
        request.sock.sendall(read_exactly(request.sock, 10))
        return True

    origin.play(part)
    with client_of(proxy, frontend="raw") as client:
        client.send(head("GET / HTTP/1.1", *ASK) + b"early")
        eventually(lambda: origin.requests)
        client.send(b"later")
        assert client.read_head().status == 101
        assert client.wire.until(b"later") == b"earlylater"


def test_an_upgrade_before_the_request_has_come_whole_is_a_bad_gateway(proxy, origin):
    """The new protocol begins after the request's last byte (RFC 9110, section 7.8)."""

    def part(request):
        request.sock.sendall(AGREE)
        return True

    origin.play(part)
    with client_of(proxy, frontend="raw") as client:
        client.send(head("POST / HTTP/1.1", *ASK, "Content-Length: 100000") + b"half")
        response = client.read()
    assert (response.status, b"switching_within_request" in response.body) == (502, True)


def test_a_half_closed_one_is_ended_after_the_linger_timeout(proxy, origin):
    let_go = Event()

    def part(request):
        request.sock.sendall(AGREE)
        assert read_to_end(request.sock) == b""
        let_go.wait(10)
        return True

    origin.play(part)
    with client_of(proxy, frontend="lingering") as client:
        client.send(head("GET /lingers HTTP/1.1", *ASK))
        client.read_head()
        client.sock.shutdown(socket.SHUT_WR)
        client.sock.settimeout(4)
        try:
            with pytest.raises(ConnectionResetError):
                client.wire.some()
        finally:
            let_go.set()
    line = request_line(proxy, "/lingers")
    assert (line["termination"], line["reason"]) == ("tH", "linger_timeout")


def test_the_next_request_of_a_client_is_never_read_from_an_upgraded_connection(proxy, origin):
    """Smuggled into the new protocol, it is the backend's to read."""
    heard = []

    def part(request):
        if request.target == "/":
            request.sock.sendall(AGREE)
            heard.append(read_to_end(request.sock))
        return True

    origin.play(part)
    smuggled = whole("POST /smuggled HTTP/1.1", b"x", "Host: x")
    with client_of(proxy, frontend="raw") as client:
        client.send(head("GET / HTTP/1.1", *ASK) + smuggled)
        client.read_head()
        client.sock.shutdown(socket.SHUT_WR)
        assert client.has_ended()
    assert heard == [smuggled]
    assert [request.target for request in origin.requests] == ["/"]


# Going down


def test_an_open_one_has_the_drain_time_and_is_ended_then(tmp_path, origin, echo_port):
    with http_edge(tmp_path, config_of(origin, echo_port), DRAIN_TIMEOUT_SECS=1) as proxy, chat(proxy, "/open") as one:
        one.send("a")
        assert one.recv(10) == "a"
        proxy.process.terminate()
        eventually(lambda: proxy.event("draining: "))
        one.send("b")
        assert one.recv(10) == "b", "the drain time is its own"
        assert proxy.wait() == 0
        line = request_line(proxy, "/open")
        assert (line["status"], line["termination"], line["reason"]) == (101, "KD", "drain_timeout")


def test_nothing_is_left_behind(proxy):
    await_idle(proxy)
    assert not [name for name in proxy.metrics() if "internal_errors" in name]
