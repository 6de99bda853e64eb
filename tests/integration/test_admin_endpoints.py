"""Endpoints and handlers through the admin API, and the responses that follow: deploy, swap, roll back, undeploy."""

from __future__ import annotations

import http.client
import json
from collections import Counter

import gevent
import pytest

from tests.admin_client import admin_of, admin_variables
from tests.harness import eventually

SWAPS, CLIENTS = 50, 8


def says(text):
    return f"def handle(request, context):\n    return {text!r}\n"


@pytest.fixture
def town(edge, tmp_path):
    """An edge with a gateway alone, and its admin API."""
    config = {"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}]}

    class Town:
        def __init__(self):
            self.start()

        def start(self):
            self.proxy = edge(config=config, **admin_variables(tmp_path))
            self.admin = admin_of(self.proxy, tmp_path)

        def create(self, name="hello", path="/hello", **fields):
            return self.admin.call("POST", "/api/endpoints", {"id": name, "path": path, **fields})

        def deploy(self, source, name="hello"):
            return self.admin.call("POST", f"/api/endpoints/{name}/deploy", {"source": source})

        def ask(self, path="/hello"):
            connection = http.client.HTTPConnection(*self.proxy.address, timeout=10)
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                return response.status, response.read().decode()
            finally:
                connection.close()

    return Town()


def test_an_endpoint_is_created_deployed_swapped_rolled_back_and_undeployed(town):
    assert town.ask()[0] == 404
    made = town.create()
    assert (made.status, made.json["methods"], made.json["serving"]) == (201, ["GET"], None)
    assert town.ask()[0] == 503
    assert town.deploy(says("one")).json["number"] == 1
    assert town.ask() == (200, "one")
    assert town.deploy(says("two")).json["number"] == 2
    assert town.ask() == (200, "two")
    assert town.admin.call("POST", "/api/endpoints/hello/roll-back").json["number"] == 1
    assert town.ask() == (200, "one")
    assert town.admin.call("POST", "/api/endpoints/hello/versions/2/deploy").status == 200
    assert town.ask() == (200, "two")
    state = town.admin.get("/api/endpoints/hello")
    assert (state["serving"]["number"], state["served"], state["errors"], state["draining"]) == (2, 4, 0, [])
    assert [one["number"] for one in town.admin.get("/api/endpoints/hello/versions")["items"]] == [1, 2]
    assert town.admin.call("POST", "/api/endpoints/hello/undeploy").status == 204
    assert town.ask()[0] == 503
    assert town.admin.call("DELETE", "/api/endpoints/hello").status == 204
    assert town.ask()[0] == 404


def test_a_handler_prints_to_the_log_and_aborts_in_json(town):
    town.create()
    town.deploy("def handle(request, context):\n    print('seen', request.path)\n    context.missing = 1\n")
    assert town.ask()[0] == 500
    town.deploy(
        "from app.gateway.sdk import abort\n\ndef handle(request, context):\n    print('gone')\n    abort(410)\n"
    )
    status, body = town.ask()
    assert (status, json.loads(body)["error"]) == (410, "Gone")
    for event, version in (("seen /hello", 1), ("gone", 2)):
        line = eventually(lambda event=event: town.proxy.event(event))
        assert (line["level"], line["endpoint"], line["version"]) == ("INFO", "hello", version)


LOUD = """
class Loud:
    def __repr__(self):
        print("looked at")
        return "loud"


def handle(request, context):
    loud = Loud()
    raise ValueError(f"{request.path} fails")
"""


def test_a_logged_traceback_does_not_look_at_variables(town):
    town.create()
    town.deploy(LOUD)
    assert town.ask()[0] == 500
    line = eventually(lambda: town.proxy.event("endpoint hello: version 1 failed: ValueError: /hello fails"))
    assert "in handle" in line["traceback"]
    assert town.proxy.event("looked at") is None, "the repr of a large value would hold the event loop"


@pytest.mark.parametrize(
    ("source", "where", "said"),
    [
        ("def handle(request, context)\n    pass", "line 1", "SyntaxError"),
        ("import nothing_of_that_name\ndef handle(r, c): pass", "line 1", "nothing_of_that_name"),
        ("x = 1\n\nraise ValueError('as it loads')", "line 3", "as it loads"),
        ("def answer(request, context): pass", "entry", "handle"),
    ],
)
def test_a_source_without_a_handler_is_refused_with_its_line_and_the_old_version_serves(town, source, where, said):
    town.create()
    town.deploy(says("good"))
    refused = town.deploy(source)
    assert refused.status == 422
    assert said in refused.problem["detail"]
    assert refused.problem["errors"][0]["where"].startswith(where)
    assert town.ask() == (200, "good")


def test_deployed_versions_serve_after_a_restart(town):
    town.create(path="/<name>")
    town.deploy(says("kept"))
    assert town.proxy.stop() == 0
    town.start()
    assert town.ask("/anything") == (200, "kept")


def test_a_truncated_body_counts_as_an_error(town):
    town.create()
    breaks_off = "def handle(request, context):\n    return (str(1 // n) for n in (1, 0))\n"
    assert town.deploy(breaks_off).status == 200
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        town.ask()
    state = eventually(lambda: [one for one in [town.admin.get("/api/endpoints/hello")] if one["active"] == 0])[0]
    assert (state["served"], state["errors"]) == (1, 1)


def test_a_client_that_leaves_is_not_an_error_of_the_handler(town):
    town.create()
    town.deploy("def handle(request, context):\n    while True:\n        yield bytes(65536)\n")
    with town.proxy.connect() as sock:
        sock.sendall(b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n")
        eventually(lambda: town.admin.get("/api/endpoints/hello")["active"])
    state = eventually(lambda: [one for one in [town.admin.get("/api/endpoints/hello")] if one["active"] == 0])[0]
    assert (state["served"], state["errors"]) == (1, 0)


def test_conflicts_and_faults_are_reported(town):
    assert town.create().status == 201
    assert town.create().problem["status"] == 409
    assert town.create("other").problem["status"] == 409, "the same requests"
    faulty = town.create("Bad Id", "no slash", timeout_seconds=0)
    assert faulty.status == 422
    assert {fault["where"] for fault in faulty.problem["errors"]} == {"id", "path", "timeout_seconds"}
    assert town.admin.call("GET", "/api/endpoints/nothing").status == 404
    assert town.admin.call("POST", "/api/endpoints/nothing/roll-back").status == 404
    changed = town.admin.call("PUT", "/api/endpoints/hello", {"path": "/hi", "methods": ["POST"]})
    assert (changed.json["path"], changed.json["methods"]) == ("/hi", ["POST"])
    assert town.ask()[0] == 404


def test_a_source_is_stored_compiled_and_shown_without_deployment(town):
    town.create()
    kept = town.admin.call("POST", "/api/endpoints/hello/versions", {"source": says("kept")})
    assert (kept.status, kept.json["deployed_at"]) == (201, None)
    assert town.admin.call("POST", "/api/endpoints/hello/versions/1/compile").status == 200
    assert town.admin.get("/api/endpoints/hello/versions/1/source")["source"] == says("kept")
    assert town.ask()[0] == 503


def test_swaps_under_load_fail_no_request_and_each_is_served_by_one_version(town):
    town.create()
    town.deploy(says("0"))
    responses: Counter[tuple[int, str]] = Counter()
    is_over = []

    def keep_asking():
        connection = http.client.HTTPConnection(*town.proxy.address, timeout=10)
        while not is_over:
            connection.request("GET", "/hello")
            response = connection.getresponse()
            responses[response.status, response.read().decode()] += 1
        connection.close()

    asking = [gevent.spawn(keep_asking) for _ in range(CLIENTS)]
    for number in range(1, SWAPS + 1):
        assert town.deploy(says(str(number))).status == 200
        before = responses.total()
        eventually(lambda before=before: responses.total() > before + CLIENTS, what="requests begun after the swap")
    is_over.append(True)
    gevent.joinall(asking, raise_error=True)
    assert {status for status, _ in responses} == {200}
    assert {text for _, text in responses} == {str(number) for number in range(SWAPS + 1)}
    eventually(lambda: not town.admin.get("/api/endpoints/hello")["draining"])
