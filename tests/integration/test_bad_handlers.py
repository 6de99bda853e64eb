"""Handlers that will not end: what their clients get, what others get meanwhile, and what SIGTERM does."""

from __future__ import annotations

import time
from contextlib import ExitStack

import gevent
import pytest

from app.domain.endpoints import Endpoint
from app.outbound.peewee_gateway import SqliteGatewayStore
from tests.admin_client import admin_of, admin_variables
from tests.harness import EdgeProcess, eventually, pool
from tests.integration.http_peers import Origin, client_of, live, request_line

SOURCES = {
    "loops": "while True: pass",
    "computes": "end = time.monotonic() + 1.5\nwhile time.monotonic() < end: pass\nreturn 'late'",
    "waits": "gevent.sleep(60)",
    "catches-exceptions": "try: gevent.sleep(60)\nexcept Exception: pass\nreturn 'caught'",
    "catches-everything": "try: gevent.sleep(60)\nexcept BaseException: pass\nreturn 'caught'",
    "waits-on": "while True:\n    try: gevent.sleep(60)\n    except BaseException: pass",
    "loops-on": (
        "for _ in range(2):\n    try:\n        while True: pass\n    except BaseException: pass\nreturn 'caught'"
    ),
    "leaves-a-timer": "gevent.Timeout(0.1).start()\nreturn 'x'",
    "leaves-a-kill": "gevent.spawn_later(0.1, gevent.kill, gevent.getcurrent())\nreturn 'x'",
    "naps": "gevent.sleep(0.3)\nreturn 'rested'",
    "needs-a-service": "from app.gateway.sdk import ServiceDown\nraise ServiceDown('main', 'refused')",
    "refuses": "return 'of the handler', 500",
    "exits": "raise SystemExit(3)",
    "exits-hard": "raise KeyboardInterrupt",
    "kills": (
        "from app.domain.errors import Killed\nfrom app.domain.outcome import State\n"
        "raise Killed(State.KILLED, 'drain')"
    ),
    "describes-in-a-loop": ("class Odd(Exception):\n    def __str__(self):\n        while True: pass\nraise Odd"),
    "describes-slowly": ("class Odd(Exception):\n    def __str__(self):\n        time.sleep(60)\nraise Odd"),
    "closes-slowly": (
        "from app.gateway.sdk import Response\nmade = Response('x')\n"
        "made.call_on_close(lambda: time.sleep(60))\nreturn made"
    ),
    "starts-threads": "import threading\nthreading.Thread(target=gevent.sleep, args=(60,)).start()\nreturn 'started'",
    "streams-on": (
        "def parts():\n    yield 'begun'\n    while True:\n        try: gevent.sleep(60)\n"
        "        except BaseException: pass\nreturn parts()"
    ),
}
STATUS = (
    {"exits": 500, "exits-hard": 500, "refuses": 500, "needs-a-service": 503}
    | dict.fromkeys(("kills", "describes-in-a-loop", "describes-slowly"), 500)
    | dict.fromkeys(("closes-slowly", "starts-threads", "streams-on", "leaves-a-timer", "leaves-a-kill", "naps"), 200)
)
"""Others are 504."""


def source_of(body):
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    return f"import time\nimport gevent\n\n\ndef handle(request, context):\n{lines}"


class Scene:
    """An edge with these handlers, each with room for one request unless `room` says otherwise."""

    def __init__(self, folder, stack, names=tuple(SOURCES), limit=0.5, room=1):
        store = SqliteGatewayStore(folder / "gateway.db")
        for name in names:
            seconds = max(limit, 5.0) if name == "naps" else limit  # it is to end by itself on a busy machine, too
            assert store.create_endpoint(
                Endpoint(name, name, f"/{name}", timeout_seconds=seconds, max_concurrency=room)
            )
            version = store.add_version(name, source_of(SOURCES[name]))
            assert store.set_deployed(name, version.number, time.time())
        store.close()
        origin = Origin()
        stack.callback(origin.close)
        own = {"error_bodies": {status: {"body": f"own {status}"} for status in (500, 503, 504)}}
        frontends = [live("web", "web", gateway=True), live("own", "web", gateway=True, http=own)]
        config = {"frontends": frontends, "backends": [pool("web", origin.port)]}
        variables = {name: str(value) for name, value in admin_variables(folder).items()}
        self.edge = EdgeProcess(folder, folder / "no.db", "", variables, config)
        stack.callback(self.edge.kill)
        self.admin = admin_of(self.edge, folder)

    def ask(self, target, frontend="web"):
        with client_of(self.edge, frontend=frontend) as client:
            return client.ask(target)


@pytest.fixture
def scene(tmp_path):
    with ExitStack() as stack:
        yield Scene(tmp_path, stack)


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "streams-on"])
def test_its_client_gets_a_response_in_time_and_its_slot_is_given_back(scene, name):
    for _ in range(2):  # the loop's second time takes it out of service
        started = time.monotonic()
        assert scene.ask(f"/{name}").status == STATUS.get(name, 504)
        assert time.monotonic() - started < 10
        assert scene.ask("/elsewhere").status == 200, "the pool's clients"


@pytest.mark.parametrize("name", ["catches-exceptions", "catches-everything", "waits-on", "streams-on"])
def test_an_operator_ends_its_connection_for_good(tmp_path, name):
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, [name], limit=60)
        with client_of(scene.edge) as client:
            client.send(f"GET /{name} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            (found,) = eventually(lambda: scene.admin.get("/api/connections")["items"])
            assert scene.admin.call("DELETE", f"/api/connections/{found['id']}").status == 204
            line = request_line(scene.edge, f"/{name}")
            assert (line["termination"], line["status"]) == ("KD", STATUS.get(name))
        endpoint = f'edgeproxy_handler_requests_active{{endpoint="{name}"}}'
        assert scene.edge.metrics()[endpoint] == 0


@pytest.mark.parametrize("name", ["leaves-a-timer", "leaves-a-kill"])
def test_what_one_leaves_behind_hits_no_other(scene, name):
    assert scene.ask("/naps").status == 200
    for _ in range(3):
        assert scene.ask(f"/{name}").status == 200
        assert scene.ask("/naps").body == b"rested", "it falls due meanwhile"
    assert scene.ask(f"/{name}").status == 200, "its own greenlet was hit while it was idle"


def test_a_connection_outlives_a_close_that_waits(scene):
    with client_of(scene.edge) as client:
        for _ in range(2):
            assert client.ask("/closes-slowly").body == b"x"
    eventually(lambda: scene.edge.event("endpoint closes-slowly: version 1 took longer than 0.5 s"))


def test_one_that_does_not_end_when_it_is_abandoned_is_logged(scene):
    assert scene.ask("/waits-on").status == 504
    event = eventually(lambda: scene.edge.event("endpoint waits-on: version 1 was abandoned and does not end"))
    assert event["level"] == "ERROR"
    assert scene.ask("/catches-everything").status == 504
    gevent.sleep(1.2)
    assert scene.edge.event("endpoint catches-everything: version 1 was abandoned") is None


def test_one_that_holds_the_loop_twice_is_taken_out_of_service(scene):
    for _ in range(2):
        assert scene.ask("/loops").status == 504
    eventually(lambda: scene.ask("/loops").status == 503)
    eventually(lambda: scene.edge.event("endpoint loops: version 1 is out of service: it holds the event loop"))
    (loops,) = [one for one in scene.admin.get("/api/endpoints")["items"] if one["id"] == "loops"]
    assert loops["serving"] is None


def test_the_requests_of_one_that_holds_the_loop_do_not_hold_it_each_in_turn(tmp_path):
    with ExitStack() as stack:
        scene = Scene(tmp_path, stack, ["loops", "naps"], limit=1, room=20)
        for _ in range(2):  # deployed again it begins anew, and is taken out again
            started = time.monotonic()
            calls = [gevent.spawn(scene.ask, "/loops") for _ in range(10)]
            gevent.sleep(0.5)
            assert scene.ask("/elsewhere").status == 200
            assert time.monotonic() - started < 4
            statuses = sorted(call.get().status for call in calls)
            assert (statuses[:2], statuses[-2:]) == ([503, 503], [504, 504])
            assert statuses.count(503) == 8
            eventually(lambda: scene.admin.get("/api/endpoints/loops")["serving"] is None)
            assert scene.ask("/naps").status == 200
            assert scene.admin.call("POST", "/api/endpoints/loops/versions/1/deploy").status == 200


def test_a_frontends_own_bodies_are_for_failures_too(scene):
    for target, status in (("/exits", 500), ("/waits", 504), ("/needs-a-service", 503)):
        response = scene.ask(target, frontend="own")
        assert (response.status, response.body) == (status, f"own {status}".encode())
        assert response.headers["content-type"] == "text/html; charset=utf-8"
        assert response.headers["x-request-id"] == request_line(scene.edge, target)["request_id"]
    assert response.headers["retry-after"] == "1"
    assert scene.ask("/refuses", frontend="own").body == b"of the handler"
    with client_of(scene.edge, frontend="own") as client:
        assert client.ask("/exits", method="HEAD").status == 500
        assert client.ask("/exits").body == b"own 500", "the connection is kept"


def test_sigterm_ends_an_edge_whose_handler_loops(scene):
    with client_of(scene.edge) as client:
        client.send(b"GET /loops HTTP/1.1\r\nHost: x\r\n\r\n")
        gevent.sleep(0.2)
        started = time.monotonic()
        assert scene.edge.stop() == 0
        assert time.monotonic() - started < 10


def test_a_source_that_loops_when_it_is_imported_is_refused(scene):
    refused = scene.admin.call("POST", "/api/endpoints/loops/deploy", {"source": "while True:\n    pass\n"})
    assert refused.status == 422
    assert "neither waited nor returned" in refused.problem["detail"]
    assert scene.ask("/elsewhere").status == 200
