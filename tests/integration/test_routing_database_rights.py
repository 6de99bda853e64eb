"""A database that this user may not use in full: the message says what is missing and what to do, not what SQLite says.

Rights do not hold for root, but a read-only mount does.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import backends, clean_environment
from tests.harness import ROOT, eventually, row, write_backends

READ = "import sys, pathlib; from app.outbound.routing_database import open_repository as at"
READ += "; print(at(pathlib.Path(sys.argv[1])).load().backends)"
LIST = ["-m", "app", "backends", "list"]
INTERRUPTED_WRITER = """
import os, signal, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN")
database.execute("UPDATE backends SET region = 'ap' || hex(randomblob(200))")
os.kill(os.getpid(), signal.SIGKILL)
"""


def read_only(path: Path, arguments: list[str]) -> str:
    """Run Python with the folder of a database mounted read-only; returns what it prints."""
    if shutil.which("unshare") is None:
        pytest.skip("NOT RUN: needs unshare (Debian: util-linux)")
    folder = shlex.quote(str(path.parent))
    mount = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder} || exit 42"
    script = f"{mount}; exec {shlex.join([sys.executable, *arguments])}"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
        check=False, capture_output=True, text=True, timeout=60, cwd=ROOT, env=clean_environment(DB_PATH=str(path)),
    )  # fmt: skip
    if done.returncode == 42 or done.stderr.startswith("unshare:"):
        pytest.skip(f"NOT RUN: no mount namespaces here: {done.stderr.strip()}")
    return done.stdout + done.stderr


@pytest.mark.parametrize("arguments", [["-c", READ], LIST])
def test_wal_mode_in_a_folder_that_the_edge_may_not_write(routing_db, arguments):
    write_backends(routing_db, [row("a", 1)])
    with sqlite3.connect(routing_db) as database:
        database.execute("PRAGMA journal_mode = wal")
    database.close()
    said = read_only(routing_db, [*arguments, str(routing_db)] if arguments != LIST else LIST)
    assert "is in WAL mode" in said
    assert f"may not write in {routing_db.parent}" in said
    assert "PRAGMA journal_mode = delete" in said
    with sqlite3.connect(routing_db) as database:
        database.execute("PRAGMA journal_mode = delete")
    database.close()
    assert "id='a'" in read_only(routing_db, ["-c", READ, str(routing_db)]), "the advice helps"


def test_a_folder_that_nobody_may_write_is_named(routing_db):
    assert f"this user may not write in {routing_db.parent}" in read_only(routing_db, LIST)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "nowhere" / "routing.db"
    assert f"there is no folder {path.parent}" in backends(path, "drain", "a").stderr


def test_a_writer_interrupted_within_a_change_is_named_with_what_undoes_it(edge, routing_db):
    write_backends(routing_db, [row(f"b{number}", 9, region="sa" * 100) for number in range(1000)])
    subprocess.run([sys.executable, "-c", INTERRUPTED_WRITER, str(routing_db)], check=False, timeout=30)
    assert os.path.getsize(f"{routing_db}-journal") > 0
    proxy = edge(GEOIP_PATH="off", DB_RELOAD_SECS=0.25)
    stale = eventually(lambda: proxy.ready()["routing"]["stale"])
    assert "a writer was interrupted" in stale
    assert backends(routing_db, "list").returncode == 0
    eventually(lambda: proxy.ready()["backends"] == 1000, what="the advice helps")
