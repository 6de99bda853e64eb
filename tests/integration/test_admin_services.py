"""Services through the admin API, and handlers that use them."""

from __future__ import annotations

import http.client
import json
import sqlite3
from contextlib import closing

import pytest

from tests.admin_client import admin_of, admin_variables
from tests.harness import eventually

COUNTS = """
def handle(request, context):
    db = context.db("main")
    db.execute("CREATE TABLE IF NOT EXISTS visits (name TEXT)")
    db.execute("INSERT INTO visits VALUES (?)", context.params["name"])
    return {"visits": db.query("SELECT count(*) AS n FROM visits WHERE name = ?", context.params["name"])[0]["n"]}
"""


@pytest.fixture
def town(edge, tmp_path):
    """An edge with a gateway, its admin API, and an endpoint that counts visits in a database."""
    config = {"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": True}]}

    class Town:
        def start(self):
            settings = {"engine": "sqlite", "path": str(tmp_path / "v.db")}
            self.database = {"name": "main", "kind": "database", "settings": settings}
            self.proxy = edge(config=config, **admin_variables(tmp_path))
            self.admin = admin_of(self.proxy, tmp_path)
            return self

        def visit(self, name="a"):
            connection = http.client.HTTPConnection(*self.proxy.address, timeout=10)
            try:
                connection.request("GET", f"/visits/{name}")
                response = connection.getresponse()
                return response.status, json.loads(response.read())
            finally:
                connection.close()

    started = Town().start()
    started.admin.call("POST", "/api/endpoints", {"id": "visits", "path": "/visits/<name>"})
    assert started.admin.call("POST", "/api/endpoints/visits/deploy", {"source": COUNTS}).status == 200
    return started


def test_a_handler_uses_a_service_that_was_created_and_finds_it_after_a_restart(town):
    assert town.visit()[0] == 500, "there is no such service yet"
    made = town.admin.call("POST", "/api/services", town.database)
    assert (made.status, made.json["is_up"], made.json["kind"]) == (201, True, "database")
    assert town.visit() == (200, {"visits": 1})
    assert town.admin.call("POST", "/api/services/main/test").json["seconds"] >= 0
    assert town.proxy.stop() == 0
    town.start()
    assert town.visit() == (200, {"visits": 2})
    assert town.admin.get("/api/services/main")["served"] >= 3
    assert town.admin.call("DELETE", "/api/services/main").status == 204
    assert town.visit()[0] == 500
    assert town.admin.call("DELETE", "/api/services/main").status == 404


def test_faults_and_conflicts_are_reported_and_secrets_are_not(town):
    faulty = town.admin.call("POST", "/api/services", {"name": "x y", "kind": "oracle"})
    assert faulty.status == 422
    assert {fault["where"] for fault in faulty.problem["errors"]} == {"name", "kind"}
    settings = {"engine": "redis", "host": "127.0.0.1", "port": 1, "password": "open sesame"}
    made = town.admin.call("POST", "/api/services", {"name": "c", "kind": "cache", "settings": settings})
    assert made.status == 201, made.body
    assert made.json["is_up"] is False
    assert made.json["reason"]
    assert b"sesame" not in made.body
    assert b"sesame" not in town.admin.call("GET", "/api/services").body
    again = town.admin.call("POST", "/api/services", {"name": "c", "kind": "cache", "settings": settings})
    assert again.status == 409
    assert town.admin.call("POST", "/api/services/c/test").status == 502
    other = {"kind": "cache", "settings": {**settings, "password": made.json["settings"]["password"], "port": 2}}
    assert town.admin.call("PUT", "/api/services/c", other).status == 502, "the new settings give no connection"
    assert town.admin.call("PUT", "/api/services/c?even_if_down=true", other).json["settings"]["port"] == 2


def test_a_lone_surrogate_is_refused_and_logged_like_any_other_fault(town):
    refused = town.admin.call("POST", "/api/services", {"name": "\ud800", "kind": "cache", "settings": {}})
    assert (refused.status, [fault["where"] for fault in refused.problem["errors"]]) == (422, ["name"])

    def lines():
        return [line for line in town.proxy.log() if line.get("action") == "create_service"]

    (line,) = eventually(lines)
    assert (line["target"], line["status"]) == ("\\ud800", 422)


def test_a_change_that_cannot_be_stored_has_no_effect(town, tmp_path):
    kept = {"name": "kept", "kind": "database", "settings": town.database["settings"]}
    assert town.admin.call("POST", "/api/services", kept).status == 201
    other = {"kind": "database", "settings": {**kept["settings"], "max_rows": 7}}
    with closing(sqlite3.connect(tmp_path / "gateway.db", isolation_level=None)) as somebody:
        somebody.execute("BEGIN IMMEDIATE")
        responses = [
            town.admin.call("POST", "/api/services", town.database),
            town.admin.call("PUT", "/api/services/kept", other),
            town.admin.call("DELETE", "/api/services/kept"),
        ]
    assert [response.problem["status"] for response in responses] == [503, 503, 503]
    shown = town.admin.get("/api/services")["items"]
    assert [(one["name"], one["settings"]["max_rows"]) for one in shown] == [("kept", 10_000)]
    assert town.admin.call("POST", "/api/services", town.database).status == 201, "once it can be"
