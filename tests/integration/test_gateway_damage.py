"""What is stored of the gateway is damaged or cannot be read: the rest serves, and nothing looks empty that is not."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager

import pytest

from app.domain.endpoints import Endpoint
from app.domain.stored import ServiceRow
from app.outbound.peewee_gateway import SqliteGatewayStore
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.token_file import make_first_token
from tests.admin_client import Admin, admin_of, admin_variables
from tests.harness import EdgeProcess, eventually, pool
from tests.integration.http_peers import Origin, client_of, live

SOURCE = "def handle(request, context):\n    return 'fine'\n"
CONFIG = {"frontends": [live("web", "web", gateway=True)], "backends": [pool("web", 1)]}


@pytest.fixture
def folder(tmp_path):
    """A folder with a gateway.db of two endpoints and two services."""
    store = SqliteGatewayStore(tmp_path / "gateway.db")
    for name in ("bad", "fine"):
        assert store.create_endpoint(Endpoint(name, name, f"/{name}"))
        assert store.set_deployed(name, store.add_version(name, SOURCE).number, time.time())
        store.save_service(ServiceRow(name, "database", {"engine": "sqlite", "path": str(tmp_path / f"{name}.db")}))
    store.close()
    return tmp_path


def run_on(folder, statement):
    with closing(sqlite3.connect(folder / "gateway.db")) as database, database:
        database.execute(statement)


@pytest.fixture
def start(folder):
    started = []

    def start(config=CONFIG):
        variables = {name: str(value) for name, value in admin_variables(folder).items()}
        started.append(EdgeProcess(folder, folder / "no.db", "", variables, config))
        return started[0]

    yield start
    for edge in started:
        edge.kill()


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE endpoints SET path = 'no slash' WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET timeout_seconds = 'soon' WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET name = CAST(x'ff00' AS TEXT) WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET path = x'2fff' WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET max_concurrency = 9e999 WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET is_enabled = 'perhaps' WHERE id = 'bad'", "endpoint"),
        ("UPDATE endpoints SET deployed = 'soon', id = CAST(id AS BLOB) WHERE id = 'bad'", "endpoint"),
        ("UPDATE services SET settings = '{' WHERE name = 'bad'", "service"),
        ("UPDATE services SET settings = CAST(x'7b22ff223a317d' AS TEXT) WHERE name = 'bad'", "service"),
        ("UPDATE services SET settings = x'ff00' WHERE name = 'bad'", "service"),
        ("UPDATE services SET kind = 'oracle' WHERE name = 'bad'", "service"),
    ],
)
def test_a_damaged_row_is_named_and_the_rest_serves(folder, start, statement, kind):
    run_on(folder, statement)
    edge = start()
    admin = admin_of(edge, folder)
    with client_of(edge) as client:
        assert client.ask("/fine").body == b"fine"
    assert edge.event(f"gateway: {kind} bad is damaged and left out: ")
    assert list(edge.ready()["gateway"]["damaged_rows"]) == [f"{kind} bad"]
    for path in ("endpoints", "services"):
        shown = admin.get(f"/api/{path}")
        is_here = path == f"{kind}s"
        assert list(shown["damaged"]) == (["bad"] if is_here else [])
        names = [one["id"] if path == "endpoints" else one["name"] for one in shown["items"]]
        assert names == (["fine"] if is_here else ["bad", "fine"])
    assert admin.call("DELETE", f"/api/{kind}s/bad").status == 204
    assert admin.get(f"/api/{kind}s")["damaged"] == {}
    assert edge.ready()["gateway"]["damaged_rows"] == {}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ("checksum = CAST(x'ff00' AS TEXT)", "checksum: is not text in UTF-8"),
        ("created_at = 'soon'", "created_at: is not a time"),
        ("deployed_at = 9e999", "deployed_at: is not a time"),
        ("number = 'last'", "number: is not a whole number of 0 or more"),
    ],
)
def test_a_damaged_version_is_named_and_the_sound_ones_are_listed(folder, start, change, fault):
    store = SqliteGatewayStore(folder / "gateway.db")
    assert store.add_version("bad", SOURCE).number == 2
    store.close()
    run_on(folder, f"UPDATE versions SET {change} WHERE endpoint_id = 'bad' AND number = 1")
    number = "last" if change.startswith("number") else "1"
    edge = start()
    admin = admin_of(edge, folder)
    assert edge.event(f"gateway: version {number} of endpoint bad is damaged and left out: {fault}")
    assert admin.get("/api/status")["details"]["gateway"]["damaged_rows"] == {
        f"version {number} of endpoint bad": fault
    }
    endpoints = admin.get("/api/endpoints")["items"]
    assert [(one["id"], one["serving"] is not None) for one in endpoints] == [("bad", False), ("fine", True)]
    shown = admin.get("/api/endpoints/bad/versions")
    assert ([one["number"] for one in shown["items"]], shown["damaged"]) == ([2], {number: fault})
    if number == "1":
        for method, path in (("GET", "source"), ("POST", "deploy"), ("POST", "compile")):
            refused = admin.call(method, f"/api/endpoints/bad/versions/1/{path}")
            assert refused.problem["status"] == 409
            assert refused.problem["detail"] == f"version 1 of endpoint bad is damaged: {fault}"
    assert admin.call("POST", "/api/endpoints/bad/versions/2/deploy").status == 200
    with client_of(edge) as client:
        assert client.ask("/bad").body == b"fine"
    assert admin.call("DELETE", "/api/endpoints/bad").status == 204
    assert edge.ready()["gateway"]["damaged_rows"] == {}


def test_a_damaged_history_is_that_of_the_times_of_the_deployments(folder, start):
    run_on(folder, "INSERT INTO deployments VALUES ('bad', 'one two')")
    admin = admin_of(start(), folder)
    assert admin.call("POST", "/api/endpoints/bad/deploy", {"source": SOURCE}).status == 200
    assert admin.call("POST", "/api/endpoints/bad/roll-back").json["number"] == 1


def test_a_damaged_endpoint_is_shown_as_one_and_not_made_twice(folder, start):
    run_on(folder, "UPDATE endpoints SET path = 'no slash', last_number = 'x' WHERE id = 'bad'")
    admin = admin_of(start(), folder)
    assert "it is damaged: last_number" in admin.call("GET", "/api/endpoints/bad").problem["detail"]
    again = admin.call("POST", "/api/endpoints", {"id": "bad", "path": "/bad"})
    assert (again.status, again.problem["detail"]) == (
        409,
        "endpoint 'bad' is stored already, and damaged: delete it first",
    )
    assert admin.call("POST", "/api/endpoints/bad/versions", {"source": SOURCE}).status == 409
    assert admin.call("DELETE", "/api/endpoints/bad").status == 204
    assert admin.call("POST", "/api/endpoints", {"id": "bad", "path": "/bad"}).status == 201


def test_what_cannot_be_read_at_the_start_is_restored_later_and_does_not_look_empty(folder, start):
    run_on(folder, "ALTER TABLE endpoints RENAME COLUMN path TO was_path")
    edge = start()
    admin = admin_of(edge, folder)
    assert "endpoints are not restored" in edge.ready()["reasons"]
    for path in ("endpoints", "endpoints/fine", "services", "services/fine"):
        assert admin.call("GET", f"/api/{path}").problem["status"] == 503
    run_on(folder, "ALTER TABLE endpoints RENAME COLUMN was_path TO path")
    eventually(lambda: edge.event("gateway: restored"), what="it is tried again")
    with client_of(edge) as client:
        assert client.ask("/fine").body == b"fine"
    assert len(admin.get("/api/endpoints")["items"]) == 2
    assert len(admin.get("/api/services")["items"]) == 2
    assert "endpoints are not restored" not in edge.ready()["reasons"]


@contextmanager
def locked(folder, *statements):
    """Lock gateway.db as another program does. Yields what gives the lock back."""
    with closing(sqlite3.connect(folder / "gateway.db", isolation_level=None)) as other:
        for statement in statements:
            other.execute(statement).fetchall()
        yield other.close


def make_token(folder):
    """Store a token as a former run of the edge did."""
    SqliteTokenStore(folder / "gateway.db").add(make_first_token(folder / "admin.token"))


@pytest.mark.parametrize("has_token", [True, False])
def test_a_file_that_is_locked_at_the_start_delays_only_what_is_in_it(folder, start, has_token):
    if has_token:
        make_token(folder)
    exclusive = locked(folder, "PRAGMA locking_mode = EXCLUSIVE", "BEGIN EXCLUSIVE")
    with closing(Origin()) as web, exclusive as unlock:
        edge = start({**CONFIG, "backends": [pool("web", web.port)]})
        with client_of(edge) as client:
            assert client.ask("/").status == 200
        assert "endpoints are not restored" in edge.ready()["reasons"]
        assert "locked" in edge.ready()["gateway"]["restore_error"]
        assert edge.event("gateway: ")["event"].endswith("database is locked; trying again every 5 s")
        assert edge.event("admin: ")["event"].endswith("database is locked; trying again every 5 s")
        listening = edge.event("listening on")["admin"].rpartition(":")
        refused = Admin((listening[0], int(listening[2])), "edge_some").call("GET", "/api/status")
        assert (refused.status, refused.headers["retry-after"]) == (503, "1")
        assert "locked" in refused.problem["detail"]
        unlock()
        eventually(lambda: edge.event("gateway: restored") and edge.event("admin: the tokens have been read"))
        assert len(admin_of(edge, folder).get("/api/endpoints")["items"]) == 2
        assert edge.ready()["ready"]
        with client_of(edge) as client:
            assert client.ask("/fine").body == b"fine"


def test_a_file_that_another_program_changes_at_the_start_is_read(folder, start):
    make_token(folder)
    with locked(folder, "BEGIN IMMEDIATE", "UPDATE endpoints SET name = 'other'"):
        edge = start()
        assert len(admin_of(edge, folder).get("/api/endpoints")["items"]) == 2
        with client_of(edge) as client:
            assert client.ask("/fine").body == b"fine"
        assert not edge.event("gateway: ")
