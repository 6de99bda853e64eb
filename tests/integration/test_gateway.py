"""Requests to handlers of the gateway, through the whole edge."""

from __future__ import annotations

import hashlib
import http.client
import json
import time
from contextlib import ExitStack

import gevent
import pytest

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.harness import EdgeProcess, eventually, frontend, pool
from tests.traffic import serving

HELLO = """
def handle(request, context):
    return {"hello": context.params["name"], "query": request.args.get("q"), "id": context.request_id}
"""
ECHO = """
def handle(request, context):
    return request.get_data(), 200, {"X-Method": request.method, "Content-Type": "text/plain"}
"""
FAILS = """
def handle(request, context):
    raise ValueError("as written")
"""
SLEEPS = """
import gevent

def handle(request, context):
    gevent.sleep(60)
"""
STREAMS = """
def handle(request, context):
    return (f"part {number} " for number in range(3))
"""
BREAKS_OFF = """
def handle(request, context):
    yield "half"
    raise ValueError("in the middle")
"""

ENDPOINTS = [
    (Endpoint("hello", "hello", "/hello/<name>"), HELLO),
    (Endpoint("echo", "echo", "/echo", methods=("POST", "PUT"), max_body_bytes=1000), ECHO),
    (Endpoint("fails", "fails", "/fails"), FAILS),
    (Endpoint("sleeps", "sleeps", "/sleeps", timeout_seconds=0.2), SLEEPS),
    (Endpoint("one", "one", "/one", timeout_seconds=1, max_concurrency=1), SLEEPS),
    (Endpoint("streams", "streams", "/streams"), STREAMS),
    (Endpoint("breaks-off", "breaks off", "/breaks-off"), BREAKS_OFF),
    (Endpoint("empty", "empty", "/empty"), None),
]


class Scene:
    """An edge with handlers stored before it starts."""

    def __init__(self, folder, stack):
        store = SqliteGatewayStore(folder / "gateway.db")
        for endpoint, source in ENDPOINTS:
            assert store.create_endpoint(endpoint)
            if source is not None:
                version = store.add_version(endpoint.id, source)
                assert store.set_deployed(endpoint.id, version.number, time.time())
        store.close()
        port = stack.enter_context(serving(_origin))
        config = {
            "frontends": [
                {"name": "alone", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True},
                frontend("before", "web", protocol="http", gateway=True),
            ],
            "backends": [pool("web", port)],
        }
        variables = {"GEOIP_PATH": "off", "GATEWAY_DB_PATH": str(folder / "gateway.db")}
        self.edge = EdgeProcess(folder, folder / "no.db", "", variables, config)
        stack.callback(self.edge.kill)

    def ask(self, path, method="GET", body=None, frontend="alone", **headers):
        """Return status, headers and body of the response."""
        connection = http.client.HTTPConnection(*self.edge.frontends[frontend][0], timeout=10)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def line(self, target):
        """Return the access line of a request."""
        return eventually(lambda: [line for line in self.edge.log() if line.get("target") == target])[-1]


def _origin(sock):
    sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nbackend")


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("gateway"), stack)


def reason_of(body):
    return json.loads(body)["reason"]


def test_a_handler_gets_parameters_query_and_request_id(scene):
    status, headers, body = scene.ask("/hello/J%C3%BCrgen?q=1")
    said = json.loads(body)
    assert (status, headers["content-type"], said["hello"], said["query"]) == (200, "application/json", "Jürgen", "1")
    line = scene.line("/hello/J%C3%BCrgen?q=1")
    assert (line["status"], line["endpoint"], line["request_id"], line["backend"]) == (200, "hello", said["id"], None)
    assert line["bytes_down"] > len(body)


def test_a_connection_is_kept_for_handlers_too_and_a_head_gets_no_body(scene):
    connection = http.client.HTTPConnection(*scene.edge.frontends["alone"][0], timeout=10)
    for method in ("GET", "HEAD", "GET"):
        connection.request(method, "/hello/x")
        sock, response = connection.sock, connection.getresponse()
        assert response.status == 200
        assert bool(response.read()) == (method == "GET")
        assert connection.sock is sock
    connection.close()


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_handler_gets_the_whole_body(scene, size, is_chunked):
    data = hashlib.sha256(b"x").digest() * 40
    body = iter([data[:size][at : at + 100] for at in range(0, size, 100)]) if is_chunked else data[:size]
    status, headers, echoed = scene.ask("/echo", "POST", body)
    assert (status, headers["x-method"], echoed) == (200, "POST", data[:size])


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_beyond_the_endpoints_limit_is_413(scene, is_chunked):
    data = bytes(1001)
    status, _, body = scene.ask("/echo", "POST", iter([data]) if is_chunked else data)
    assert (status, reason_of(body)) == (413, "body_too_large")


def test_a_wrong_method_is_405_with_allow(scene):
    status, headers, body = scene.ask("/echo")
    assert (status, reason_of(body)) == (405, "method_not_allowed")
    assert {"POST", "PUT"} <= set(headers["allow"].split(", "))


def test_a_request_without_an_endpoint_goes_to_the_pool_or_is_404(scene):
    assert scene.ask("/elsewhere", frontend="before")[2] == b"backend"
    status, _, body = scene.ask("/elsewhere")
    assert (status, reason_of(body)) == (404, "no_endpoint")
    assert json.loads(scene.ask("/hello/both", frontend="before")[2])["hello"] == "both"


def test_an_endpoint_without_a_handler_is_503(scene):
    assert scene.ask("/empty")[0] == 503


def test_a_handler_that_raises_is_500_with_its_traceback_in_the_log(scene):
    status, _, body = scene.ask("/fails")
    said = json.loads(body)
    assert (status, said["reason"]) == (500, "handler_failed")
    (event,) = eventually(
        lambda: [x for x in scene.edge.log() if x.get("request_id") == said["request_id"] and "level" in x]
    )
    assert 'raise ValueError("as written")' in event["traceback"]


def test_a_handler_that_takes_too_long_is_504(scene):
    status, _, body = scene.ask("/sleeps")
    assert (status, reason_of(body)) == (504, "handler_timeout")


def test_beyond_its_concurrency_an_endpoint_is_busy(scene):
    asking = [gevent.spawn(scene.ask, "/one") for _ in range(5)]
    responses = [one.get(timeout=10) for one in asking]
    assert sorted(status for status, _, _ in responses) == [503, 503, 503, 503, 504], "one at a time"
    for status, headers, body in responses:
        if status == 503:
            assert (reason_of(body), headers["retry-after"]) == ("endpoint_busy", "1")


def test_a_streamed_response_is_chunked(scene):
    status, headers, body = scene.ask("/streams")
    assert (status, headers["transfer-encoding"], body) == (200, "chunked", b"part 0 part 1 part 2 ")


def test_a_truncated_stream_does_not_look_complete(scene):
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        scene.ask("/breaks-off")


def test_no_internal_error_was_counted(scene):
    samples = scene.edge.metrics()
    assert not [name for name in samples if name.startswith("edgeproxy_internal_errors_total{")]
    requests = [value for name, value in samples.items() if name.startswith("edgeproxy_requests_total{")]
    assert sum(requests) > 10
