"""Connections kept alive on both sides: shared between requests one after the other, and only while they are sound."""

from __future__ import annotations

import _socket
import socket
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack, contextmanager
from functools import partial

import gevent
import pytest
from gevent.event import Event

from app.domain.model import parse_backend
from app.inbound.http.stream import UpstreamStream
from app.inbound.http.upstream_pool import UpstreamPool
from tests.harness import eventually, pool, row, write_backends
from tests.integration.http_peers import (
    Client,
    Origin,
    Wire,
    client_of,
    head,
    http_edge,
    leases,
    live,
    request_line,
    say_who,
    whole,
)
from tests.integration.peers import await_acknowledged, await_idle, paused, read_exactly, reset
from tests.traffic import serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture(scope="module")
def origins():
    """Three, of which most tests need the first."""
    with ExitStack() as stack:
        found = [Origin() for _ in range(3)]
        for origin in found:
            stack.callback(origin.close)
        yield found


@pytest.fixture(scope="module")
def origin_on_ipv6():
    origin = Origin(host="::1")
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def heard():
    """For each connection that the backend of `headed` got: the words of its PROXY header, the targets, its end."""
    return []


@pytest.fixture(scope="module")
def headed_port(heard):
    def serve(sock):
        line = b""
        while not line.endswith(b"\r\n"):
            line += read_exactly(sock, 1)
        mine = [line.decode().split()]
        heard.append(mine)
        wire = Wire(sock)
        while (found := wire.head()) is not None:
            mine.append(found[0].split()[1])
            sock.sendall(OK)
        mine.append("end")

    with serving(serve) as port:
        yield port


RESETTING = """
import socket, struct
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    sock, _ = server.accept()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
"""


@pytest.fixture(scope="module")
def resetting_port():
    """A process of its own: it has to be quick."""
    with subprocess.Popen([sys.executable, "-c", RESETTING], stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline())
        process.kill()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, origins, origin_on_ipv6, headed_port, resetting_port):
    three = [origin.port for origin in origins]
    config = {
        "frontends": [
            live("web", "web"),
            live("turns", "three"),
            live("sticky", "three", affinity="on"),
            live("few", "three", algorithm="least_connections"),
            live("narrow", "narrow"),
            live("two-at-once", "web", limits={"max_connections": 2}),
            live("one-each", "web", limits={"max_connections_per_client": 1}),
            live("slow", "web", limits={"connection_rate_per_client": 0.001}),
            live("six", "six") | {"listen": "[::1]:0"},
            live("behind", "web", proxy_protocol_from=["127.0.5.0/24"]),
            live("announcing", "headed", tcp={"send_proxy": "v1"}),
            live("resetting", "resetting", tcp={"send_proxy": "v1"}),
            live("announcing-and-behind", "headed", tcp={"send_proxy": "v1"}, proxy_protocol_from=["127.0.5.0/24"]),
        ],
        "backends": [
            pool("web", three[0]),
            pool("three", *three),
            {"name": "narrow", "app": "narrow"},
            {"name": "six", "servers": [{"address": f"[::1]:{origin_on_ipv6.port}"}]},
            pool("headed", headed_port),
            pool("resetting", resetting_port),
        ],
    }
    folder = tmp_path_factory.mktemp("connections")
    with http_edge(folder, config) as proxy:
        write_backends(folder / "routing.db", [row("only", three[0], app="narrow", hard_limit=1)])
        eventually(lambda: proxy.ready()["pools"]["narrow"]["candidates"] == 1)
        yield proxy


@pytest.fixture
def origin(origins):
    return origins[0]


def play_numbered(origins):
    """Let each origin answer with its number among them."""
    for number, origin in enumerate(origins):
        origin.play(lambda request, number=number: request.response(b"%d" % number))


def responses(client, count):
    return [client.ask().body.decode() for _ in range(count)]


@contextmanager
def in_flight(proxy, origins, frontend):
    """Keep a request waiting for its answer during the block; gives the number of the origin that has it."""
    go_on = Event()
    parts = [origin.part for origin in origins]
    holders = []

    def hold(number, request):
        if request.target != "/waits" or go_on.is_set():
            return parts[number](request)
        holders.append(number)
        assert go_on.wait(10)
        request.response(b"at last")
        return None

    for number, origin in enumerate(origins):
        origin.part = partial(hold, number)
    with client_of(proxy, frontend=frontend) as client:
        client.send(head("GET /waits HTTP/1.1", "Host: x"))
        yield eventually(lambda: holders, what="the request arrives")[0]
        go_on.set()
        assert client.read().body == b"at last"
    for origin, part in zip(origins, parts, strict=True):
        origin.part = part


# Sharing


def test_many_requests_over_some_clients_use_no_more_connections_to_the_backend_than_clients(proxy, origin):
    def part(request):
        request.sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            request.sock.recv(1)  # the next request comes after this one's answer, never before
        request.sock.settimeout(10)
        gevent.sleep(0.001)
        request.response(request.target.encode())

    origin.play(part)
    before = origin.accepted
    targets = [[f"/{number}/{turn}" for turn in range(40)] for number in range(8)]

    def work(own):
        with client_of(proxy) as client:
            return [client.ask(target).body.decode() for target in own]

    jobs = [gevent.spawn(work, own) for own in targets]
    assert [job.get(timeout=20) for job in jobs] == targets
    assert origin.accepted - before <= 8
    assert not [request.error for request in origin.requests if request.error]


def test_clients_one_after_the_other_share_one_connection_to_the_backend(proxy, origin):
    origin.play(say_who)
    for _ in range(20):
        with client_of(proxy) as client:
            assert client.ask().status == 200
    assert len(origin.requests) == 20
    assert len(set(origin.used)) == 1


def test_requests_of_one_connection_are_balanced_one_by_one(proxy, origins):
    play_numbered(origins)
    with client_of(proxy, frontend="turns") as client:
        assert Counter(responses(client, 9)) == {"0": 3, "1": 3, "2": 3}


# When a connection to the backend is not used again


@pytest.mark.parametrize(
    ("method", "response"),
    [
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"),
        ("GET", b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok more"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nmore"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\nmore"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nmore"),
        ("HEAD", OK),
    ],
    ids=["close", "1.0", "more than its length", "more than its chunks", "204 with a body", "304 with a body", "HEAD"],
)
def test_not_after_an_answer_that_says_so_or_that_more_follows(proxy, origin, method, response):
    """What follows an answer would be taken for the next one's."""

    def part(request):
        request.sock.sendall(response)

    origin.play(part)
    with client_of(proxy) as client:
        first = client.ask(method=method)
        assert first.body in (b"ok", b"")
        origin.part = say_who
        assert client.ask().body.decode() == str(origin.used[1])
    assert origin.used[0] != origin.used[1]


def test_not_after_an_answer_that_was_no_good(proxy, origin):
    origin.play(lambda request: request.sock.sendall(b"rubbish\r\n\r\n" + OK))
    with client_of(proxy) as client:
        assert client.ask().status == 502
        origin.part = say_who
        assert client.ask().body.decode() == str(origin.used[1])
    assert origin.used[0] != origin.used[1]


def test_not_when_the_backend_has_closed_it_meanwhile(proxy, origin):
    def part(request):
        request.response()
        if request.target == "/":
            request.sock.shutdown(socket.SHUT_WR)
            assert request.wire.some() == b"", "the edge closes its side"

    origin.play(part)
    with client_of(proxy) as client:
        for _ in range(3):
            assert client.ask().status == 200
            origin.await_end(len(origin.requests) - 1)
            assert client.ask("/again", method="POST", body=b"x").status == 200
    assert len(origin.requests) == 6


def test_not_for_two_after_a_client_left_within_its_download(proxy, origin):
    origin.play(lambda request: request.sock.sendall(head("HTTP/1.1 200 OK", "Content-Length: 1000") + b"half"))
    with client_of(proxy) as client:
        client.send(head("GET / HTTP/1.1", "Host: x"))
        client.read_head()
        reset(client.sock)
    origin.await_end()
    origin.part = say_who
    with client_of(proxy) as client:
        assert client.ask().status == 200
    assert origin.used[0] != origin.used[1]


def test_idle_connections_expire_and_are_bounded():
    backend = parse_backend(row("a", 1))
    idle = UpstreamPool(3)
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(4)]
        ends = [stack.enter_context(theirs) for _, theirs in pairs]
        for number, (ours, _) in enumerate(pairs):
            stream = UpstreamStream(_socket.socket(fileno=ours.detach()), (backend.host, backend.port))
            idle.give(stream, 10.0 + number, 100)
        assert (len(idle), ends[3].recv(1)) == (3, b""), "there are enough"
        idle.sweep(10.9)
        assert (len(idle), ends[0].recv(1)) == (2, b"")
        taken = idle.take(backend)
        assert (taken.expires_at, taken.is_reused) == (12.0, True), "the one used last"
        idle.sweep(11.0)
        assert (len(idle), ends[1].recv(1)) == (0, b"")
        taken.close()


# A kept connection found dead


def kept_then(origin, last_words=b""):
    """Play a backend that answers a connection's first request, and at its second says this and ends."""
    seen = set()

    def part(request):
        for _ in request.pieces():
            pass
        if request.connection in seen:
            request.sock.sendall(last_words)
            return True
        seen.add(request.connection)
        request.response(b"well")
        return None

    origin.play(part)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"])
def test_an_idempotent_request_is_sent_once_more_when_its_kept_connection_was_dead(proxy, origin, method):
    kept_then(origin)
    body = b"content" if method == "PUT" else None
    with client_of(proxy) as client:
        assert client.ask().status == 200
        assert client.ask("/repeated", method=method, body=body).status == 200
    targets = [(request.method, request.target) for request in origin.requests]
    assert targets[-2:] == [(method, "/repeated")] * 2
    assert origin.used[-1] != origin.used[-2]
    eventually(lambda: leases(proxy) == 0)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_that_must_not_be_repeated_is_not(proxy, origin, method):
    kept_then(origin)
    with client_of(proxy) as client:
        assert client.ask().status == 200
        response = client.ask("/once", method=method, body=b"x")
        assert (response.status, b"closed_before_response" in response.body) == (502, True)
        assert client.ask().status == 200, "the client's connection goes on"
    assert sum(request.target == "/once" for request in origin.requests) == 1


def test_a_request_is_repeated_once_and_no_more(proxy, origin):
    origin.play(say_who)
    with client_of(proxy) as client:
        assert client.ask().status == 200
        origin.play(lambda request: True)
        assert client.ask().status == 502
    assert len(origin.requests) == 2


def test_nothing_is_repeated_on_a_fresh_connection_or_after_a_byte_of_an_answer(proxy, origin):
    origin.play(lambda request: request.response(b"", "Connection: close"))
    with client_of(proxy) as client:
        assert client.ask().status == 200
        origin.play(lambda request: True)
        assert client.ask().status == 502
        assert len(origin.requests) == 1
        kept_then(origin, b"HTTP/1.1 2")
        assert client.ask().status == 200
        assert client.ask().status == 502
        assert len(origin.requests) == 2


def test_a_repeated_request_arrives_with_all_of_its_body(proxy, origin):
    content = bytes(range(250)) * 200
    asked = []

    def part(request):
        asked.append(request.target)
        if len(asked) == 2:
            reset(request.sock)
            return True
        request.response(str(sum(len(piece) for piece in request.pieces())).encode())
        return None

    origin.play(part)
    with client_of(proxy) as client:
        assert client.ask().status == 200
        with paused(proxy):
            client.send(whole("PUT /again HTTP/1.1", content, "Host: x"))
        response = client.read()
        assert (response.status, response.body) == (200, b"%d" % len(content))
        assert client.ask().status == 200
    assert asked == ["/", "/again", "/again", "/"]


# Elections


def test_affinity_keeps_a_client_on_its_server_over_requests_and_connections(proxy, origins):
    play_numbered(origins)
    seen = Counter()
    for number in range(1, 7):
        mine = set()
        for _ in range(2):
            with client_of(proxy, f"127.0.6.{number}", frontend="sticky") as client:
                mine |= set(responses(client, 3))
        assert len(mine) == 1
        seen[mine.pop()] += 1
    assert seen == {"0": 2, "1": 2, "2": 2}


def test_least_connections_counts_requests_in_flight_and_not_connections(proxy, origins):
    play_numbered(origins)
    with ExitStack() as stack:
        for _ in range(5):
            idle = stack.enter_context(client_of(proxy, frontend="turns"))
            assert idle.ask().status == 200
        client = stack.enter_context(client_of(proxy, frontend="few"))
        assert Counter(responses(client, 6)) == {"0": 2, "1": 2, "2": 2}
        with in_flight(proxy, origins, "few") as first, in_flight(proxy, origins, "few") as second:
            assert first != second
            (free,) = {0, 1, 2} - {first, second}
            assert set(responses(client, 6)) == {str(free)}
        assert Counter(responses(client, 6)) == {"0": 2, "1": 2, "2": 2}


def test_a_hard_limit_counts_requests_in_flight_and_not_connections(proxy, origin):
    origin.play(say_who)
    with client_of(proxy, frontend="narrow") as idle, client_of(proxy, frontend="narrow") as client:
        assert idle.ask().status == 200
        assert client.ask().status == 200
        with in_flight(proxy, [origin], "narrow"):
            response = client.ask()
            assert (response.status, b"all_full" in response.body) == (503, True)
            assert idle.ask().status == 503
        assert client.ask().status == 200


# Admission


def turned_away(proxy, source, frontend):
    """Connect and send a request; return status and body, once the connection has ended."""
    with client_of(proxy, source, frontend=frontend) as client:
        client.send(head("GET / HTTP/1.1", "Host: x"))
        response = client.read()
        assert response.headers["connection"] == "close"
        assert client.has_ended()
        return response.status, response.body


def test_limits_of_a_frontend_are_answered_with_503_and_those_of_a_client_with_429(proxy, origin):
    origin.play(say_who)
    with ExitStack() as stack:
        for source, name in (("1", "two-at-once"), ("2", "two-at-once"), ("1", "one-each")):
            client = stack.enter_context(client_of(proxy, f"127.0.7.{source}", frontend=name))
            assert client.ask().status == 200
        status, body = turned_away(proxy, "127.0.7.3", "two-at-once")
        assert (status, b"max_connections" in body) == (503, True)
        status, body = turned_away(proxy, "127.0.7.1", "one-each")
        assert (status, b"client_connections" in body) == (429, True)
        with client_of(proxy, "127.0.7.2", frontend="one-each") as other:
            assert other.ask().status == 200
    with client_of(proxy, "127.0.7.4", frontend="slow") as client:
        assert responses(client, 3), "one connection, however many requests"
    status, body = turned_away(proxy, "127.0.7.4", "slow")
    assert (status, b"client_rate" in body) == (429, True)
    eventually(lambda: proxy.metrics()['edgeproxy_connections_active{frontend="two-at-once"}'] == 0)
    with client_of(proxy, "127.0.7.3", frontend="two-at-once") as client:
        assert client.ask().status == 200


# Addresses


def test_over_ipv6_on_both_sides(proxy, origin_on_ipv6):
    origin_on_ipv6.play(say_who)
    with Client(socket.create_connection(proxy.frontends["six"][0], 10)) as client:
        assert client.ask("/six").status == 200
    headers = origin_on_ipv6.requests[0].headers
    assert (headers["x-forwarded-for"], 'for="[::1]"' in headers["forwarded"]) == ("::1", True)
    assert request_line(proxy, "/six")["client"] == "::1"


def test_the_address_of_a_proxy_header_is_the_clients(proxy, origin):
    origin.play(say_who)
    with client_of(proxy, "127.0.5.1", frontend="behind") as client:
        client.send(b"PROXY TCP4 203.0.113.7 192.0.2.1 4000 80\r\n" + head("GET /one HTTP/1.1", "Host: x"))
        assert client.read().status == 200
        assert client.ask("/two", "X-Forwarded-For: 198.51.100.1").status == 200
    assert [request.headers["x-forwarded-for"] for request in origin.requests] == ["203.0.113.7"] * 2
    assert {request_line(proxy, target)["client"] for target in ("/one", "/two")} == {"203.0.113.7"}


def test_a_bad_proxy_header_ends_the_connection_and_no_request_arrives(proxy, origin):
    origin.play(say_who)
    with client_of(proxy, "127.0.5.1", frontend="behind") as client, pytest.raises((EOFError, ConnectionError)):
        client.ask()
    assert not origin.requests


@pytest.mark.parametrize("frontend", ["announcing", "announcing-and-behind"])
def test_every_request_announces_its_client_on_a_connection_of_its_own(proxy, heard, frontend):
    heard.clear()
    with client_of(proxy, "127.0.5.1", frontend=frontend) as client:
        source = client.sock.getsockname()
        address, port = proxy.frontends[frontend][0]
        told = ["PROXY", "TCP4", source[0], address, str(source[1]), str(port)]
        if frontend == "announcing-and-behind":
            told = ["PROXY", "TCP6", "2001:db8::7", "2001:db8::1", "4000", "80"]
            client.send(" ".join(told).encode() + b"\r\n")
        for target in ("/1", "/2", "/3"):
            assert client.ask(target).body == b"ok"
        expected = [[told, target, "end"] for target in ("/1", "/2", "/3")]
        eventually(lambda: heard == expected, what=f"{heard} are {expected}")


def test_not_when_the_backend_said_something_while_nobody_asked(proxy, origin):
    """A late answer, an unasked 408: even when it comes together with the next request."""
    origin.play(lambda request: request.response(b"asked"))
    with client_of(proxy) as client:
        for _ in range(10):
            assert client.ask().body == b"asked"
            with paused(proxy):
                origin.requests[-1].response(b"unasked")
                await_acknowledged(origin.requests[-1].sock)
                client.send(whole("POST / HTTP/1.1", b"x", "Host: x"))
            assert client.read().body == b"asked"


def test_a_backend_that_resets_every_connection_at_once_is_a_bad_gateway(proxy):
    """Even when the reset is there before the PROXY header is sent, as it is for some when many come at once."""
    found = set()
    for _ in range(5):
        with ExitStack() as stack:
            with paused(proxy):
                clients = [stack.enter_context(client_of(proxy, frontend="resetting")) for _ in range(64)]
                for client in clients:
                    client.send(head("GET / HTTP/1.1", "Host: x"))
            found |= {client.read().status for client in clients}
    assert found == {502}
    assert not [name for name in proxy.metrics() if "internal_errors" in name]


def test_nothing_is_left_behind(proxy):
    await_idle(proxy)
    assert not [name for name in proxy.metrics() if "internal_errors" in name]
