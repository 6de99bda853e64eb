"""The gateway in /metrics: the counts of endpoints, services and the admin API."""

from __future__ import annotations

import http.client
import re

import gevent
import pytest

from tests.admin_client import Admin, admin_of, admin_variables
from tests.harness import EdgeProcess, eventually
from tests.integration.service_peers import Redis, running

PLAIN = "def handle(request, context):\n    return 'plain'\n"
FAILS = "def handle(request, context):\n    raise ValueError('as written')\n"
SPINS = """
import time

def handle(request, context):
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        pass
    return "spun"
"""
WAITS = """
import os
import gevent

def handle(request, context):
    while not os.path.exists(request.args["for"]):
        gevent.sleep(0.01)
    return "waited"
"""
COUNTS = """
def handle(request, context):
    return str(context.cache("main").incr(request.args["key"]))
"""
SETS = """
def handle(request, context):
    context.cache("main").set("text", b"no number")
    return "set"
"""

GAUGES = (
    "edgeproxy_service_connections",
    "edgeproxy_service_connections_in_use",
    "edgeproxy_service_calls_waiting",
    "edgeproxy_service_up",
)


class Town:
    """An edge with a gateway and its admin API."""

    def __init__(self, folder):
        config = {"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}]}
        variables = {name: str(value) for name, value in admin_variables(folder).items()}
        self.proxy = EdgeProcess(folder, folder / "no.db", "", variables, config)
        self.admin = admin_of(self.proxy, folder)

    def deploy(self, name, source, **settings):
        """Deploy a handler at /name. Returns the status of the admin API."""
        self.admin.call("POST", "/api/endpoints", {"id": name, "path": f"/{name}", **settings})
        return self.admin.call("POST", f"/api/endpoints/{name}/deploy", {"source": source}).status

    def ask(self, path):
        connection = http.client.HTTPConnection(*self.proxy.address, timeout=20)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            return response.status
        finally:
            connection.close()

    def read(self, family, label, **others):
        """Return the samples of a metric by the value of a label; `others` are required label values."""
        found = {}
        for name, value in self.proxy.metrics().items():
            labels = dict(re.findall(r'(\w+)="([^"]*)"', name.removeprefix(family)))
            if name.startswith(f"{family}{{") and others.items() <= labels.items():
                found[labels[label]] = value
        return found


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    town = Town(tmp_path_factory.mktemp("town"))
    yield town
    town.proxy.kill()


def test_requests_of_an_endpoint_are_counted_by_outcome_until_it_is_removed(town):
    def now(endpoint):
        return town.read("edgeproxy_handler_requests_total", "outcome", endpoint=endpoint)

    assert town.deploy("plain", PLAIN) == 200
    assert town.deploy("fails", FAILS) == 200
    assert now("plain") == {"answered": 0, "failed": 0, "busy": 0}
    assert [town.ask("/plain") for _ in range(3)] == [200, 200, 200]
    assert town.ask("/fails") == 500
    eventually(lambda: now("plain") == {"answered": 3, "failed": 0, "busy": 0})
    eventually(lambda: now("fails") == {"answered": 0, "failed": 1, "busy": 0})
    seconds = "edgeproxy_request_duration_seconds_count"
    eventually(lambda: town.read(seconds, "code", pool="", backend="").items() >= {"200": 3, "500": 1}.items())
    assert town.admin.call("DELETE", "/api/endpoints/fails").status == 204
    assert not [name for name in town.proxy.metrics() if 'endpoint="fails"' in name]


def test_active_and_busy_requests_and_draining_versions_are_counted(town, tmp_path):
    def now():
        """Return active requests and draining versions."""
        families = ("edgeproxy_handler_requests_active", "edgeproxy_handler_versions_draining")
        return [town.read(family, "endpoint")["waits"] for family in families]

    gate = tmp_path / "gate"
    assert town.deploy("waits", WAITS, max_concurrency=1) == 200
    waiting = gevent.spawn(town.ask, f"/waits?for={gate}")
    eventually(lambda: now() == [1, 0])
    assert town.ask("/waits") == 503
    assert town.deploy("waits", PLAIN) == 200
    assert now() == [1, 1]
    gate.touch()
    assert waiting.get(timeout=10) == 200
    eventually(lambda: now() == [0, 0])
    counted = town.read("edgeproxy_handler_requests_total", "outcome", endpoint="waits")
    assert counted == {"answered": 1, "failed": 0, "busy": 1}


def test_deployments_and_rollbacks_are_counted_by_their_result(town):
    def now():
        counted = town.read("edgeproxy_handler_deployments_total", "result")
        return [counted.get(result, 0) for result in ("ok", "error")]

    ok, errors = now()
    assert town.deploy("one", PLAIN) == 200
    assert town.deploy("one", PLAIN) == 200
    assert town.deploy("one", "def handle(request, context)\n") == 422
    assert town.admin.call("POST", "/api/endpoints/one/roll-back").status == 200
    eventually(lambda: now() == [ok + 3, errors + 1])


def test_a_handler_that_blocks_the_loop_is_counted(town):
    def now():
        return town.read("edgeproxy_handler_loop_blocks_total", "endpoint")["spins"]

    assert town.deploy("spins", SPINS) == 200
    assert now() == 0
    assert town.ask("/spins") == 200
    eventually(lambda: now() >= 1)
    assert (
        eventually(lambda: town.proxy.event("endpoint spins: version 1 blocked the event loop"))["level"] == "WARNING"
    )


def test_responses_of_the_admin_api_are_counted_by_status(town):
    def now():
        return town.read("edgeproxy_admin_requests_total", "code")

    assert town.admin.call("GET", "/api/endpoints").status == 200
    before = now()
    for _ in range(2):
        assert town.admin.call("GET", "/api/endpoints").status == 200
    assert town.admin.call("GET", "/api/endpoints/none").status == 404
    assert town.admin.call("GET", "/no/such/route").status == 404
    assert Admin(town.admin.address, None).call("GET", "/api/endpoints").status == 401
    more = {"200": 2, "404": 2, "401": 1}
    after = {**before, **{code: before.get(code, 0) + count for code, count in more.items()}}
    eventually(lambda: now() == after)
    shown = {one["name"]: one for one in town.admin.get("/api/metrics")["items"]}["edgeproxy_admin_requests_total"]
    assert {"labels": {"code": "404"}, "value": after["404"]} in shown["samples"]


def test_a_service_is_counted_from_its_first_call_to_its_end(town):
    def now():
        """Return the open connections, those in use, the waiting calls, and whether the service is up."""
        samples = town.proxy.metrics()
        return [samples.get(f'{gauge}{{service="main"}}') for gauge in GAUGES]

    def counted():
        return town.read("edgeproxy_service_calls_total", "outcome")

    assert now() == [None] * 4
    assert town.deploy("counts", COUNTS) == 200
    assert town.deploy("sets", SETS) == 200
    with running(Redis) as redis:
        settings = {**redis.settings(), "connections": 1, "backlog": 1, "timeout_seconds": 3}
        made = town.admin.call("POST", "/api/services", {"name": "main", "kind": "cache", "settings": settings})
        assert made.status == 201, made
        eventually(lambda: now() == [1, 0, 0, 1])
        assert [town.ask("/counts?key=n"), town.ask("/sets"), town.ask("/counts?key=text")] == [200, 200, 500]
        assert counted() == {"served": 2, "error": 1, "timeout": 0, "busy": 0, "down": 0}
        redis.freeze()
        late = [gevent.spawn(town.ask, "/counts?key=n") for _ in range(2)]
        eventually(lambda: now()[1:3] == [1, 1], what="one call has the connection, one waits")
        assert town.ask("/counts?key=n") == 503
        assert counted()["busy"] == 1
        assert [one.get(timeout=10) for one in late] == [504, 504]
        assert counted()["timeout"] >= 1
        redis.kill()
        eventually(lambda: now() == [0, 0, 0, 0], what="it is down")
        assert town.ask("/counts?key=n") == 503
        last = counted()
        assert last["down"] >= 1
        assert last["timeout"] + last["down"] == 3, "the one that waited is either"
        assert (last["served"], last["error"], last["busy"]) == (2, 1, 1)
    assert town.admin.call("DELETE", "/api/services/main").status == 204
    assert now() == [None] * 4
    assert counted() == {}
