"""The edge's own responses: JSON with the reason or a body of the frontend's, and their access lines."""

from __future__ import annotations

import json
from contextlib import ExitStack

import pytest

from tests.harness import eventually, pool
from tests.integration.http_peers import Origin, client_of, http_edge, live, request_line
from tests.integration.peers import refusing_port

HTML = "<h1>Bald zurück</h1>"


@pytest.fixture(scope="module")
def edge(tmp_path_factory):
    own = {
        "error_bodies": {502: {"body": HTML}, 400: {"content_type": "text/plain", "body": "no"}, 429: {"body": ""}},
        "log_headers": ["User-Agent", "Referer"],
    }
    with ExitStack() as stack:
        origin = Origin()
        stack.callback(origin.close)
        config = {
            "frontends": [
                live("plain", "gone", http={"head_timeout": "0.3s"}),
                live("own", "gone", http={**own, "head_timeout": "0.3s"}),
                live("logged", "web", http=own),
                live("one-each", "web", http=own, limits={"max_connections_per_client": 1}),
            ],
            "backends": [pool("gone", refusing_port(stack)), pool("web", origin.port)],
        }
        yield stack.enter_context(http_edge(tmp_path_factory.mktemp("own"), config))


def test_json_says_why_and_the_request_id_leads_to_the_log(edge):
    with client_of(edge, frontend="plain") as client:
        response = client.ask("/json")
    told = json.loads(response.body)
    assert (response.status, told["status"], told["reason"]) == (502, 502, request_line(edge, "/json")["reason"])
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"] == told["request_id"] == request_line(edge, "/json")["request_id"]


@pytest.mark.parametrize(
    ("data", "status"),
    [(b"GET /\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70000, 431), (b"GET / HTTP/1.1\r\n", 408)],
    ids=str,
)
@pytest.mark.parametrize("frontend", ["plain", "own"])
def test_a_request_that_was_not_read_whole_has_the_id_of_its_line(edge, frontend, data, status):
    with client_of(edge, frontend=frontend) as client:
        client.send(data)
        response = client.read()
    assert response.status == status
    request_id = response.headers["x-request-id"]
    if frontend == "plain":
        assert json.loads(response.body)["request_id"] == request_id
    line = eventually(lambda: [one for one in edge.log() if one.get("request_id") == request_id])[0]
    assert (line["event"], line["frontend"], line["status"]) == ("request", frontend, status)


def test_a_connection_that_is_not_admitted_has_the_id_of_its_line(edge):
    with client_of(edge, "127.0.9.2", frontend="one-each"), client_of(edge, "127.0.9.2", frontend="one-each") as second:
        refused = second.ask("/")
    line = eventually(lambda: [one for one in edge.access_lines() if one.get("reason") == "client_connections"])[0]
    assert (refused.status, line["event"]) == (429, "connection")
    assert refused.headers["x-request-id"] == line["request_id"]


def test_a_frontend_has_bodies_of_its_own_by_status(edge):
    with client_of(edge, frontend="own") as client:
        response = client.ask("/html")
        assert (response.status, response.body.decode()) == (502, HTML)
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["x-request-id"] == request_line(edge, "/html")["request_id"]
        head = client.ask("/head", method="HEAD")
        assert (head.status, head.headers["content-length"]) == (502, str(len(HTML.encode())))
        client.send(b"GET / HTTP/1.1\r\n\r\n")  # no Host
        bad = client.read()
        assert (bad.status, bad.headers["content-type"], bad.body) == (400, "text/plain", b"no")
    with client_of(edge, "127.0.9.1", frontend="one-each"), client_of(edge, "127.0.9.1", frontend="one-each") as second:
        refused = second.ask("/")
        assert (refused.status, refused.body) == (429, b"")


def test_named_headers_are_in_the_access_line_and_no_others(edge):
    with client_of(edge, frontend="logged") as client:
        client.ask("/all", "user-agent: curl/8", "Referer: http://a/?q=ü", "Referer: http://b/", "X-Other: 1")
        client.ask("/long", "User-Agent: " + "x" * 2000)
        client.ask("/none")
    assert request_line(edge, "/all")["headers"] == {
        "User-Agent": "curl/8",
        "Referer": "http://a/?q=Ã¼, http://b/",  # bytes as they came, in Latin-1
    }
    assert request_line(edge, "/long")["headers"] == {"User-Agent": "x" * 512}
    assert request_line(edge, "/none")["headers"] == {}
    assert "headers" not in request_line(edge, "/json")
