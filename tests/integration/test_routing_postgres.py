"""PostgreSQL as routing database: a Debian server that is stopped, frozen and restarted under a running edge."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import gevent
import psycopg
import pytest
from gevent.pool import Pool

from app.config import DatabaseUrl
from app.domain.model import parse_backend
from app.outbound.postgres_backends import (
    MAX_PAUSE_SECONDS,
    TRIGGER,
    PostgresBackendRepository,
    PostgresBackendStore,
)
from app.outbound.worker_thread import WorkerThread
from app.ports import RepositoryDenied, RepositoryError
from tests.admin_client import admin_of, admin_variables
from tests.commands import Done, command, edgeproxy, run
from tests.harness import ROOT, SEED_DDL, EdgeProcess, eventually, row
from tests.integration.service_peers import PASSWORD, USER, Postgresql, running
from tests.traffic import ask, free_ports, load, named, who

NOTICED_WITHIN_SECONDS = 2.0
"""The promise is 0.5 s on a machine that is not busy with other tests."""
STALE = "edgeproxy_routing_stale"
_databases = count(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgresql]:
    with running(Postgresql) as server:
        yield server


class Routing:
    """An empty database of the server."""

    def __init__(self, server: Postgresql) -> None:
        self.server = server
        self.name = f"routing{next(_databases)}"
        with self._connect("postgres") as admin:
            admin.execute(f"CREATE DATABASE {self.name}")
        self.url = f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{server.port}/{self.name}"

    def _connect(self, name: str) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.server.port, user=USER, password=PASSWORD, dbname=name, autocommit=True
        )

    def execute(self, statement: str) -> None:
        """Execute a statement, like an operator with psql."""
        with self._connect(self.name) as database:
            database.execute(statement)

    def save(self, *rows: dict[str, Any]) -> None:
        """Replace all rows, as the seeding script does."""
        with PostgresBackendStore(DatabaseUrl(self.url)) as store:
            store.save(map(parse_backend, rows), replaces_all=True)

    def backends(self, *arguments: object, stdin: str = "") -> Done:
        return command("backends", "--db", self.url, *arguments, stdin=stdin)


@pytest.fixture
def routing(server: Postgresql) -> Routing:
    return Routing(server)


@pytest.fixture
def edge_on(edge: Callable[..., EdgeProcess], routing: Routing) -> Callable[..., EdgeProcess]:
    def start(**variables: object) -> EdgeProcess:
        return edge(DB_URL=routing.url, **{"GEOIP_PATH": "off", "DB_RELOAD_SECS": 3600, **variables})

    return start


# Serving


def test_rows_serve_and_a_change_is_notified(edge_on, origin, routing):
    a, b = origin(named("a")), origin(named("b"))
    routing.save(row("a", a))
    proxy = edge_on()
    assert who(proxy) == "a"
    delays = []
    for number in range(6):
        source, name = f"127.0.1.{number}", "ba"[number % 2]
        routing.execute(f"UPDATE backends SET port = {b if name == 'b' else a}")
        committed_at = time.monotonic()
        eventually(lambda: who(proxy, source) == name, NOTICED_WITHIN_SECONDS, what="the change is seen")  # noqa: B023
        delays.append(time.monotonic() - committed_at)
    print(f"changes were seen after {min(delays):.3f} to {max(delays):.3f} s")
    routing.execute("TRUNCATE backends")
    eventually(lambda: who(proxy) == "", NOTICED_WITHIN_SECONDS, what="emptied")
    assert eventually(lambda: proxy.event("the routing database has no backends left"))


def test_only_the_rows_of_the_app_serve(edge_on, origin, routing):
    web, api = origin(named("web")), origin(named("api"))
    routing.save(row("w", web, app="web"), row("x", api, app="api"))
    proxy = edge_on(APP="web")
    assert {who(proxy, f"127.0.0.{number}") for number in range(2, 8)} == {"web"}


def test_bad_rows_are_refused_by_name_and_the_good_ones_serve(edge_on, origin, routing):
    routing.save(row("good", origin(named("good"))))
    routing.execute(
        "INSERT INTO backends (id, wg_ip, port, weight) VALUES"
        " ('no-port', '127.0.0.1', 0, 1), ('no-address', 'some where', 80, 1), ('light', '127.0.0.1', 80, -1)"
    )
    proxy = edge_on()
    assert who(proxy) == "good"
    eventually(lambda: proxy.event("row refused"))
    refused = {line["backend"]: line["columns"] for line in proxy.log() if line["event"].startswith("row refused")}
    assert refused == {"no-port": ["port"], "no-address": ["wg_ip"], "light": ["weight"]}
    assert proxy.metrics()["edgeproxy_routing_rows_refused"] == 3


def test_a_table_made_by_hand_serves_by_reload_and_gets_its_trigger_with_the_first_command(edge_on, origin, routing):
    a, b = origin(named("a")), origin(named("b"))
    routing.execute(f"{SEED_DDL}; ALTER TABLE backends ADD COLUMN rack INTEGER, ALTER healthy TYPE boolean USING true")
    routing.execute(f"INSERT INTO backends (id, wg_ip, port) VALUES ('a', '127.0.0.1', {a})")
    proxy = edge_on(DB_RELOAD_SECS=1)
    assert who(proxy) == "a"
    routing.execute(f"UPDATE backends SET port = {b}")
    eventually(lambda: who(proxy, "127.0.0.9") == "b", what="the reload")
    assert routing.backends("drain", "a", "--deadline", "1h").returncode == 0
    (listed,) = json.loads(routing.backends("list", "--json").stdout)
    assert (listed["deleted"], listed["drain_deadline"]) == (1, pytest.approx(time.time() + 3600, abs=60))
    following = edge_on()
    assert who(following) == ""
    routing.execute("UPDATE backends SET deleted = 0")
    eventually(lambda: who(following, "127.0.0.9") == "b", NOTICED_WITHIN_SECONDS, what="the trigger")


def test_columns_come_and_go_while_it_is_read(routing):
    routing.save(row("a", 80))
    repository = PostgresBackendRepository(DatabaseUrl(routing.url))
    for number in range(10):
        assert [backend.id for backend in repository.load().backends] == ["a"]
        routing.execute(f"ALTER TABLE backends ADD COLUMN more{number} INTEGER")
    routing.execute("ALTER TABLE backends DROP COLUMN drain_deadline, DROP COLUMN region")
    (backend,) = repository.load().backends
    assert backend.region is None
    routing.execute("ALTER TABLE backends ADD COLUMN seen_at TIMESTAMPTZ DEFAULT 'infinity'")
    assert [backend.id for backend in repository.load().backends] == ["a"]
    repository.close()


def test_a_database_without_the_table_is_reported_and_serves_once_it_is_created(edge_on, origin, routing):
    proxy = edge_on()
    assert "there is no table backends; create it with scripts/seed_backends.py" in proxy.ready()["routing"]["stale"]
    routing.save(row("a", origin(named("a"))))
    eventually(lambda: who(proxy) == "a", what="the table")


def test_a_drain_with_a_deadline_closes_open_connections(edge_on, origin, routing):
    routing.save(row("a", origin(named("a"))))
    proxy = edge_on()
    with proxy.connect() as doomed:
        assert ask(doomed) == "a"
        assert routing.backends("drain", "a", "--deadline", "1s").returncode == 0
        eventually(lambda: proxy.ready()["candidates"] == 0, NOTICED_WITHIN_SECONDS, what="the drain is seen")
        assert eventually(lambda: proxy.event("backend a: drain deadline reached, 1 connection ended"))
    assert routing.backends("undrain", "a").returncode == 0
    eventually(lambda: who(proxy) == "a", NOTICED_WITHIN_SECONDS, what="the way back")


def test_ten_thousand_rows_are_swapped_in_under_load_without_blocking_the_event_loop(edge_on, origin, routing):
    """The limit only distinguishes blocking from not blocking; the budget of 20 ms holds for an idle machine."""
    port = origin(named("one of many"))
    routing.save(row("b00000", port))
    proxy = edge_on()
    with load(proxy) as clients:
        before = proxy.metrics()["edgeproxy_loop_pause_max_seconds"]
        routing.execute(
            "INSERT INTO backends (id, wg_ip, port)"
            f" SELECT 'b' || lpad(n::text, 5, '0'), '127.0.0.1', {port} FROM generate_series(1, 9999) n"
        )
        eventually(lambda: proxy.event("routing: 10000 backends"), what="all rows loaded")
        asked = clients.responses.total()
        eventually(lambda: clients.responses.total() >= asked + 20, what="the load goes on")
        pause = proxy.metrics()["edgeproxy_loop_pause_max_seconds"]
        assert proxy.ready()["backends"] == 10_000
    assert set(clients.responses) == {"one of many"}
    print(f"longest pause of the event loop: {before:.3f} s before, {pause:.3f} s with 10,000 rows swapped in")
    assert pause <= before + 0.25


# The server in trouble


def assert_no_secret(proxy: EdgeProcess) -> None:
    assert PASSWORD not in proxy.log_path.read_text()
    assert PASSWORD not in json.dumps(proxy.ready())


def test_the_server_is_killed_and_comes_back_with_other_rows(edge, origin):
    a, b = origin(named("a")), origin(named("b"))
    with running(Postgresql) as server:
        routing = Routing(server)
        routing.save(row("a", a))
        proxy = edge(DB_URL=routing.url, GEOIP_PATH="off", DB_RELOAD_SECS=3600)
        with load(proxy) as clients:
            server.kill()
            eventually(lambda: proxy.metrics()[STALE] == 1, what="the loss is seen")
            assert proxy.get("/ready")[0] == 200
            eventually(lambda: "refused" in proxy.ready()["routing"]["stale"], what="why")
            asked = clients.responses["a"]
            eventually(lambda: clients.responses["a"] >= asked + 20, what="it serves on")
            server.start()
            routing.execute(f"UPDATE backends SET port = {b}")  # whether the edge listens again or not
            came_back_at = time.monotonic()
            eventually(lambda: clients.responses["b"], MAX_PAUSE_SECONDS + 10, what="the edge follows again")
            print(f"followed again after {time.monotonic() - came_back_at:.1f} s")
            eventually(lambda: proxy.metrics()[STALE] == 0)
        assert clients.responses[""] == 0, "nobody was turned away"
        assert eventually(lambda: proxy.event("routing database: readable again"))
        assert_no_secret(proxy)


def test_a_hanging_server_is_reported_and_followed_again(edge, origin):
    a, b = origin(named("a")), origin(named("b"))
    with running(Postgresql) as server:
        routing = Routing(server)
        routing.save(row("a", a))
        proxy = edge(DB_URL=routing.url, GEOIP_PATH="off", DB_RELOAD_SECS=1)
        assert who(proxy) == "a"
        server.freeze()
        eventually(lambda: "no response for" in (proxy.ready()["routing"]["stale"] or ""), 20, what="it hangs")
        assert who(proxy, "127.0.0.9") == "a"
        server.thaw()
        routing.execute(f"UPDATE backends SET port = {b}")
        eventually(lambda: who(proxy, "127.0.0.10") == "b", what="it goes on")


def test_an_edge_starts_without_its_server_and_a_stop_waits_for_nothing(edge, origin, routing):
    (closed,) = free_ports(1)
    proxy = edge(DB_URL=f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{closed}/routing")
    assert proxy.get("/ready")[0] == 503
    assert "refused" in proxy.ready()["routing"]["stale"]
    assert_no_secret(proxy)
    assert proxy.stop() == 0


def test_attempts_to_connect_become_rare():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def refuse() -> None:
            while True:
                accepted.append(time.monotonic())
                listener.accept()[0].close()

        greenlet = gevent.spawn(refuse)
        repository = PostgresBackendRepository(DatabaseUrl(f"postgresql://x@127.0.0.1:{listener.getsockname()[1]}/x"))
        thread, looks = WorkerThread(), 0
        deadline = time.monotonic() + 2.5
        while time.monotonic() < deadline:
            with pytest.raises(RepositoryError, match="connection failed"):
                thread.run(repository.has_changed)
            looks += 1
            gevent.sleep(0.05)
        greenlet.kill()
        thread.close()
    assert looks > 20
    # libpq tries without and with encryption; the pauses are 0.25 s at least, then 0.5, 1, 2.
    assert 2 <= len(accepted) <= 12


# The ways to write


def test_two_stores_make_the_table_at_once(routing):
    def open_store(_number: int) -> list[dict[str, Any]]:
        with PostgresBackendStore(DatabaseUrl(routing.url)) as store:
            return store.rows()

    assert Pool(6).map(open_store, range(6)) == [[]] * 6


def test_a_backend_is_inserted_once_however_many_try(routing):
    routing.save()
    backend = parse_backend(row("a", 80))

    def insert(_number: int) -> str:
        with PostgresBackendStore(DatabaseUrl(routing.url)) as store:
            try:
                store.insert(backend)
            except KeyError:
                return "there is one"
        return "inserted"

    assert sorted(Pool(4).map(insert, range(4))) == ["inserted", "there is one", "there is one", "there is one"]


def test_every_command_works_on_a_url_and_on_the_variable(routing):
    loaded = routing.backends("load", "--demo")
    assert (loaded.returncode, loaded.stderr) == (0, "")
    assert PASSWORD not in loaded.stdout
    assert "5 backends loaded into postgresql://***@127.0.0.1" in loaded.stdout
    in_environment = {"DB_URL": routing.url, "DB_PATH": "/nonexistent/routing.db"}
    assert command("backends", "drain", "gru", "nyc", **in_environment).returncode == 0
    assert command("backends", "undrain", "nyc", **in_environment).returncode == 0
    assert command("backends", "remove", "cdg", **in_environment).returncode == 0
    rows = json.loads(command("backends", "list", "--json", **in_environment).stdout)
    assert {one["id"]: one["deleted"] for one in rows} == {"gru": 1, "jnb": 0, "nrt": 0, "nyc": 0}
    assert command("backends", "remove", "cdg", **in_environment).stderr == (
        "backends: no such backend: cdg; nothing was changed\n"
    )
    csv = "id,wg_ip,port\ngru,10.0.0.1,80\nnew,10.0.0.2,80\n"
    assert routing.backends("load", "--replace", "-", stdin=csv).returncode == 0
    assert [one["id"] for one in json.loads(routing.backends("list", "--json").stdout)] == ["gru", "new"]
    explained = command("explain", "200.160.2.3", "--json", **in_environment)
    assert {one["id"] for one in json.loads(explained.stdout)["items"]} == {"gru", "new"}
    script = run([str(ROOT / "scripts" / "seed_backends.py"), "list", "--json"], **in_environment)
    assert [one["id"] for one in json.loads(script.stdout)] == ["gru", "new"]
    simulated = command("simulate", "--db", routing.url, "--clients", 10, "--json")
    assert json.loads(simulated.stdout)["stages"][0]["served"] == 10


def test_the_admin_api_writes_it_and_shows_no_password(edge_on, origin, routing, tmp_path):
    proxy = edge_on(**admin_variables(tmp_path))
    admin = admin_of(proxy, tmp_path)
    columns = {"wg_ip": "127.0.0.1", "port": origin(named("a"))}
    assert admin.call("POST", "/api/backends", {"id": "a", **columns}).status == 201
    assert admin.call("POST", "/api/backends", {"id": "a", **columns}).status == 409
    eventually(lambda: who(proxy) == "a", what="the registration")
    assert admin.call("POST", "/api/backends/a/drain").status == 204
    eventually(lambda: who(proxy) == "", NOTICED_WITHIN_SECONDS, what="the drain")
    assert admin.call("POST", "/api/backends/nobody/drain").status == 404
    refused = admin.call("PUT", "/api/registrations/web-1", {"host": "127.0.0.1", "port": 80})
    assert (refused.status, "SQLite" in refused.problem["detail"]) == (409, True)
    assert [one["state"] for one in admin.get("/api/backends")["items"]] == ["drained"]
    shown = admin.get("/api/configuration")
    assert PASSWORD not in json.dumps(shown)
    assert shown["variables"]["EDGEPROXY_DB_URL"].startswith("postgresql://")
    assert_no_secret(proxy)


def test_the_password_is_in_no_output(routing, tmp_path):
    wrong = routing.url.replace(PASSWORD, "Wr0ng-one")
    outputs = [
        command("check", DB_URL=wrong),
        command("check", "--json", DB_URL=wrong),
        command("explain", "1.1.1.1", DB_URL=wrong),
        command("backends", "--db", wrong, "list"),
        command("backends", "--db", f"{wrong}?nonsense=1", "list"),
        command("backends", "--db", f"{wrong}?sslpassword=Wr0ng-one&nonsense=1", "list"),
        command("check", DB_URL=f"{wrong}%"),
        command("check", DB_URL=wrong.replace("postgresql", "mysql")),
        command("backends", "--db", f"{wrong}%", "list"),
        edgeproxy("serve", DB_URL=f"{wrong}%"),
        command("backends", "list", DB_URL=wrong.replace("postgresql", "mysql")),
        command("backends", "list", DB_URL=wrong.replace("Wr0ng", "Wr0ng@Wr0ng")),
        command("backends", "list", DB_URL=wrong.replace("Wr0ng", "Wr0ng/Wr0ng")),
    ]
    assert [done.returncode for done in outputs] == [0, 0, *[2] * 11]
    for done in outputs:
        assert "Wr0ng" not in done.stdout + done.stderr
    assert f"postgresql://***@127.0.0.1:{routing.server.port}/{routing.name}" in outputs[1].stdout
    assert "password authentication failed" in outputs[2].stderr
    assert "libpq cannot parse this URL" in outputs[4].stderr
    assert "EDGEPROXY_DB_URL='***': must be postgresql://user@host/database" in outputs[6].stderr


def test_a_login_that_may_only_read_follows_too(edge, origin, routing):
    routing.save(row("a", origin(named("a"))))
    b = origin(named("b"))
    routing.execute(f"CREATE ROLE reader{routing.name} LOGIN PASSWORD '{PASSWORD}'")
    routing.execute(f"GRANT SELECT ON backends TO reader{routing.name}")
    url = routing.url.replace(f"//{USER}:", f"//reader{routing.name}:")
    proxy = edge(DB_URL=url, GEOIP_PATH="off", DB_RELOAD_SECS=3600)
    assert who(proxy) == "a"
    routing.execute(f"UPDATE backends SET port = {b}")
    eventually(lambda: who(proxy, "127.0.0.9") == "b", NOTICED_WITHIN_SECONDS, what="the change is seen")
    listed = command("backends", "--db", url, "list")
    assert (listed.returncode, "serving" in listed.stdout) == (0, True)
    refused = command("backends", "--db", url, "drain", "a")
    assert (refused.returncode, "permission denied" in refused.stderr) == (2, True)
    with pytest.raises(RepositoryDenied), PostgresBackendStore(DatabaseUrl(url)) as store:
        store.drain(["a"], None)
    with pytest.raises(RepositoryDenied, match="password authentication failed"):
        PostgresBackendStore(DatabaseUrl(url.replace(PASSWORD, "Wr0ng")))


def test_a_url_may_have_a_schema_several_hosts_and_its_password_in_a_file(routing, tmp_path, monkeypatch):
    (closed,) = free_ports(1)
    passwords = tmp_path / "pgpass"
    passwords.write_text(f"*:*:*:{USER}:{PASSWORD}\n")
    passwords.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(passwords))
    routing.execute("CREATE SCHEMA edge")
    routing.execute(f"SET search_path = edge; {SEED_DDL}")
    hosts = f"127.0.0.1:{closed},127.0.0.1:{routing.server.port}"
    url = f"postgresql://{USER}@{hosts}/{routing.name}?options=-csearch_path%3Dedge"
    assert command("backends", "--db", url, "load", "--demo").returncode == 0
    repository = PostgresBackendRepository(DatabaseUrl(url))
    assert len(repository.load().backends) == 5
    assert not repository.has_changed()
    routing.execute("DELETE FROM edge.backends WHERE id = 'gru'")
    eventually(repository.has_changed, what="the note")
    assert len(repository.load().backends) == 4
    repository.close()


def test_a_table_has_one_trigger_however_often_it_is_opened(routing):
    routing.save()
    routing.save()
    with psycopg.connect(routing.url) as database:
        found = database.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal").fetchall()
    database.close()
    assert found == [(TRIGGER,)]
