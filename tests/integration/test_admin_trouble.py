"""The admin API while parts of the edge fail: an actor that restarts, an actor that is down, a broken route."""

from __future__ import annotations

import gevent
import pytest

from actors.runtime import Crash, ask
from app.admin import pools
from tests.admin_client import Admin, admin_variables
from tests.edge_in_process import edge_in_process
from tests.harness import eventually, row


@pytest.fixture
def inside(tmp_path):
    with edge_in_process(tmp_path, [row("a", 1)], **admin_variables(tmp_path)) as inside:
        address = inside.parts.admin.address
        inside.admin = Admin((address.host, address.port), (tmp_path / "admin.token").read_text().strip())
        yield inside


def crash(inside, name):
    with pytest.raises(Exception, match=r".*"):  # which one depends on timing
        ask(inside.actor(name), Crash(), timeout_s=1)


def test_a_restarted_actor_shows_its_restart_and_its_new_age(inside):
    before = {one["name"]: one for one in inside.admin.get("/api/actors")["items"]}
    crash(inside, "registry")

    def restarted():
        actors = {one["name"]: one for one in inside.admin.get("/api/actors")["items"]}
        return actors["registry"]["restarts"] == 1 and actors

    after = eventually(restarted)
    assert after["registry"]["uptime_seconds"] < before["registry"]["uptime_seconds"] + 1
    assert after["bindings"]["restarts"] == 0
    assert inside.admin.get("/api/pools")["items"]


def test_an_actor_that_is_down_is_503_with_retry_after_and_other_routes_respond(inside, monkeypatch):
    monkeypatch.setattr(pools, "ASK_TIMEOUT_SECONDS", 0.2)
    inside.parts.supervisor.stop()  # the supervisor does not restart it
    crash(inside, "registry")
    response = inside.admin.call("GET", "/api/pools")
    assert response.problem["status"] == 503
    assert response.headers["retry-after"] == "1"
    assert {one["name"] for one in inside.admin.get("/api/actors")["items"]} >= {"bindings", "metrics"}


def test_a_broken_route_is_500_with_its_traceback_in_the_log_alone(inside, monkeypatch):
    def broken(*_arguments, **_more):
        raise ZeroDivisionError("hunter2")

    monkeypatch.setattr(pools, "ask", broken)
    response = inside.admin.call("GET", "/api/pools")
    assert response.problem["status"] == 500
    assert b"hunter2" not in response.body
    (line,) = eventually(lambda: [line for line in inside.logged() if line["event"] == "admin: GET /api/pools failed"])
    assert "ZeroDivisionError: hunter2" in line["traceback"]


def test_it_keeps_responding_to_many_clients_at_once(inside):
    def look():
        for path in ("/api/status", "/api/backends", "/api/bindings", "/api/connections", "/api/metrics"):
            assert inside.admin.get(path)

    with gevent.Timeout(30):
        for greenlet in [gevent.spawn(look) for _ in range(30)]:
            greenlet.get()
