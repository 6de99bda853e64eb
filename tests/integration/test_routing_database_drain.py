"""Taking a backend out of service: healthy=0, deleted=1, drain with a deadline, undrain. Open connections continue."""

from __future__ import annotations

import sqlite3

import pytest

from tests.commands import backends
from tests.harness import eventually, row
from tests.traffic import ask, load, named, who

ACTIVE = 'edgeproxy_backend_connections_active{{backend="{}",pool="default"}}'


def update(path, backend_id, **columns):
    """Change columns of a row as an operator does by hand."""
    with sqlite3.connect(path, timeout=10) as database:
        for column, value in columns.items():
            database.execute(f"UPDATE backends SET {column} = ? WHERE id = ?", [value, backend_id])
    database.close()


@pytest.mark.parametrize("out", ["healthy = 0", "deleted = 1"])
def test_a_backend_taken_out_gets_no_new_connections_and_its_clients_move_while_open_ones_run_on(
    edge, origin, routing_db, out
):
    a, b = row("a", origin(named("a"))), row("b", origin(named("b")), weight=0)
    proxy = edge([a, b], GEOIP_PATH="off")
    with load(proxy) as clients:
        assert ask(clients.staying) == "a"
        eventually(lambda: clients.responses["a"] >= 20)
        update(routing_db, "b", weight=1)
        column, value = out.split(" = ")
        update(routing_db, "a", **{column: int(value)})
        eventually(lambda: clients.responses["b"] >= 1, what="bound clients rebind")
        asked = clients.responses["a"]
        eventually(lambda: clients.responses["b"] >= 50)
        assert clients.responses["a"] - asked <= 3, "at most one under way for each client"
        assert ask(clients.staying) == "a"
        update(routing_db, "a", healthy=1, deleted=0)
        update(routing_db, "b", healthy=0)
        asked = clients.responses["a"]
        eventually(lambda: clients.responses["a"] >= asked + 20, what="the way back")
        assert ask(clients.staying) == "a"
    assert clients.responses[""] == 0, "nobody was turned away"
    assert [line["backend"] for line in proxy.access_lines() if line["affinity"] == "rebind"][:1] == ["b"]


def test_a_drain_with_a_deadline_lets_connections_finish_until_then_and_ends_the_others(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a"))), row("b", origin(named("b")), weight=0)], GEOIP_PATH="off")
    with proxy.connect() as doomed, proxy.connect() as finishes, proxy.connect() as elsewhere_later:
        assert (ask(doomed), ask(finishes), ask(elsewhere_later)) == ("a", "a", "a")
        assert backends(routing_db, "drain", "a", "--deadline", "2s").returncode == 0
        eventually(lambda: proxy.ready()["candidates"] == 0, what="the drain is seen")
        assert ask(finishes) == "a", "before the deadline"
        finishes.close()
        elsewhere_later.close()
        assert ask_until_the_end(doomed) == "ended"
    assert eventually(lambda: proxy.event("backend a: drain deadline reached, 1 connection ended"))
    ends = eventually(lambda: proxy.access_lines()[2:] and sorted(line["termination"] for line in proxy.access_lines()))
    assert ends == ["--", "--", "KD"]
    assert [line["reason"] for line in proxy.access_lines() if line["termination"] == "KD"] == ["drain_deadline"]
    assert proxy.metrics()[ACTIVE.format("a")] == 0


def ask_until_the_end(sock):
    """Wait for the end of the connection without sending anything."""
    try:
        return "ended" if sock.recv(100) == b"" else "data"
    except ConnectionError:
        return "ended"


def test_a_drain_without_a_deadline_ends_nothing(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        assert backends(routing_db, "drain", "a").returncode == 0
        eventually(lambda: who(proxy) == "", what="no new connections")
        assert ask(staying) == "a"
        assert backends(routing_db, "undrain", "a").returncode == 0
        eventually(lambda: who(proxy) == "a", what="undrained, it serves")
        assert backends(routing_db, "remove", "a").returncode == 0
        eventually(lambda: proxy.get("/ready")[0] == 503, what="removed")
        assert who(proxy) == ""
        assert ask(staying) == "a"
        assert proxy.metrics()[ACTIVE.format("a")] == 1
    eventually(lambda: ACTIVE.format("a") not in proxy.metrics(), what="its last series goes with its last connection")


def test_an_undrain_before_the_deadline_calls_it_off(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a"))), row("b", origin(named("b")), weight=0)], GEOIP_PATH="off")
    with proxy.connect() as staying, proxy.connect("127.0.0.9") as witness:
        assert (ask(staying), ask(witness)) == ("a", "a")
        assert backends(routing_db, "drain", "a", "b", "--deadline", "0.5s").returncode == 0
        assert backends(routing_db, "undrain", "a").returncode == 0
        with sqlite3.connect(routing_db) as database:
            rows = database.execute("SELECT id, deleted, drain_deadline IS NULL FROM backends ORDER BY id").fetchall()
        database.close()
        assert rows == [("a", 0, 1), ("b", 1, 0)]
        eventually(lambda: who(proxy) == "a", what="it serves")
        assert ask(staying) == "a"
