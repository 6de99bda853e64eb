"""Damage to the routing database of a running edge: the last good set stays in use, and the damage is reported.

Each damage is done to a real file under load; then the file is repaired, and the edge recovers by itself.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.outbound import watched_thread
from tests.commands import save
from tests.edge_in_process import edge_in_process
from tests.harness import EdgeProcess, eventually, row, write_backends
from tests.traffic import ask, load, named, who

PAGE = 4096
Undo = Callable[[], object]


def side_files(path: Path) -> list[Path]:
    """Return the paths of the files in which SQLite keeps data that is not yet in the database file."""
    return [path.with_name(path.name + ending) for ending in ("-wal", "-shm", "-journal")]


def move_into_place(path: Path, rows: list[dict[str, Any]], journal: str = "delete") -> None:
    """Replace the database atomically, as a careful operator does."""
    fresh = path.with_name("fresh.db")
    write_backends(fresh, rows)
    with sqlite3.connect(fresh) as database:
        database.execute(f"PRAGMA journal_mode = {journal}")
    database.close()
    for side in side_files(path):
        side.unlink(missing_ok=True)
    fresh.replace(path)


def overwrite(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def execute(path: Path, statement: str) -> None:
    with sqlite3.connect(path, timeout=10) as database:
        database.execute(statement)
    database.close()


def lock_exclusively(path: Path) -> Undo:
    database = sqlite3.connect(path, timeout=10, isolation_level=None)
    database.execute("BEGIN EXCLUSIVE")
    return database.close


def put_a_folder_there(path: Path) -> Undo:
    path.unlink()
    path.mkdir()
    return path.rmdir


def put_a_fifo_there(path: Path) -> Undo:
    """Who opens a FIFO to read waits for somebody who opens it to write."""
    path.unlink()
    os.mkfifo(path)
    return path.unlink


DAMAGES: dict[str, Callable[[Path], Undo | None]] = {
    "deleted": lambda path: path.unlink(),
    "truncated to a part": lambda path: os.truncate(path, 2 * PAGE),
    "truncated to nothing": lambda path: os.truncate(path, 0),
    "junk over the middle": lambda path: overwrite(path, 2 * PAGE, os.urandom(2 * PAGE)),
    "junk over the last page": lambda path: overwrite(path, path.stat().st_size - PAGE, os.urandom(PAGE)),
    "junk over the header": lambda path: overwrite(path, 0, os.urandom(100)),
    "table dropped": lambda path: execute(path, "DROP TABLE backends"),
    "a folder in its place": put_a_folder_there,
    "a FIFO in its place": put_a_fifo_there,
    "locked exclusively": lock_exclusively,
}
ALSO_IN_WAL_MODE = ("deleted", "truncated to a part", "junk over the middle", "junk over the header")
"""There a writer cannot lock readers out; the others are the same."""
FILLING = [row(f"sleeper{number:03}", 9, healthy=0) for number in range(300)]
"""Rows that make the file some pages long."""


def done_to(journal: str) -> list[tuple[str, Callable[[Path], Undo | None]]]:
    """Return the kinds of damage to a database in this journal mode, by name."""
    return [(name, damage) for name, damage in DAMAGES.items() if journal == "delete" or name in ALSO_IN_WAL_MODE]


def errors(edge: EdgeProcess) -> list[str]:
    return [
        line["event"]
        for line in edge.log()
        if line["event"].startswith("routing database: ") and "keeping the last" in line["event"]
    ]


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_every_damage_keeps_the_last_good_set_and_every_repair_is_followed(edge, origin, routing_db, subtests, journal):
    sets = {name: [row(name, origin(named(name))), *FILLING] for name in "ab"}
    move_into_place(routing_db, sets["a"], journal)
    proxy = edge(DB_RELOAD_SECS=0.25, GEOIP_PATH="off")
    proxy.wait_for_backends(1)
    with load(proxy) as clients:
        assert ask(clients.staying) == "a"
        for number, (name, damage) in enumerate(done_to(journal)):
            with subtests.test(name):
                here, after = "ab"[number % 2], "ba"[number % 2]
                undo = damage(routing_db)
                stale = eventually(lambda: proxy.ready()["routing"]["stale"], what="the damage is noticed")
                assert str(routing_db) in stale
                assert proxy.get("/ready")[0] == 200, "old backends are better than none"
                assert proxy.metrics()["edgeproxy_routing_stale"] == 1
                eventually(lambda reported=number + 1: len(errors(proxy)) >= reported, what="a line in the log")
                assert who(proxy) == here
                if undo is not None:
                    undo()
                move_into_place(routing_db, sets[after], journal)
                eventually(lambda wanted=after: who(proxy) == wanted, what="the repaired file serves")
                assert proxy.ready()["routing"]["stale"] is None
                assert proxy.metrics()["edgeproxy_routing_stale"] == 0
        assert ask(clients.staying) == "a", "an open connection never notices"
    assert clients.responses[""] == 0, "nobody was turned away"
    assert set(clients.responses) == {"a", "b"}
    assert proxy.metrics()['edgeproxy_routing_reloads_total{result="error"}'] >= len(errors(proxy))
    assert not [line for line in proxy.log() if "traceback" in line]
    assert proxy.stop() == 0
    assert proxy.process.stderr.read() == b"", "the log has all there is to say"


def test_one_that_hangs_is_given_up_and_followed_again(origin, tmp_path, monkeypatch):
    """A FIFO in place of the journal passes the look at the file itself: SQLite opens it, and waits."""
    monkeypatch.setattr(watched_thread, "SILENCE_SECONDS", 0.2)
    monkeypatch.setattr(watched_thread, "GIVE_UP_SECONDS", 0.5)
    with edge_in_process(tmp_path, [row("a", origin(named("a")))], DB_RELOAD_SECS=0.25) as proxy:
        journal = tmp_path / "inside.db-journal"
        os.mkfifo(journal)
        watcher = proxy.parts.watcher
        eventually(lambda: watcher.status.error, what="it is given up")
        eventually(lambda: [line for line in proxy.logged() if "keeping the last 1 backend" in line["event"]])
        other_end = os.open(journal, os.O_RDWR)
        journal.unlink()
        os.close(other_end)
        write_backends(tmp_path / "inside.db", [row("b", origin(named("b")))])
        eventually(lambda: [one.id for one in watcher.current.backends] == ["b"], what="it is followed again")
        assert watcher.status.error is None
        with proxy.connect() as sock:
            assert ask(sock) == "b"


def test_a_file_replaced_by_rename_is_followed_though_the_old_one_had_a_full_write_ahead_log(edge, origin, routing_db):
    """The seeding script writes in WAL mode; its log must not be applied to another file."""
    old, new = origin(named("old")), origin(named("new"))
    save(routing_db, [row("old", old)])
    proxy = edge(GEOIP_PATH="off")
    assert who(proxy) == "old"
    save(routing_db, [row("old", old, weight=7)])  # beside a reader: nobody's close empties the log by itself
    fresh = routing_db.with_name("fresh.db")
    write_backends(fresh, [row("new", new)])
    fresh.replace(routing_db)
    eventually(lambda: who(proxy) == "new", what="the new file serves")
    save(routing_db, [row("old", old)])
    eventually(lambda: who(proxy, "127.0.0.9") == "old", what="writers go on in the new file")


def test_a_file_overwritten_in_place_is_seen_at_the_latest_after_db_reload_secs(edge, origin, routing_db, tmp_path):
    """`cp other.db routing.db`: the same inode, and perhaps the same change counter."""
    proxy = edge([row("a", origin(named("a")))], DB_RELOAD_SECS=0.5, GEOIP_PATH="off")
    assert who(proxy) == "a"
    other = tmp_path / "other.db"
    write_backends(other, [row("b", origin(named("b")))])
    inode = routing_db.stat().st_ino
    routing_db.write_bytes(other.read_bytes())
    assert routing_db.stat().st_ino == inode
    eventually(lambda: who(proxy) == "b", what="the other content serves")


def test_an_edge_without_a_database_logs_how_to_seed_one_and_serves_when_it_appears(edge, origin, routing_db):
    routing_db.unlink()
    proxy = edge(GEOIP_PATH="off")
    status, details = proxy.get("/ready")[0], proxy.ready()
    assert status == 503
    assert details["reasons"] == ["no candidate backend"]
    assert "scripts/seed_backends.py" in details["routing"]["stale"]
    assert details["routing"]["loaded_at"] is None
    assert "scripts/seed_backends.py" in proxy.event("routing database: ")["event"]
    assert proxy.get("/live")[0] == 200
    assert who(proxy) == ""
    write_backends(routing_db, [row("a", origin(named("a")))])
    eventually(lambda: who(proxy) == "a", what="the new file serves")
    assert proxy.get("/ready")[0] == 200


def test_the_edge_never_writes_to_the_database(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a")))], DB_RELOAD_SECS=0.1, GEOIP_PATH="off")
    before = routing_db.read_bytes()
    loads = 'edgeproxy_routing_reloads_total{result="ok"}'
    eventually(lambda: proxy.metrics()[loads] >= 3, what="some full reloads")
    assert who(proxy) == "a"
    assert proxy.stop() == 0
    assert routing_db.read_bytes() == before
    assert not [side for side in side_files(routing_db) if side.exists()]
