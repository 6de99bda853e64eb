"""What a client gets when no backend answers properly: 502, 503 or 504 with the reason, or a reset within an answer."""

import json
import socket
from contextlib import ExitStack

import gevent
import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_origin import (
    Client,
    Origin,
    client_of,
    fresh_path,
    get,
    post,
    request_line,
    response,
    sample,
    start_edge,
    then_end,
    then_reset,
)
from tests.integration.peers import await_idle, hanging_backend, refusing_port

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\n\r\n"


class Scene:
    """Frontends before pools that fail, each in its way."""

    def __init__(self, folder, stack):
        self.origin, self.lonely, self.bad, self.good = (Origin() for _ in range(4))
        for origin in (self.origin, self.lonely, self.bad, self.good):
            stack.callback(origin.close)
        closed = [refusing_port(stack) for _ in range(4)]
        hanging = stack.enter_context(hanging_backend())

        def web(name, **more):
            return frontend(name, name, protocol="http", **more)

        judged = {"passive_statuses": [502, 503], "unhealthy_threshold": 2, "cooldown": "60s"}
        config = {
            "frontends": [
                web("web", http={"max_head_bytes": 2048, "response_timeout": "5s"}),
                web("lonely"),
                web("refusing"),
                web("hanging", tcp={"connect_timeout": "200ms"}),
                web("nobody"),
                web("resting"),
                web("half-dead"),
                web("judged"),
            ],
            "backends": [
                pool("web", self.origin.port),
                pool("lonely", self.lonely.port),
                pool("refusing", *closed[:2]),
                pool("hanging", hanging),
                {"name": "nobody", "app": "nothing"},
                {"name": "resting", "servers": [{"address": f"127.0.0.1:{self.origin.port}", "weight": 0}]},
                pool("half-dead", closed[2], self.good.port),
                pool("judged", self.bad.port, self.good.port, health_check=judged),
            ],
        }
        self.edge = start_edge(folder, config)
        stack.callback(self.edge.kill)

    def client(self, frontend="web"):
        return client_of(self.edge, frontend)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("errors"), stack)


def reason_of(message) -> str:
    """Check the form of the edge's own answer; returns the reason it gives."""
    said = json.loads(message.body)
    assert (said["status"], message["content-type"]) == (message.status, "application/json")
    assert message.line == f"HTTP/1.1 {message.status} {said['error']}"
    return said["reason"]


# Nobody to ask


@pytest.mark.parametrize(
    "frontend, status, reason, termination",
    [
        ("refusing", 502, "econnrefused", "SC"),
        ("hanging", 504, "connect_timeout", "sC"),
        ("nobody", 503, "no_backends", "PE"),
        ("resting", 503, "none_available", "PE"),
    ],
)
def test_without_a_backend_the_answer_says_why_and_the_connection_goes_on(scene, frontend, status, reason, termination):
    path = fresh_path()
    with scene.client(frontend) as client:
        message = client.ask(get(path))
        assert (message.status, reason_of(message), message["connection"]) == (status, reason, None)
        line = request_line(scene.edge, path)
        assert json.loads(message.body)["request_id"] == (line["request_id"] or "")
        assert (line["status"], line["termination"], line["reason"]) == (status, termination, reason)
        assert client.ask(post(fresh_path(), b"a body that is there")).status == status


def test_a_client_that_pipelines_what_nobody_can_serve_does_not_keep_others_waiting(scene):
    with scene.client("nobody") as many, scene.client("web") as other:
        many.send(get("/") * 1000)
        responses = gevent.spawn(lambda: [many.response().status for _ in range(1000)])
        assert other.ask(get(fresh_path())).status == 200
        assert not responses.ready(), "the loop turns between the edge's own answers"
        assert set(responses.get(timeout=10)) == {503}


def test_all_refusing_servers_are_tried_once(scene):
    path = fresh_path()
    with scene.client("refusing") as client:
        assert client.ask(get(path)).status == 502
    assert request_line(scene.edge, path)["attempts"] == 2


def test_a_server_that_refuses_is_passed_over_also_for_a_post(scene):
    with scene.client("half-dead") as client:
        for number in range(6):
            path = fresh_path()
            make = post(path, b"once") if number % 2 else get(path)
            assert client.ask(make).body == path.encode()
            assert len(scene.good.got(path)) == 1


def test_the_answer_to_a_head_has_no_body(scene):
    with scene.client("nobody") as client:
        message = client.ask(get("/", method="HEAD"), has_body=False)
        assert message.status == 503
        assert int(message["content-length"] or 0) > 0
        assert client.ask(get("/")).status == 503, "the next answer on the connection"


def test_the_connection_ends_with_the_error_where_the_body_was_not_read(scene):
    with scene.client("nobody") as client:
        client.send(get("/", "Content-Length: 100000", method="POST") + b"the beginning")
        assert client.response()["connection"] == "close"
        assert client.rest() == b""


@pytest.mark.parametrize("version, line", [("1.0", "Connection: keep-alive"), ("1.1", "Connection: close")])
def test_the_connection_ends_with_the_error_where_the_client_wants_it_or_is_old(scene, version, line):
    with scene.client("nobody") as client:
        assert client.ask(get("/", line, version=version))["connection"] == "close"
        assert client.rest() == b""


# No proper answer


@pytest.mark.parametrize(
    "garbage, reason",
    [
        (b"hello\r\n\r\n", "status_line"),
        (b"\r\n\r\n", "status_line"),
        (b"HTTP/2 200 OK\r\n\r\n", "status_line"),
        (b"HTTP/1.1 099 Low\r\n\r\n", "status_line"),
        (b"HTTP/1.1 600 High\r\n\r\n", "status_line"),
        (b"HTTP/1.1 2000 Long\r\n\r\n", "status_line"),
        (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "header_without_colon"),
        (b"HTTP/1.1 200 OK\r\nX : a\r\n\r\n", "space_before_colon"),
        (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", "obs_fold"),
        (b"HTTP/1.1 200 OK\r\nX: a\nY: b\r\n\r\n", "bare_lf"),
        (b"HTTP/1.1 200 OK\r\nX: a\x00b\r\n\r\n", "header_value"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "content_length_repeated"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "content_length"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "content_length_and_transfer_encoding",
        ),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "unknown_transfer_coding"),
        (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "transfer_encoding_in_http_1_0"),
        (CHUNKED + b"x\r\n", "bad_chunk_size"),
        (b"HTTP/1.1 103 Early\r\n\r\nhello\r\n\r\n", "status_line"),
        (b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "switching_without_upgrade"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 5000, "head_too_long"),
    ],
    ids=repr,
)
def test_a_garbled_answer_is_502_and_its_connection_is_not_used_again(scene, garbage, reason):
    def garble(visit, request):
        visit.read_body(request)
        visit.send(garbage)
        visit.wire.to_end()
        return True

    path = scene.origin.on(garble)
    with scene.client() as client:
        client.send(get(path))
        while (message := client.head()).status == 103:
            pass
        client.wire.read_body(message)
        assert (message.status, reason_of(message), message["connection"]) == (502, reason, None)
        request = scene.origin.one(path)
        assert json.loads(message.body)["request_id"] == request["x-request-id"]
        eventually(lambda: request.visit in scene.origin.ended)
        assert client.ask(get(fresh_path())).status == 200


@pytest.mark.parametrize(
    "part, reason",
    [
        (then_end(b""), "closed_before_response"),
        (then_end(b"HTTP/1.1 200 OK\r\nContent-Le"), "closed_before_response"),
        (then_end(b"HTTP/1.1 100 Continue\r\n\r\n"), "closed_before_response"),
        (then_end(b"\x15\x03\x01\x00\x02\x02\x28"), "status_line"),
        (then_reset(), "reset_before_response"),
    ],
)
def test_a_backend_that_ends_before_its_answer_is_502_and_asked_once(scene, part, reason):
    path = scene.lonely.on(part)
    with scene.client("lonely") as client:
        client.send(get(path))
        message = client.head()
        if message.status == 100:
            message = client.head()
        client.wire.read_body(message)
        assert (message.status, reason_of(message)) == (502, reason)
        assert client.ask(get(scene.lonely.on(then_end(response(b"well"))))).body == b"well"
    assert len(scene.lonely.got(path)) == 1


# A kept connection that turns out to be dead


def leave_when_kept(origin, body=b"served"):
    """Let the origin end a connection that has served before when a request comes by it, and answer otherwise."""

    def part(visit, request):
        is_kept = any(head.visit == visit.number for head in origin.heads[:-1])
        visit.read_body(request)
        if is_kept:
            return True
        visit.send(response(body))
        return False

    return origin.on(part)


def warm(client):
    assert client.ask(get(fresh_path())).status == 200


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "DELETE", "PUT", "TRACE"])
def test_an_idempotent_request_is_sent_once_more_over_a_fresh_connection(scene, method):
    path = leave_when_kept(scene.origin)
    with scene.client() as client:
        warm(client)
        request = post(path, b"put", method=method) if method == "PUT" else get(path, method=method)
        assert client.ask(request).body == b"served"
        assert client.ask(get(fresh_path())).status == 200
    first, second = scene.origin.got(path)
    assert first.visit != second.visit
    assert (first.head, first.body) == (second.head, second.body)


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_request_that_is_not_idempotent_is_not_sent_again(scene, method):
    path = leave_when_kept(scene.origin)
    with scene.client() as client:
        warm(client)
        message = client.ask(post(path, b"once", method=method))
        assert (message.status, reason_of(message)) == (502, "closed_before_response")
        assert client.ask(get(fresh_path())).status == 200
    assert len(scene.origin.got(path)) == 1


def test_it_is_sent_again_once_and_no_more(scene):
    path = scene.origin.on(then_end(b""))
    with scene.client() as client:
        warm(client)
        assert client.ask(get(path)).status == 502
    assert len(scene.origin.got(path)) == 2


def test_a_request_is_not_sent_again_after_the_beginning_of_an_answer(scene):
    path = scene.origin.on(then_end(b"HTTP/1.1 200"))
    with scene.client() as client:
        warm(client)
        assert client.ask(get(path)).status == 502
    assert len(scene.origin.got(path)) == 1


def test_a_request_is_not_sent_again_after_an_interim_answer(scene):
    path = scene.origin.on(then_end(b"HTTP/1.1 103 Early Hints\r\n\r\n"))
    with scene.client() as client:
        warm(client)
        client.send(get(path))
        assert client.head().status == 103
        assert client.response().status == 502
    assert len(scene.origin.got(path)) == 1


def test_a_request_whose_body_is_on_its_way_is_not_sent_again(scene):
    def leave(visit, request):
        return True

    path = scene.origin.on(leave)
    with scene.client() as client:
        warm(client)
        client.send(get(path, "Content-Length: 100000", method="PUT") + b"the beginning")
        message = client.response()
        assert (message.status, message["connection"]) == (502, "close")
    assert len([head for head in scene.origin.heads if head.path == path]) == 1


# Half an answer


def assert_cut(client):
    """The client sees that the answer it has begun to get is not whole."""
    assert client.head().status == 200
    with pytest.raises(ConnectionResetError):
        client.rest()


HALF_ANSWERS = {
    "short of its length": response(b"ten bytes.", length=11),
    "nothing of its length": response(length=11),
    "within a chunk": CHUNKED + b"5\r\nhel",
    "before a chunk's end": CHUNKED + b"5\r\nhello",
    "between chunks": CHUNKED + b"5\r\nhello\r\n",
    "within a size": CHUNKED + b"5\r\nhello\r\n1",
    "before the last CRLF": CHUNKED + b"5\r\nhello\r\n0\r\n",
    "within trailers": CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n",
}


@pytest.mark.parametrize("ends", [then_end, then_reset])
@pytest.mark.parametrize("data", HALF_ANSWERS.values(), ids=HALF_ANSWERS)
def test_half_an_answer_ends_in_a_reset(scene, data, ends):
    path = scene.origin.on(ends(data))
    with scene.client() as client:
        client.send(get(path))
        assert_cut(client)


@pytest.mark.parametrize("data", [CHUNKED + b"5\r\nhel", CHUNKED + b"5\r\nhello\r\n", response(b"a", length=2)])
def test_half_an_answer_to_http_1_0_ends_in_a_reset(scene, data):
    path = scene.origin.on(then_end(data))
    with scene.client() as client:
        client.send(get(path, version="1.0"))
        assert_cut(client)


def test_an_answer_without_a_length_that_is_reset_ends_in_a_reset(scene):
    path = scene.origin.on(then_reset(UNTIL_CLOSE + b"hello"))
    with scene.client() as client:
        client.send(get(path))
        assert_cut(client)


def test_an_answer_without_a_length_ends_with_its_connection(scene):
    path = scene.origin.on(then_end(UNTIL_CLOSE + b"hello"))
    with scene.client() as client:
        client.send(get(path))
        message = client.head()
        assert (message.status, message["connection"]) == (200, "close")
        assert client.rest() == b"hello"


def test_a_bad_chunk_within_an_answer_ends_in_a_reset(scene):
    def garble(visit, request):
        visit.send(CHUNKED + b"5\r\nhello\r\n")
        eventually(lambda: heard)
        visit.send(b"x\r\n")
        visit.wire.to_end()
        return True

    heard = []
    path = scene.origin.on(garble)
    with scene.client() as client:
        client.send(get(path))
        heard.append(client.head())
        with pytest.raises(ConnectionResetError):
            client.rest()


def test_half_an_answer_ends_in_a_reset_also_while_the_body_is_still_coming(scene):
    def half(visit, request):
        visit.send(UNTIL_CLOSE + b"hello")
        eventually(lambda: heard)
        visit.reset()
        return True

    heard = []
    path = scene.origin.on(half)
    with scene.client() as client:
        client.send(get(path, "Content-Length: 100000", method="POST") + b"the beginning")
        heard.append(client.head())
        with pytest.raises(ConnectionResetError):
            client.rest()


@pytest.mark.parametrize("extra", [b"\r\n", get("/never")])
def test_the_last_answer_arrives_whole_although_the_client_has_sent_more(scene, extra):
    """RFC 9112, section 9.6."""
    body = bytes(range(256)) * 4096
    heard = []

    def answer_late(visit, request):
        eventually(lambda: heard)
        visit.read_body(request)
        visit.send(response(body))

    path = scene.origin.on(answer_late)
    with socket.socket() as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(scene.edge.frontends["web"][0])
        client = Client(sock)
        client.send(get(path, "Connection: close"))
        eventually(lambda: [head for head in scene.origin.heads if head.path == path])
        client.send(extra)
        heard.append(True)
        message = client.head()
        received = bytearray()
        while len(received) < len(body):
            received += client.wire.exactly(min(32768, len(body) - len(received)))
            gevent.sleep(0.001)
        assert (message["connection"], bytes(received)) == ("close", body)
        assert client.rest() == b""


# What failures say of a backend


def test_a_backend_whose_statuses_count_as_failures_is_ejected(scene):
    path = scene.bad.on(response(b"bad", status="503 Service Unavailable"))
    scene.good.on(response(b"good"), path)
    bad = f"127.0.0.1:{scene.bad.port}"
    with scene.client("judged") as client:
        statuses = [client.ask(get(path)).status for _ in range(12)]
    assert sorted(statuses[:4]) == [200, 200, 503, 503], "in turn, until the second failure"
    assert statuses[4:] == [200] * 8
    samples = scene.edge.metrics()
    assert sample(samples, "edgeproxy_backend_available", pool="judged", backend=bad) == 0
    errors = sample(samples, "edgeproxy_backend_errors_total", pool="judged", backend=bad, reason="status_503")
    assert errors == 2


def test_a_request_counts_once_against_its_backend(scene):
    good = {"pool": "judged", "backend": f"127.0.0.1:{scene.good.port}"}
    path = scene.good.on(then_end(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\nhalf"))
    with scene.client("judged") as client:
        client.send(get(path))
        with pytest.raises(ConnectionResetError):
            client.rest()
    errors = "edgeproxy_backend_errors_total"
    eventually(lambda: sample(scene.edge.metrics(), errors, **good, reason="closed_within_response") == 1)
    assert not sample(scene.edge.metrics(), errors, **good, reason="status_503")


def test_after_all_that_nothing_is_held(scene):
    samples = await_idle(scene.edge)
    assert not [name for name in samples if name.startswith("edgeproxy_internal_errors_total{") and samples[name]]
