"""The admin API's routes, each against a real edge with real connections."""

from __future__ import annotations

import json
import sqlite3
from urllib.parse import quote

import pytest

from tests.admin_client import admin_of, admin_variables, edge_with_admin
from tests.commands import command
from tests.harness import eventually, frontend, pool, row
from tests.traffic import ask, is_cut, named, who


@pytest.fixture
def town(edge, origin, tmp_path):
    """An edge with two backends that send their names, and its admin API."""
    ports = {name: origin(named(name)) for name in ("gru", "scl")}
    rows = [row("gru", ports["gru"]), row("scl", ports["scl"], weight=0)]

    class Town:
        proxy = edge(rows, **admin_variables(tmp_path))
        admin = admin_of(proxy, tmp_path)

    Town.proxy.wait_for_backends(1)
    Town.ports = ports
    return Town


@pytest.fixture(scope="module")
def admin(tmp_path_factory):
    """The admin API of one edge with one backend, for the tests that leave that backend as it is."""
    with edge_with_admin(tmp_path_factory.mktemp("shared"), [row("gru", 1)]) as (_, admin):
        yield admin


# Backends


def test_backends_are_listed_including_refused_ones(town, routing_db):
    with sqlite3.connect(routing_db) as database:
        database.execute("INSERT INTO backends (id, wg_ip, port) VALUES ('bad', 'no where', 0)")
        database.execute("INSERT INTO backends (id, wg_ip, port, deleted) VALUES ('old', '10.0.0.1', 1, 1)")
        database.execute("INSERT INTO backends (id, wg_ip, port, healthy) VALUES ('ill', '10.0.0.1', 2, 0)")
        database.execute("INSERT INTO backends (id, wg_ip, port) VALUES ('blob', x'00ff', 2)")
    database.close()
    found = town.admin.get("/api/backends")
    assert {one["id"]: one["state"] for one in found["items"]} == {
        "bad": "refused", "blob": "refused", "gru": "serving", "ill": "unhealthy", "old": "drained", "scl": "serving",
    }  # fmt: skip
    (bad,) = [one for one in found["items"] if one["id"] == "bad"]
    assert len(bad["faults"]) == 2
    assert (found["total"], found["next"]) == (6, None)


def test_backends_come_in_pages(town):
    first = town.admin.get("/api/backends?count=1")
    assert ([one["id"] for one in first["items"]], first["total"], first["next"]) == (["gru"], 2, 1)
    second = town.admin.get(f"/api/backends?count=1&first={first['next']}")
    assert ([one["id"] for one in second["items"]], second["next"]) == (["scl"], None)
    assert town.admin.get("/api/backends?first=7")["items"] == []


def test_a_backend_is_registered_serves_and_is_removed(town, origin):
    new = {"id": "new", "wg_ip": "127.0.0.1", "port": origin(named("new")), "country": "br", "weight": 3}
    made = town.admin.call("POST", "/api/backends", new)
    assert made.status == 201
    assert made.json["country"] == "BR"
    assert made.json["soft_limit"] == 100
    assert town.admin.get("/api/backends/new") == made.json
    town.proxy.wait_for_backends(2)
    assert town.admin.call("DELETE", "/api/backends/new").status == 204
    town.proxy.wait_for_backends(1)
    assert town.admin.call("GET", "/api/backends/new").problem["status"] == 404


def test_a_registered_backend_is_validated_like_every_row(admin):
    response = admin.call("POST", "/api/backends", {"id": " ", "wg_ip": "x!", "port": 0, "weight": "many"})
    assert response.status == 422
    assert {fault["where"] for fault in response.problem["errors"]} == {"id", "wg_ip", "port", "weight"}


def test_the_same_backend_is_not_registered_twice_but_may_be_put(town):
    columns = {"wg_ip": "127.0.0.1", "port": town.ports["gru"], "weight": 9}
    assert town.admin.call("POST", "/api/backends", {"id": "gru", **columns}).problem["status"] == 409
    assert town.admin.get("/api/backends/gru")["weight"] == 1
    assert town.admin.call("PUT", "/api/backends/gru", columns).json["weight"] == 9
    assert town.admin.get("/api/backends/gru")["weight"] == 9
    assert town.admin.call("PUT", "/api/backends/put", columns).status == 200
    assert town.admin.get("/api/backends/put")["port"] == town.ports["gru"]
    assert town.admin.call("PUT", "/api/backends/put", {**columns, "id": "other"}).status == 422


def test_a_backend_is_drained_with_a_deadline_and_undrained(town):
    with town.proxy.connect() as held:
        assert ask(held) == "gru"
        assert town.admin.call("POST", "/api/backends/gru/drain?deadline_seconds=0").status == 204
        town.proxy.wait_for_backends(0)
        assert eventually(lambda: not town.admin.get("/api/connections")["items"])
    assert town.admin.get("/api/backends/gru")["state"] == "drained"
    assert town.admin.call("POST", "/api/backends/gru/undrain").status == 204
    town.proxy.wait_for_backends(1)
    assert town.admin.get("/api/backends/gru")["drain_deadline"] is None


def test_a_drain_without_deadline_ends_no_connection(town):
    assert town.admin.call("POST", "/api/backends/gru/drain").status == 204
    assert town.admin.get("/api/backends/gru")["drain_deadline"] is None


@pytest.mark.parametrize("seconds", ["-1", "1e99", "nan", "inf", "soon"])
def test_an_invalid_deadline_is_refused(admin, seconds):
    assert admin.call("POST", f"/api/backends/gru/drain?deadline_seconds={seconds}").problem["status"] == 422
    assert admin.get("/api/backends/gru")["state"] == "serving"


@pytest.mark.parametrize("call", ["GET X", "DELETE X", "POST X/drain", "POST X/undrain"])
def test_an_unknown_id_is_404(admin, call):
    method, path = call.split()
    response = admin.call(method, "/api/backends/" + path.replace("X", "nobody"))
    assert "no such backend: nobody" in response.problem["detail"]
    assert response.status == 404


@pytest.mark.parametrize("backend_id", ["10.0.0.1:80", "a/b", "a b", "drain", "x/drain", "100%"])
def test_an_id_is_what_parse_backend_allows(admin, backend_id):
    path = f"/api/backends/{quote(backend_id, safe='')}"
    columns = {"wg_ip": "127.0.0.1", "port": 1}
    assert admin.call("POST", "/api/backends", {"id": backend_id, **columns}).status == 201
    assert admin.get(path)["id"] == backend_id
    assert admin.call("POST", f"{path}/drain").status == 204
    assert admin.get(path)["state"] == "drained"
    assert admin.call("DELETE", path).status == 204
    assert admin.call("GET", path).status == 404


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE"])
def test_an_operation_of_a_backend_takes_post_only(admin, method):
    for operation in ("drain", "undrain"):
        response = admin.call(method, f"/api/backends/gru/{operation}")
        assert (response.status, response.headers["allow"]) == (405, "POST")
    assert admin.get("/api/backends/gru")["id"] == "gru"


def test_a_locked_database_is_503_with_retry_after(town, routing_db):
    with sqlite3.connect(routing_db, isolation_level=None) as locker:
        locker.execute("BEGIN EXCLUSIVE")
        response = town.admin.call("POST", "/api/backends/gru/drain")
        assert "locked" in response.problem["detail"]
        assert (response.status, response.headers["retry-after"]) == (503, "1")
        locker.execute("ROLLBACK")
    locker.close()
    assert town.admin.call("POST", "/api/backends/gru/drain").status == 204


def test_a_missing_database_is_503_and_not_created_by_a_read(town, routing_db):
    for path in routing_db.parent.glob("routing.db*"):
        path.unlink()
    response = town.admin.call("GET", "/api/backends")
    assert "does not exist" in response.problem["detail"]
    assert response.status == 503
    assert not routing_db.exists()


def test_an_edge_with_servers_of_its_own_has_no_backends_to_change(edge, tmp_path):
    config = {"frontends": [frontend("web", "p")], "backends": [pool("p", 1)]}
    admin = admin_of(edge(config=config, **admin_variables(tmp_path)), tmp_path)
    assert admin.call("GET", "/api/backends").problem["status"] == 409
    assert admin.call("DELETE", "/api/backends/x").problem["status"] == 409
    url, token = "http://{}:{}".format(*admin.address), str(tmp_path / "admin.token")
    done = command("backends", "--api", url, "drain", "127.0.0.1:1", ADMIN_TOKEN_FILE=token)
    assert "edge.yaml, where weight: 0 and a reload drain one" in done.stderr


def test_the_response_for_a_server_of_the_file_says_how_to_drain_it(edge, routing_db, tmp_path):
    config = {
        "frontends": [frontend("web", "p"), frontend("rows", "q")],
        "backends": [pool("p", 1), {"name": "q", "app": ""}],
    }
    proxy = edge([row("gru", 2)], config=config, **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    for call in ("POST X/drain", "POST X/undrain", "DELETE X"):
        method, path = call.split()
        problem = admin.call(method, "/api/backends/" + path.replace("X", "127.0.0.1:1")).problem
        assert problem["status"] == 409
        assert problem["detail"] == (
            f"127.0.0.1:1 is a server of {proxy.config_path}, not of the routing database: "
            "to drain it, give it weight: 0 there and reload; to remove it, remove it there"
        )
    assert admin.call("POST", "/api/backends/nobody/drain").problem["status"] == 404
    assert admin.call("POST", "/api/backends/gru/drain").status == 204
    done = command("backends", "--db", routing_db, "drain", "127.0.0.1:1", CONFIG=str(proxy.config_path))
    assert done.stderr == (
        f"backends: no such backend: 127.0.0.1:1 (servers of {proxy.config_path} are drained there: weight: 0, and a "
        "reload); nothing was changed\n"
    )


# Connections and bindings


def test_open_connections_are_listed_and_one_is_dropped(town):
    with town.proxy.connect("127.0.0.2") as one, town.proxy.connect("127.0.0.3") as other:
        assert ask(one) == ask(other) == "gru"
        first, second = town.admin.get("/api/connections")["items"]
        assert (first["client"], second["client"]) == ("127.0.0.2", "127.0.0.3")
        assert first["client_port"] == one.getsockname()[1]
        assert first["backend"] == "gru"
        assert (first["frontend"], first["pool"], first["protocol"]) == ("edge", "default", "tcp")
        assert (first["bytes_up"], first["bytes_down"]) == (4, 4)
        assert first["age_seconds"] >= second["age_seconds"] >= 0
        assert town.admin.get("/api/connections?client=127.0.0.3")["items"][0]["id"] == second["id"]
        assert town.admin.get("/api/connections?backend=scl")["total"] == 0
        assert town.admin.get("/api/connections?frontend=edge&count=1")["next"] == 1
        assert town.admin.call("DELETE", f"/api/connections/{first['id']}").status == 204
        assert is_cut(one)
        eventually(lambda: town.admin.get("/api/connections")["total"] == 1)
        assert town.admin.call("DELETE", f"/api/connections/{first['id']}").problem["status"] == 404
        (line,) = eventually(town.proxy.access_lines)
        assert (line["termination"], line["reason"]) == ("KD", "operator")


def test_all_connections_of_one_client_are_dropped(town):
    with (
        town.proxy.connect("127.0.0.2") as one,
        town.proxy.connect("127.0.0.2") as two,
        town.proxy.connect("127.0.0.3") as other,
    ):
        assert {ask(held) for held in (one, two, other)} == {"gru"}
        assert town.admin.call("DELETE", "/api/clients/127.0.0.2/connections").json == {"dropped": 2}
        for dropped in (one, two):
            assert is_cut(dropped)
        eventually(lambda: [c["client"] for c in town.admin.get("/api/connections")["items"]] == ["127.0.0.3"])
    assert town.admin.call("DELETE", "/api/clients/127.0.0.9/connections").json == {"dropped": 0}


def test_bindings_are_listed_looked_up_and_ended(town):
    for number in range(2, 7):
        assert who(town.proxy, f"127.0.0.{number}") == "gru"
    page = town.admin.get("/api/bindings?count=3")
    assert (len(page["items"]), page["total"]) == (3, 5)
    rest = town.admin.get(f"/api/bindings?cursor={page['next']}")
    assert rest["next"] is None
    assert {one["client"] for one in page["items"] + rest["items"]} == {f"127.0.0.{n}" for n in range(2, 7)}
    one = town.admin.get("/api/bindings/default/127.0.0.2")
    assert (one["pool"], one["client"], one["backend"]) == ("default", "127.0.0.2", "gru")
    assert 590 < one["expires_in_seconds"] <= 600
    assert town.admin.get("/api/bindings/default/::ffff:127.0.0.2")["client"] == "127.0.0.2"
    assert town.admin.get("/api/bindings?backend=scl")["items"] == []
    assert len(town.admin.get("/api/bindings?pool=default&backend=gru")["items"]) == 5
    assert town.admin.call("DELETE", "/api/bindings/default/127.0.0.2").status == 204
    assert town.admin.call("GET", "/api/bindings/default/127.0.0.2").problem["status"] == 404
    assert town.admin.call("DELETE", "/api/bindings/default/127.0.0.2").status == 404
    assert town.admin.get("/api/bindings")["total"] == 4


def test_looking_a_binding_up_selects_no_backend(town):
    assert town.admin.call("GET", "/api/bindings/default/127.0.0.2").status == 404
    assert who(town.proxy, "127.0.0.2") == "gru"  # would wait for the selection that another client holds


def backends(town):
    return town.admin.get("/api/pools/default/backends")["items"]


def test_the_binding_decides_the_next_connection(town):
    assert who(town.proxy, "127.0.0.2") == "gru"
    columns = {"wg_ip": "127.0.0.1", "country": "BR", "region": "sa"}
    town.admin.call("PUT", "/api/backends/gru", {**columns, "port": town.ports["gru"], "weight": 0})
    town.admin.call("PUT", "/api/backends/scl", {**columns, "port": town.ports["scl"], "weight": 1})
    eventually(lambda: [one["id"] for one in backends(town) if one["takes_new_clients"]] == ["scl"])
    assert (who(town.proxy, "127.0.0.9"), who(town.proxy, "127.0.0.2")) == ("scl", "gru")
    assert town.admin.call("DELETE", "/api/bindings/default/127.0.0.2").status == 204
    assert who(town.proxy, "127.0.0.2") == "scl"


# Other routes


def test_pools_backends_and_frontends_have_their_current_state(town):
    assert town.admin.get("/api/pools")["items"] == [
        {
            "name": "default", "app": "", "frontends": ["edge"], "health_check": "off",
            "backends": 2, "candidates": 1, "fails_open": False,
        }
    ]  # fmt: skip
    with town.proxy.connect() as held:
        assert ask(held) == "gru"
        members = town.admin.get("/api/pools/default/backends")
        gru, scl = sorted(members["items"], key=lambda one: one["id"])
        assert (gru["connections"], gru["state"], gru["takes_new_clients"]) == (1, "up", True)
        assert (scl["connections"], scl["weight"], scl["takes_new_clients"]) == (0, 0, False)
        (front,) = town.admin.get("/api/frontends")["items"]
        assert front["listeners"] == ["{}:{}".format(*town.proxy.address)]
        assert (front["name"], front["pool"], front["algorithm"], front["connections"]) == ("edge", "default", "geo", 1)
    page = town.admin.get("/api/pools/default/backends?count=1&first=1")
    assert (len(page["items"]), page["total"], page["next"]) == (1, 2, None)
    assert town.admin.call("GET", "/api/pools/nowhere/backends").problem["status"] == 404


def test_actors_are_listed_with_depth_restarts_and_uptime(town):
    actors = {one["name"]: one for one in town.admin.get("/api/actors")["items"]}
    assert set(actors) == {"registry", "bindings", "metrics", "health", "handlers", "registrations"}
    assert all(one["restarts"] == 0 and one["uptime_seconds"] > 0 for one in actors.values())


def test_an_address_is_explained_with_the_current_state(town):
    assert who(town.proxy, "127.0.0.2") == "gru"
    explained = town.admin.get("/api/explain?client=127.0.0.2")
    assert (explained["bound_to"], explained["pop_region"], explained["frontend"]) == ("gru", "sa", "edge")
    gru, scl = explained["items"]
    assert (gru["id"], gru["tier"], gru["connections"], gru["takes_new_clients"]) == ("gru", 2, 0, True)
    assert "weight 0" in scl["why"]
    assert town.admin.call("GET", "/api/explain?client=nobody").problem["status"] == 422
    assert town.admin.call("GET", "/api/explain?client=127.0.0.2&frontend=x").problem["status"] == 404


def test_metrics_are_the_numbers_of_the_status_listener(town):
    assert who(town.proxy) == "gru"
    eventually(lambda: town.proxy.metrics().get('edgeproxy_connections_total{frontend="edge"}') == 1)
    metrics = {one["name"]: one for one in town.admin.get("/api/metrics")["items"]}
    assert metrics["edgeproxy_connections_total"]["samples"] == [{"labels": {"frontend": "edge"}, "value": 1.0}]
    (seen,) = metrics["edgeproxy_backend_rtt_seconds"]["samples"]
    assert (seen["labels"], seen["count"]) == ({"pool": "default", "backend": "gru"}, 1)
    assert seen["buckets"][-1] == {"le": None, "count": 1}
    exposed = {name.partition("{")[0] for name in town.proxy.metrics()}
    assert {name for name, one in metrics.items() if one["samples"] and one["kind"] != "histogram"} <= exposed


def test_the_status_agrees_with_ready(town):
    status = town.admin.get("/api/status")
    assert status["ready"]
    assert status["details"]["candidates"] == 1
    town.admin.call("POST", "/api/backends/gru/drain")
    eventually(lambda: town.admin.get("/api/status")["reasons"] == ["no candidate backend"])


def test_log_lines_are_listed_from_any_number_on(town):
    assert who(town.proxy) == "gru"
    lines = eventually(lambda: [x for x in town.admin.get("/api/logs")["items"] if x["line"]["event"] == "connection"])
    assert lines[0]["line"]["backend"] == "gru"
    number = lines[0]["number"]
    (same,) = town.admin.get(f"/api/logs?since={number}&count=1")["items"]
    assert same == lines[0]
    after = town.admin.get("/api/logs?since=999999")
    assert (after["items"], after["next"]) == ([], 999999)


def events(file):
    """Read server-sent events: (id, event, data)."""
    fields = {}
    for raw in file:
        line = raw.decode().rstrip("\n")
        if line:
            name, _, text = line.partition(":")
            fields[name] = text.strip()
        elif fields:
            if "data" in fields:
                yield fields.get("id"), fields.get("event"), json.loads(fields["data"])
            fields = {}


def test_the_log_is_streamed_and_resumed_after_an_interruption(town):
    import http.client

    def open_stream(**headers):
        connection = http.client.HTTPConnection(*town.admin.address, timeout=10)
        connection.request(
            "GET", "/api/logs/stream", headers={"Authorization": f"Bearer {town.admin.token}", **headers}
        )
        response = connection.getresponse()
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        return connection, events(response)

    connection, stream = open_stream()
    assert any(data["event"].startswith("listening on") for _, _, data in stream)
    who(town.proxy, "127.0.0.2")
    number, event, data = next(found for found in stream if found[2]["event"] == "connection")
    assert (event, data["client"]) == ("line", "127.0.0.2")
    connection.close()
    who(town.proxy, "127.0.0.3")
    connection, stream = open_stream(**{"Last-Event-ID": number})
    following, _, data = next(stream)
    assert (int(following), data["client"]) == (int(number) + 1, "127.0.0.3")
    connection.close()


def test_the_streams_end_when_the_edge_does(town):
    import http.client
    import time

    connection = http.client.HTTPConnection(*town.admin.address, timeout=10)
    connection.request("GET", "/api/logs/stream", headers={"Authorization": f"Bearer {town.admin.token}"})
    response = connection.getresponse()
    started = time.monotonic()
    assert town.proxy.stop() == 0
    assert time.monotonic() - started < 3
    response.read()
    connection.close()


def test_the_number_of_streams_is_limited_and_a_closed_one_is_not_counted(town):
    import http.client

    def stream():
        connection = http.client.HTTPConnection(*town.admin.address, timeout=10)
        connection.request("GET", "/api/logs/stream", headers={"Authorization": f"Bearer {town.admin.token}"})
        return connection, connection.getresponse()

    held = [stream() for _ in range(8)]
    assert {response.status for _, response in held} == {200}
    refused = town.admin.call("GET", "/api/logs/stream")
    assert (refused.problem["status"], refused.headers["retry-after"]) == (503, "10")
    assert town.admin.get("/api/status")["ready"]
    for connection, response in held:
        response.close()
        connection.close()

    def can_open():
        who(town.proxy)  # a line, with which the gone readers are noticed
        connection, response = stream()
        status = response.status
        response.close()
        connection.close()
        return status == 200

    eventually(can_open)


def test_the_configuration_is_shown_without_its_secrets(edge, tmp_path):
    secrets = {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter2", "X-Via": "edge"}
    config = {
        "frontends": [
            frontend("web", "p", protocol="http", http={"request_headers": {"set": secrets}}),
        ],
        "backends": [pool("p", 1, health_check={"type": "http", "path": "/check?token=hunter2"})],
    }
    proxy = edge(config=config, **admin_variables(tmp_path))
    response = admin_of(proxy, tmp_path).call("GET", "/api/configuration")
    assert response.status == 200
    assert b"hunter2" not in response.body
    (web,) = response.json["frontends"]
    assert web["http"]["request_headers"]["set"] == {"Authorization": "***", "X-Api-Key": "***", "X-Via": "edge"}
    (shown,) = response.json["pools"]
    assert shown["health_check"]["path"] == "/check?token=***"
    assert response.json["variables"]["EDGEPROXY_ADMIN_TOKEN_FILE"] == str(tmp_path / "admin.token")
    assert response.json["file"] == str(proxy.config_path)


def test_a_reload_applies_the_new_file_or_reports_its_faults(edge, tmp_path):
    config = {"frontends": [frontend("web", "p")], "backends": [pool("p", 1)]}
    proxy = edge(config=config, **admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    proxy.write_config({**config, "frontends": [frontend("web", "p"), frontend("more", "p")]})
    assert admin.call("POST", "/api/reload").json == {"file": str(proxy.config_path)}
    assert [one["name"] for one in admin.get("/api/frontends")["items"]] == ["web", "more"]
    proxy.write_config({**config, "frontends": [frontend("web", "nowhere", algorithm="magic")]})
    refused = admin.call("POST", "/api/reload")
    assert refused.status == 409
    assert any("magic" in fault["rule"] for fault in refused.problem["errors"])
    assert [one["name"] for one in admin.get("/api/frontends")["items"]] == ["web", "more"]
    shown = admin.get("/api/configuration")
    assert not shown["is_current"] and shown["faults"]


def test_without_a_file_there_is_nothing_to_reload(town):
    assert town.admin.call("POST", "/api/reload").problem["status"] == 409
