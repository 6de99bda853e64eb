"""Services that register over HTTP at one edge, which stores them in its routing database."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import gevent
import pytest

from app.registration.registrar import TICK_SECONDS
from tests.admin_client import Admin, admin_of, admin_variables
from tests.commands import backends, save
from tests.harness import SEED_DDL, EdgeProcess, eventually, row, write_backends
from tests.traffic import named, who

SERVICE = {"host": "127.0.0.1", "region": "sa", "country": "BR", "ttl_seconds": 600}


class Place:
    """An edge with its admin API, whose routing database the tests of this file share."""

    def __init__(self, folder) -> None:
        self.folder = folder
        self.database = folder / "routing.db"
        self.variables = {name: str(value) for name, value in admin_variables(folder).items()}
        self.starts = 0
        self.start()

    def start(self) -> None:
        folder = self.folder / f"edge{self.starts}"
        folder.mkdir()
        self.starts += 1
        self.edge = EdgeProcess(folder, self.database, "127.0.0.1:0", self.variables)
        self.admin: Admin = admin_of(self.edge, self.folder)

    def restart(self, number: int) -> None:
        self.edge.stop(number)
        self.edge.kill()
        self.start()

    def put(self, backend_id: str, port: int, **more: Any):
        return self.admin.call("PUT", f"/api/registrations/{backend_id}", {**SERVICE, "port": port, **more})

    def delete(self, backend_id: str):
        return self.admin.call("DELETE", f"/api/registrations/{backend_id}")

    def rows(self) -> dict[str, dict[str, Any]]:
        return rows_of(self.database)

    def content(self) -> bytes:
        """Return the content of the file and its write-ahead log."""
        log = self.database.with_name(f"{self.database.name}-wal")
        return self.database.read_bytes() + (log.read_bytes() if log.exists() else b"")


def rows_of(database) -> dict[str, dict[str, Any]]:
    with sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10) as connection:
        connection.row_factory = sqlite3.Row
        found = {one["id"]: dict(one) for one in connection.execute("SELECT * FROM backends")}
    connection.close()
    return found


def change(database, statement: str, *values: object) -> None:
    """Change the database like another program."""
    with sqlite3.connect(database, timeout=10) as connection:
        connection.execute(statement, values)
    connection.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    write_backends(folder / "routing.db", [])
    one = Place(folder)
    yield one
    one.edge.kill()


@pytest.fixture
def place(running) -> Place:
    """The edge, with no backends."""
    for name in running.rows():
        assert running.admin.call("DELETE", f"/api/backends/{name}").status == 204
    running.edge.wait_for_backends(0)
    return running


# Coming and going


def test_a_service_serves_once_its_registration_returns(place, origin):
    response = place.put("a", origin(named("a")))
    assert (response.status, response.json) == (200, {"ttl_seconds": 600, "is_new": True})
    assert who(place.edge) == "a"
    assert place.delete("a").status == 204
    assert who(place.edge) == ""
    assert place.rows() == {}
    assert place.delete("a").problem["detail"] == "no such registration: a"


def test_one_that_is_silent_expires_and_one_that_is_not_stays(place, origin):
    began = time.monotonic()
    place.put("silent", origin(named("silent")), ttl_seconds=2)
    place.put("alive", origin(named("alive")), ttl_seconds=2)

    def both() -> bool:
        assert place.put("alive", place.rows()["alive"]["port"], ttl_seconds=2).json["is_new"] is False
        return "silent" in place.rows()

    eventually(lambda: not both(), what="the silent one has gone")
    assert time.monotonic() - began >= 2
    eventually(lambda: place.edge.event("registration silent: expired"))
    assert {who(place.edge) for _ in range(5)} == {"alive"}


def test_those_that_expire_together_are_one_line_of_the_log(place):
    names = [f"gone{number:02}" for number in range(22)]
    for name in names:
        place.put(name, 1001, ttl_seconds=2)
    line = eventually(lambda: place.edge.event("22 registrations expired together, without renewal: "))
    assert line["backends"] == names
    assert line["event"].endswith("gone18, gone19 and 2 more")
    assert not place.edge.event("registration gone00: expired")


def test_a_burst_that_does_not_end_is_logged_meanwhile(place):
    def is_logged():
        lines = [line for line in place.edge.log() if "trickle00" in line.get("backends", ())]
        return any("expired together" in line["event"] for line in lines)

    for number in range(40):  # one each 0.5 s, for longer than a burst may last
        if is_logged():
            return
        place.put(f"trickle{number:02}", 1001, ttl_seconds=2)
        gevent.sleep(0.5)
    pytest.fail("nothing was logged while others followed")


def test_a_heartbeat_does_not_touch_the_database(place):
    place.put("a", 1001)
    gevent.sleep(4 * TICK_SECONDS)  # for what else looks at a new row
    before = place.database.stat().st_mtime_ns, place.content()
    for _ in range(10):
        assert place.put("a", 1001).json == {"ttl_seconds": 600, "is_new": False}
    assert (place.database.stat().st_mtime_ns, place.content()) == before
    place.delete("a")

    def audit() -> list[str]:
        lines = [line for line in place.edge.log() if line["event"] == "admin" and line["target"] == "a"]
        return [line["action"] for line in lines[-2:]]

    eventually(lambda: audit() == ["put_registration", "delete_registration"], what="one line for all of them")


def test_a_changed_registration_applies_at_once(place, origin):
    place.put("a", origin(named("first")))
    assert who(place.edge) == "first"
    changed = place.put("a", origin(named("second")), weight=7, ttl_seconds=900)
    assert changed.json == {"ttl_seconds": 900, "is_new": False}
    assert who(place.edge) == "second"
    assert (place.rows()["a"]["weight"], place.rows()["a"]["lease_ttl"]) == (7, 900)


def test_the_last_of_two_services_with_one_id_wins_and_the_log_shows_it(place, origin):
    one, other = origin(named("one")), origin(named("other"))
    for port, name in ((one, "one"), (other, "other"), (one, "one"), (other, "other")):
        assert place.put("a", port).status == 200
        assert who(place.edge) == name
    assert list(place.rows()) == ["a"]

    def ports_logged() -> list[int]:
        lines = [line["event"] for line in place.edge.log()]
        return [
            int(line.split(" port ")[1].split(",")[0]) for line in lines if line.startswith("registration a: changed")
        ]

    eventually(lambda: ports_logged()[-3:] == [other, one, other], what="lines of it")


def test_a_service_over_ipv6(place, origin):
    assert place.put("six", origin(named("six"), "::1"), host="::1").status == 200
    assert who(place.edge) == "six"


# Draining


def test_a_service_drains_itself_and_may_change_its_mind(place, origin):
    port = origin(named("a"))
    place.put("a", port)
    with place.edge.connect() as staying:
        place.put("a", port, draining=True)
        assert who(place.edge) == ""
        staying.sendall(b"still?")
        assert staying.recv(100) == b"a\n", "who was connected stays"
    assert "drained" in backends(place.database, "list").stdout
    assert place.admin.get("/api/backends/a")["state"] == "drained"
    place.put("a", port)
    assert who(place.edge) == "a"


def test_an_operators_drain_outlasts_renewals_of_the_service(place, origin):
    port = origin(named("a"))
    place.put("a", port)
    assert place.admin.call("POST", "/api/backends/a/drain").status == 204
    eventually(lambda: who(place.edge) == "", what="drained")
    place.put("a", port, weight=5)
    place.put("a", port, weight=5, draining=True)
    place.put("a", port, weight=5)
    assert who(place.edge) == ""
    assert (place.rows()["a"]["deleted"], place.rows()["a"]["weight"]) == (1, 5)
    assert place.admin.call("POST", "/api/backends/a/undrain").status == 204
    eventually(lambda: who(place.edge) == "a", what="serves again")


# Operators' backends


def test_a_service_cannot_register_an_operators_backend(place):
    place.admin.call("POST", "/api/backends", {"id": "a", "wg_ip": "127.0.0.1", "port": 1001})
    refused = place.put("a", 1002)
    assert (refused.status, refused.problem["detail"]) == (409, "backend a exists and is not a registration")
    assert place.delete("a").status == 404
    assert place.rows()["a"]["port"] == 1001


def test_a_registration_that_an_operator_takes_over_does_not_expire(place):
    place.put("taken", 1001, ttl_seconds=2)
    place.put("other", 1002, ttl_seconds=2)
    change(place.database, "UPDATE backends SET lease_ttl = NULL, lease_owner = NULL WHERE id = 'taken'")
    eventually(lambda: "other" not in place.rows(), what="the other expires")
    gevent.sleep(4 * TICK_SECONDS)
    assert "taken" in place.rows()
    assert place.put("taken", 1001).status == 409


def test_an_operators_change_of_a_registration_is_undone_by_the_next_renewal(place):
    place.put("a", 1001, ttl_seconds=2)
    save(place.database, [row("a", 1002), row("b", 1003)])
    gevent.sleep(4 * TICK_SECONDS)
    assert place.put("a", 1001, ttl_seconds=2).json["is_new"] is False
    assert place.rows()["a"]["port"] == 1001
    eventually(lambda: "a" not in place.rows(), what="it expires all the same")
    assert "b" in place.rows()


def test_a_registration_that_was_lost_is_made_again_by_the_next_word(place, origin):
    port = origin(named("a"))
    place.put("a", port)
    change(place.database, "DELETE FROM backends")
    eventually(lambda: place.put("a", port).json["is_new"], what="it is noticed")
    assert who(place.edge) == "a"


def test_services_and_operators_do_not_get_into_each_others_way(place):
    place.admin.call("POST", "/api/backends", {"id": "static", "wg_ip": "127.0.0.1", "port": 1001})

    def register(name: str) -> set[int]:
        return {place.put(name, port, ttl_seconds=2).status for port in range(1, 30)}

    def drain() -> set[int]:
        verbs = ("drain", "undrain") * 15
        return {place.admin.call("POST", f"/api/backends/static/{verb}").status for verb in verbs}

    working = [gevent.spawn(register, "a"), gevent.spawn(register, "b"), gevent.spawn(drain), gevent.spawn(drain)]
    gevent.joinall(working, raise_error=True)
    assert [one.value for one in working] == [{200}, {200}, {204}, {204}]
    assert {name: one["port"] for name, one in place.rows().items()} == {"a": 29, "b": 29, "static": 1001}


# Restarts


@pytest.mark.parametrize("number", [9, 15])
def test_a_restarted_edge_gives_every_registration_a_full_ttl(place, origin, number):
    port = origin(named("alive"))
    place.put("alive", port, ttl_seconds=3)
    place.put("dead", origin(named("dead")), ttl_seconds=3)
    place.admin.call("POST", "/api/backends", {"id": "static", "wg_ip": "127.0.0.1", "port": 1001, "country": "NZ"})
    place.restart(number)
    place.edge.wait_for_backends(3)
    began = time.monotonic()
    assert place.put("alive", port, ttl_seconds=3).json == {"ttl_seconds": 3, "is_new": False}

    def alive() -> set[str]:
        assert place.put("alive", port, ttl_seconds=3).json["is_new"] is False
        return set(place.rows())

    eventually(lambda: alive() == {"alive", "static"}, what="the dead one expires")
    assert time.monotonic() - began > 1


def test_registrations_at_another_edge_over_the_same_database_are_its_own(place, origin, tmp_path):
    other = Place.__new__(Place)
    other.folder, other.database, other.starts = tmp_path, place.database, 0
    other.variables = {name: str(value) for name, value in admin_variables(tmp_path).items()}
    other.variables["ADMIN_LISTEN_ADDR"] = "127.0.0.2:0"
    port = origin(named("a"))
    place.put("a", port, ttl_seconds=60)  # longer than a start takes
    other.start()
    try:
        began = time.monotonic()
        while time.monotonic() < began + 3:
            assert place.put("a", port, ttl_seconds=2).json["is_new"] is False
            gevent.sleep(0.1)
        assert who(other.edge) == "a"
        assert other.put("a", port, ttl_seconds=600).json["is_new"] is False
        began = time.monotonic()
        while time.monotonic() < began + 3:
            gevent.sleep(0.1)
        assert "a" in place.rows(), "it is kept where it spoke last"
        assert other.delete("a").status == 204
        eventually(lambda: who(place.edge) == "", what="gone for both")
    finally:
        other.edge.kill()


# What else there is in the table, and what there is not


def test_an_old_table_is_extended_and_stays_readable_by_other_programs(tmp_path, origin):
    database = tmp_path / "routing.db"
    change(database, SEED_DDL.replace("deleted INTEGER", "deleted INTEGER, colour TEXT"))
    change(
        database,
        "INSERT INTO backends (id, wg_ip, port, country, colour) VALUES ('old', '127.0.0.1', 1001, 'NZ', 'green')",
    )
    one = Place(tmp_path)
    try:
        one.put("a", origin(named("a")))
        assert one.rows()["old"]["colour"] == "green"
        columns = list(one.rows()["a"])
        assert columns[-4:] == ["drain_deadline", "draining", "lease_ttl", "lease_owner"]
        change(database, "INSERT INTO backends (id, wg_ip, port) VALUES ('new', '127.0.0.1', 1002)")
        one.edge.wait_for_backends(3)
        save(database, [row("old", 1003)])
        assert (one.rows()["old"]["colour"], one.rows()["old"]["port"]) == ("green", 1003)
    finally:
        one.edge.kill()


def test_an_edge_without_registrations_writes_nothing(tmp_path):
    database = tmp_path / "routing.db"
    write_backends(database, [row("a", 1001)])
    one = Place(tmp_path)
    try:
        write_backends(database, [row("a", 1002), row("b", 1003)])
        one.edge.wait_for_backends(2)
        gevent.sleep(4 * TICK_SECONDS)
        with sqlite3.connect(database) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        connection.close()
        assert "drain_deadline" not in one.rows()["a"]
    finally:
        one.edge.kill()


def test_a_registration_makes_the_database_where_there_is_none(tmp_path, origin):
    one = Place(tmp_path)
    try:
        assert one.delete("a").status == 404
        assert not one.database.exists()
        assert one.put("a", origin(named("a"))).json["is_new"] is True
        assert who(one.edge) == "a"
    finally:
        one.edge.kill()


def test_with_a_read_only_database_registrations_fail_and_expired_ones_are_kept(place, origin):
    place.put("a", origin(named("a")), ttl_seconds=2)
    locker = sqlite3.connect(place.database, timeout=10)
    locker.execute("BEGIN IMMEDIATE")
    try:
        refused = place.put("b", 1001)
        assert (refused.status, "locked" in refused.problem["detail"]) == (503, True)
        eventually(lambda: place.edge.event("registrations: "), 15, "the log tells")
        assert who(place.edge) == "a"
    finally:
        locker.close()
    eventually(lambda: who(place.edge) == "", what="it expires now")


def test_without_a_pool_on_the_database_registrations_are_refused(tmp_path, edge):
    config = {
        "frontends": [{"name": "web", "listen": "127.0.0.1:0", "backend": "web"}],
        "backends": [{"name": "web", "servers": [{"address": "127.0.0.1:1"}]}],
    }
    admin = admin_of(edge(config=config, **admin_variables(tmp_path)), tmp_path)
    refused = admin.call("PUT", "/api/registrations/a", {**SERVICE, "port": 1})
    assert refused.problem["detail"].startswith("no pool of this edge takes its backends from a routing database")
    assert refused.status == admin.call("DELETE", "/api/registrations/a").status == 409


def test_registering_needs_the_scope(place):
    reader = place.admin.bearer("reader", "read")
    assert reader.call("PUT", "/api/registrations/a", {**SERVICE, "port": 1001}).status == 403
    assert Admin(place.admin.address, None).call("PUT", "/api/registrations/a", {**SERVICE, "port": 1}).status == 401
    assert place.rows() == {}
