"""A writer is killed and leaves its write-ahead log; another file is moved to the path: SQLite would mix the two."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.commands import backends, save
from tests.harness import eventually, row, write_backends
from tests.traffic import named, who

KILLED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA journal_mode = wal")
database.execute("UPDATE backends SET port = ?", [sys.argv[2]])
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_writer(path: Path, port: int) -> Path:
    """Change the port of all backends, and be killed after the commit. Returns the path of the log left behind."""
    subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path), str(port)], check=False, timeout=30)
    log = path.with_name(f"{path.name}-wal")
    assert log.stat().st_size > 0
    return log


def move_into_place(path: Path, rows: list[dict[str, Any]]) -> None:
    fresh = path.with_name("fresh.db")
    write_backends(fresh, rows)
    fresh.replace(path)


@pytest.fixture
def mixed(routing_db, origin):
    """Give the path of a database beside the log of another, and of this log. The mixture is well-formed."""
    save(routing_db, [row("new", 1)])
    log = kill_a_writer(routing_db, origin(named("of the log")))
    move_into_place(routing_db, [row("new", origin(named("new")))])
    return routing_db, log


def test_a_running_edge_keeps_the_last_good_set_until_they_are_removed(edge, origin, routing_db):
    save(routing_db, [row("old", origin(named("old")))])
    proxy = edge(GEOIP_PATH="off", DB_RELOAD_SECS=0.25)
    assert who(proxy) == "old"
    log = kill_a_writer(routing_db, origin(named("of the log")))
    eventually(lambda: who(proxy) == "of the log", what="a writer that is killed has committed")
    move_into_place(routing_db, [row("new", origin(named("new")))])
    stale = eventually(lambda: proxy.ready()["routing"]["stale"], what="it is noticed")
    assert "routing.db-wal" in stale
    assert "remove" in stale
    assert who(proxy) == "of the log"
    log.unlink()
    routing_db.with_name("routing.db-shm").unlink()
    eventually(lambda: who(proxy) == "new", what="the new file serves")
    assert proxy.ready()["routing"]["stale"] is None


def test_an_edge_that_starts_has_nothing_better_and_warns(edge, mixed):
    proxy = edge(GEOIP_PATH="off")
    line = eventually(lambda: next((one for one in proxy.log() if "routing.db-wal" in one["event"]), None))
    assert line["level"] == "WARNING"
    assert proxy.ready()["backends"] == 1


def test_commands_refuse_and_change_nothing(mixed):
    path, log = mixed
    before = path.read_bytes(), log.read_bytes()
    for arguments in (["list"], ["drain", "new"]):
        done = backends(path, *arguments)
        assert done.returncode != 0
        assert "routing.db-wal" in done.stderr
    assert (path.read_bytes(), log.read_bytes()) == before
    log.unlink()
    assert "new" in backends(path, "list").stdout


def test_a_log_of_the_same_file_is_trusted_when_it_is_touched(routing_db):
    save(routing_db, [row("old", 1)])
    log = kill_a_writer(routing_db, 2)
    assert " 2 " in backends(routing_db, "list").stdout, "a killed writer alone is no reason to refuse"
    log = kill_a_writer(routing_db, 3)
    eventually(lambda: (routing_db.chmod(0o600), routing_db.stat().st_ctime_ns > log.stat().st_ctime_ns)[1])
    assert "touch it" in backends(routing_db, "list").stderr
    eventually(lambda: (os.utime(log), routing_db.stat().st_ctime_ns < log.stat().st_ctime_ns)[1])
    assert " 3 " in backends(routing_db, "list").stdout
