"""What is written and counted of HTTP requests: a line for each with every field right, and exact numbers by labels."""

import json
import re
from contextlib import ExitStack, suppress

import gevent
import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_origin import (
    Origin,
    client_of,
    fresh_path,
    get,
    post,
    request_line,
    request_lines,
    response,
    sample,
    start_edge,
    then_end,
    then_reset,
)
from tests.integration.peers import await_idle, fresh_address, reset

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
FIELDS = (
    "ts event frontend listener client country region method host target status backend tier affinity attempts "
    "lease_ms connect_ms duration_ms bytes_up bytes_down termination reason request_id endpoint"
).split()


class Scene:
    """An edge before one origin, with frontends and pools of their own for what is counted."""

    def __init__(self, folder, stack):
        self.origin = Origin()
        stack.callback(self.origin.close)
        self.backend = f"127.0.0.1:{self.origin.port}"
        names = ["web", "counted", "odd", "weighed", "open", "many"]
        self.config = {
            "frontends": [
                *[frontend(name, name, protocol="http") for name in names],
                frontend("nobody", "nobody", protocol="http"),
                frontend("sticky", "web", protocol="http", affinity="on"),
            ],
            "backends": [*[pool(name, self.origin.port) for name in names], {"name": "nobody", "app": "nothing"}],
        }
        self.edge = start_edge(folder, self.config)
        stack.callback(self.edge.kill)

    def client(self, frontend="web", source=""):
        return client_of(self.edge, frontend, source)

    def requests(self, frontend, code, method, backend=None):
        """Return how many requests are counted so, as (requests_total, the histogram's count)."""
        labels = {"pool": frontend, "frontend": frontend, "code": code}
        labels["backend"] = self.backend if backend is None else backend
        samples = self.edge.metrics()
        return (
            sample(samples, "edgeproxy_requests_total", **labels, method=method),
            sample(samples, "edgeproxy_request_duration_seconds_count", **labels),
        )


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("log"), stack)


def line_from(scene, source):
    """Return the one access line of a client's requests."""

    def look():
        return [line for line in scene.edge.log() if line["event"] == "request" and line["client"] == source]

    (line,) = eventually(look, what=f"the line of {source}")
    return line


# The line


def test_the_line_of_a_request_says_everything(scene):
    source, path = fresh_address(), fresh_path()
    target = f"{path}?a=b"
    scene.origin.on(response(b"an answer", "Connection: X-Gone", "X-Gone: a"), target)
    with scene.client(source=source) as client:
        client.ask(post(target, b"a question", "Host-Not: shop"))
        received = len(client.wire.received)
    request, line = scene.origin.one(target), request_line(scene.edge, target)
    assert list(line) == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z", line["ts"])
    assert line["frontend"] == "web"
    assert line["listener"] == "{}:{}".format(*scene.edge.frontends["web"][0])
    assert (line["client"], line["country"], line["region"]) == (source, None, None)
    assert (line["method"], line["host"], line["target"]) == ("POST", "shop", target)
    assert (line["status"], line["backend"], line["affinity"], line["attempts"]) == (200, scene.backend, "new", 1)
    assert line["duration_ms"] >= line["lease_ms"] + line["connect_ms"] >= 0
    assert (line["bytes_up"], line["bytes_down"]) == (len(request.head) + 10, received)
    assert (line["termination"], line["reason"]) == ("--", None)
    assert line["request_id"] == request["x-request-id"]


def test_each_request_of_a_connection_has_its_own_line_and_the_connection_none(scene):
    source, paths = fresh_address(), [fresh_path() for _ in range(5)]
    with scene.client(source=source) as client:
        client.send(b"".join(get(path) for path in paths))
        sizes = []
        for _ in paths:
            before = client.wire.consumed
            client.response()
            sizes.append(client.wire.consumed - before)
    request_line(scene.edge, paths[-1])
    lines = [line for line in scene.edge.log() if line.get("client") == source]
    assert [(line["event"], line["target"]) for line in lines] == [("request", path) for path in paths]
    assert [line["bytes_down"] for line in lines] == sizes
    arrived = [scene.origin.one(path) for path in paths]
    assert [line["bytes_up"] for line in lines] == [len(request.head) for request in arrived]
    assert [line["request_id"] for line in lines] == [request["x-request-id"] for request in arrived]


def test_bodies_count_as_they_are_on_the_wire(scene):
    body = b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"
    path = scene.origin.on(CHUNKED + body)
    with scene.client() as client:
        message = client.ask(get(path, "Transfer-Encoding: chunked", method="POST") + body)
    line = request_line(scene.edge, path)
    assert line["bytes_up"] == len(scene.origin.one(path).head) + len(body)
    assert line["bytes_down"] == len(message.head) + len(body)


def test_interim_answers_count_as_bytes_and_the_final_one_as_status(scene):
    path = scene.origin.on(b"HTTP/1.1 103 Early Hints\r\n\r\n" + response(b"final", status="201 Created"))
    with scene.client() as client:
        client.send(get(path))
        client.head()
        client.response()
        received = len(client.wire.received)
    line = request_line(scene.edge, path)
    assert (line["status"], line["bytes_down"]) == (201, received)


def test_the_duration_lasts_from_the_requests_first_byte_to_the_answers_last(scene):
    def slowly(visit, request):
        visit.read_body(request)
        visit.send(response(b"a", length=2))
        gevent.sleep(0.1)
        visit.send(b"b")

    path = scene.origin.on(slowly)
    with scene.client() as client:
        gevent.sleep(0.2)  # before the first byte, it does not count
        client.send(get(path)[:5])
        gevent.sleep(0.1)
        client.ask(get(path)[5:])
        gevent.sleep(0.1)
        client.ask(get(path))
    first, second = request_lines(scene.edge, path, 2)
    assert first["duration_ms"] >= 200
    assert second["duration_ms"] >= 100


def test_the_target_of_an_absolute_form_and_a_sticky_clients_affinity_are_in_the_line(scene):
    path = fresh_path()
    with scene.client("sticky", fresh_address()) as client:
        client.ask(get(f"http://else:81{path}"))
        client.ask(get(path))
    first, second = request_lines(scene.edge, path, 2)
    assert (first["host"], first["target"], first["affinity"]) == ("else:81", path, "new")
    assert (second["host"], second["affinity"]) == ("shop", "hit")


def ending_badly(scene, source):
    """Yield what goes wrong with requests, each from the next `source()`, as (status, termination, reason, path)."""
    origin = scene.origin

    def asks(request):
        with scene.client(source=source()) as client:
            client.send(request)
            client.wire.until(b"\r\n\r\n")
            with suppress(ConnectionResetError):
                client.rest()

    def close(path):
        return get(path, "Connection: close")

    path = origin.on(then_end(b""))
    asks(post(path, b"", "Connection: close"))
    yield 502, "SW", "closed_before_response", path
    path = origin.on(then_reset())
    asks(post(path, b"", "Connection: close"))
    yield 502, "SW", "reset_before_response", path
    path = origin.on(then_end(b"hello\r\n\r\n"))
    asks(close(path))
    yield 502, "PW", "status_line", path
    for data in (response(b"a", length=2), CHUNKED + b"5\r\nhel"):
        for ends in (then_end, then_reset):
            path = origin.on(ends(data))
            asks(get(path))
            yield 200, "SD", "closed_within_response", path
    path = fresh_path()
    asks(get(path, "Transfer-Encoding: chunked", method="POST") + b"x\r\n")
    yield 400, "PD", "bad_chunk_size", path


def test_the_line_says_how_a_request_ended_badly(scene):
    sources = []

    def source():
        sources.append(fresh_address())
        return sources[-1]

    endings = list(ending_badly(scene, source))
    for client, (status, termination, reason, path) in zip(sources, endings, strict=True):
        line = line_from(scene, client)
        assert (line["status"], line["termination"], line["reason"]) == (status, termination, reason)
        assert (line["event"], line["target"], line["host"]) == ("request", path, "shop")
        for request in scene.origin.got(path):
            assert line["request_id"] == request["x-request-id"]


def test_the_line_of_what_was_refused_names_no_request(scene):
    source = fresh_address()
    with scene.client(source=source) as client:
        message = client.ask(get("/refused", "X : a"))
        client.rest()
        received = len(client.wire.received)
    line = line_from(scene, source)
    assert (line["status"], line["termination"], line["reason"]) == (400, "PR", "space_before_colon")
    nothing = ["method", "host", "target", "backend", "tier", "affinity"]
    assert [line[field] for field in nothing] == [None] * len(nothing)
    assert line["request_id"] == message["x-request-id"]
    assert (line["bytes_up"], line["bytes_down"], line["attempts"]) == (0, received, 0)
    assert 0 <= line["duration_ms"] < 5000


def test_the_line_of_an_answer_of_the_edges_own_counts_its_bytes_to_the_client_alone(scene):
    path = fresh_path()
    with scene.client("nobody") as client:
        message = client.ask(get(path))
        received = len(client.wire.received)
    line = request_line(scene.edge, path)
    assert (line["status"], line["backend"], line["attempts"]) == (503, None, 0)
    assert (line["bytes_up"], line["bytes_down"]) == (0, received)
    assert line["request_id"] == json.loads(message.body)["request_id"]


def test_a_client_that_resets_while_it_waits_has_a_line_without_status(scene):
    def wait(visit, request):
        visit.read_body(request)
        visit.wire.to_end()
        return True

    path = scene.origin.on(wait)
    with scene.client() as client:
        client.send(get(path))
        eventually(lambda: scene.origin.got(path))
        reset(client.sock)
    line = request_line(scene.edge, path)
    assert (line["status"], line["termination"], line["reason"]) == (None, "CW", "client_gone")
    eventually(lambda: scene.origin.one(path).visit in scene.origin.ended)


def test_a_client_that_leaves_within_its_body_has_a_line_without_status(scene):
    path = fresh_path()
    with scene.client() as client:
        client.send(get(path, "Content-Length: 100000", method="POST") + b"half")
        eventually(lambda: [head for head in scene.origin.heads if head.path == path])
    line = request_line(scene.edge, path)
    assert (line["status"], line["termination"], line["reason"]) == (None, "CD", "client_gone")


def test_a_request_sent_again_says_so_in_its_line(scene):
    def leave_once(visit, request):
        visit.read_body(request)
        if len(scene.origin.got(path)) == 1:
            return True
        visit.send(response(b"served"))
        return False

    path = scene.origin.on(leave_once)
    with scene.client() as client:
        client.ask(get(fresh_path()))
        assert client.ask(get(path)).body == b"served"
    first, second = scene.origin.got(path)
    line = request_line(scene.edge, path)
    assert (line["status"], line["termination"], line["attempts"]) == (200, "--", 2)
    assert line["bytes_up"] == len(second.head)
    assert line["request_id"] == first["x-request-id"] == second["x-request-id"]


# Metrics


def test_requests_are_counted_by_code_and_method(scene):
    missing = scene.origin.on(response(status="404 Not Found"))
    with scene.client("counted") as client:
        for _ in range(3):
            client.ask(get(fresh_path()))
        for _ in range(2):
            client.ask(post(fresh_path(), b"a"))
        client.ask(get(missing))
        client.ask(get(missing, method="HEAD"), has_body=False)
    eventually(lambda: scene.requests("counted", "404", "HEAD")[0])
    assert scene.requests("counted", "200", "GET") == (3, 5)
    assert scene.requests("counted", "200", "POST") == (2, 5)
    assert scene.requests("counted", "404", "GET") == (1, 2)
    assert scene.requests("counted", "404", "HEAD") == (1, 2)


def test_odd_codes_and_the_edges_own_are_counted_too(scene):
    for status in (299, 418, 599):
        path = scene.origin.on(response(status=f"{status} Odd"))
        with scene.client("odd") as client:
            assert client.ask(get(path)).status == status
    path = scene.origin.on(then_end(b"HTTP/1.1 600 High\r\n\r\n"))
    with scene.client("odd") as client:
        assert client.ask(get(path)).status == 502
        assert client.ask(b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n").status == 501
    with scene.client("odd") as client:
        assert client.ask(get(fresh_path(), method="PROPFIND")).status == 200
    eventually(lambda: scene.requests("odd", "501", "", backend="")[0])
    assert scene.requests("odd", "200", "other") == (1, 1), "methods that are seldom seen are counted together"
    for code in ("2xx", "418", "5xx", "502"):
        assert scene.requests("odd", code, "GET") == (1, 1), code
    assert scene.requests("odd", "501", "", backend="") == (1, 1)
    assert not [name for name in scene.edge.metrics() if 'code="600"' in name or 'method="BREW"' in name]


def test_the_duration_histogram_sums_up_what_requests_took(scene):
    def late(visit, request):
        gevent.sleep(0.12)
        visit.send(response())

    path = scene.origin.on(late)
    with scene.client("weighed") as client:
        client.ask(get(path))
    eventually(lambda: scene.requests("weighed", "200", "GET")[0])
    samples, name = scene.edge.metrics(), "edgeproxy_request_duration_seconds"
    labels = {"pool": "weighed", "frontend": "weighed", "backend": scene.backend, "code": "200"}
    seconds = sample(samples, name + "_sum", **labels)
    assert 0.12 <= seconds < 5
    assert sample(samples, name + "_bucket", **labels, le="0.1") == 0
    assert sample(samples, name + "_bucket", **labels, le="+Inf") == 1


def test_bytes_are_counted_by_backend_without_the_edges_own_answers(scene):
    def moved():
        samples, labels = scene.edge.metrics(), {"pool": "weighed", "backend": scene.backend}
        names = ("edgeproxy_backend_bytes_sent_total", "edgeproxy_backend_bytes_received_total")
        return tuple(sample(samples, name, **labels) for name in names)

    await_idle(scene.edge)
    down_before, up_before = eventually(lambda: moved()[0] and moved())
    garbled, last = scene.origin.on(then_end(b"hello\r\n\r\n")), fresh_path()
    with scene.client("weighed") as client:
        own = client.ask(get(garbled))
        client.ask(get(last))
        down = len(client.wire.received) - len(own.head) - len(own.body)
        assert own.status == 502
    up = len(scene.origin.one(garbled).head) + len(scene.origin.one(last).head)
    eventually(lambda: moved() == (down_before + down, up_before + up), what=f"{down} and {up} bytes")


def test_the_edges_own_answers_make_no_series_of_bytes_of_a_backend(scene):
    with scene.client("nobody") as client:
        client.ask(get(fresh_path(), method="PATCH"))
    eventually(lambda: scene.requests("nobody", "503", "PATCH", backend="")[0])
    assert not [name for name in scene.edge.metrics() if "backend_bytes" in name and 'backend=""' in name]


def test_open_connections_and_leases_are_counted_by_frontend_and_backend(scene):
    def state():
        samples = scene.edge.metrics()
        return (
            sample(samples, "edgeproxy_connections_active", frontend="open"),
            sample(samples, "edgeproxy_connections_total", frontend="open"),
            sample(samples, "edgeproxy_backend_connections_active", pool="open", backend=scene.backend),
        )

    held = []

    def hold(visit, request):
        visit.read_body(request)
        eventually(lambda: held)
        visit.send(response())

    path = scene.origin.on(hold)
    with ExitStack() as stack:
        waiting, idle = stack.enter_context(scene.client("open")), stack.enter_context(scene.client("open"))
        idle.ask(get(fresh_path()))
        waiting.send(get(path))
        eventually(lambda: state() == (2, 2, 1), what="an idle connection holds no lease")
        held.append(True)
        assert waiting.response().status == 200
        eventually(lambda: state() == (2, 2, 0))
    eventually(lambda: state() == (0, 2, 0))


def test_as_many_backend_connections_as_requests_at_a_time_are_kept_within_bounds(scene):
    """At most 256 idle ones a server (app.inbound.http.upstream_pool)."""
    arrived = []

    def together(visit, request):
        visit.read_body(request)
        arrived.append(visit.number)
        eventually(lambda: len(arrived) == 300, what="300 requests at once")
        visit.send(response())

    path = scene.origin.on(together)
    with ExitStack() as stack:
        clients = [stack.enter_context(scene.client("many")) for _ in range(300)]
        for client in clients:
            client.send(get(path))
        for client in clients:
            assert client.response().status == 200
        eventually(lambda: len(scene.origin.ended.intersection(arrived)) >= 300 - 256)
        for client in clients:
            assert client.ask(get(fresh_path())).status == 200
    samples = await_idle(scene.edge)
    assert len(set(arrived)) == 300
    assert sample(samples, "edgeproxy_backend_connections_active", pool="many", backend=scene.backend) == 0


# After a change, and a flood


def test_requests_without_a_backend_are_counted_also_after_a_change_of_the_backends(scene):
    def refused():
        return scene.requests("nobody", "503", "GET", backend="")[0]

    def ask():
        with scene.client("nobody") as client:
            assert client.ask(get(fresh_path())).status == 503

    ask()
    before = eventually(refused)
    changed = {**scene.config, "backends": [*scene.config["backends"], pool("more", scene.origin.port)]}
    assert scene.edge.reload(changed)["event"].startswith("configuration reloaded")
    ask()
    eventually(lambda: refused() == before + 1, what="one more request without a backend")


def test_a_flood_of_requests_that_get_no_backend_is_counted_in_full_and_logged_in_brief(scene):
    before = len(scene.edge.log())
    counted = scene.requests("nobody", "503", "DELETE", backend="")[0]
    with scene.client("nobody") as client:
        client.send(get("/flood", method="DELETE") * 200)
        assert [client.response().status for _ in range(200)] == [503] * 200

    def accounted_for():
        lines = scene.edge.log()[before:]
        written = [line for line in lines if line.get("target") == "/flood"]
        summed = sum(line.get("refused_no_backends", 0) for line in lines)
        return (len(written), summed) if len(written) + summed == 200 else None

    written, summed = eventually(accounted_for)
    assert written <= 100 <= summed
    eventually(lambda: scene.requests("nobody", "503", "DELETE", backend="")[0] == counted + 200)


def test_after_all_that_nothing_is_held_and_nothing_was_unexpected(scene):
    samples = await_idle(scene.edge)
    assert not [name for name in samples if name.startswith("edgeproxy_internal_errors_total{") and samples[name]]
