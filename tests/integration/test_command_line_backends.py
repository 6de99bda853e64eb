"""`python -m app backends` and scripts/seed_backends.py: files are loaded whole or not, with faults by row."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time

import pytest

from app.domain.model import BACKEND_COLUMNS
from app.outbound.peewee_backends import SqliteBackendStore
from tests.commands import backends, clean_environment, command, edgeproxy, run
from tests.harness import ROOT, SEED_DDL, row, write_backends

HEAD = ",".join(BACKEND_COLUMNS)
CSV = f"""{HEAD}
gru,web,sa,BR,127.0.0.1,9101,1,1,100,0,0
six,,,,2001:db8::1,9102,,,,,
"""


@pytest.fixture
def database(tmp_path):
    """The path of a database that does not exist yet."""
    return tmp_path / "made.db"


def table(path):
    """Every row of the table by id, as plain SQLite sees it."""
    with sqlite3.connect(path) as connection:
        connection.row_factory = sqlite3.Row
        found = {one["id"]: dict(one) for one in connection.execute("SELECT * FROM backends")}
    connection.close()
    return found


def test_csv_is_loaded_into_a_new_database_with_the_defaults_for_empty_cells(database, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_text(CSV)
    done = backends(database, "load", file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"2 backends loaded into {database}\n"
    found = table(database)
    assert found["gru"] == row("gru", 9101, app="web", drain_deadline=None)
    assert found["six"] == row("six", 9102, wg_ip="2001:db8::1", region=None, country=None, drain_deadline=None)


@pytest.mark.parametrize(
    "text",
    [
        CSV,
        CSV.replace("\n", "\r\n"),
        "\ufeff" + CSV,
        '[{"id": "gru", "wg_ip": "127.0.0.1", "port": 9101}, {"id": "six", "wg_ip": "2001:db8::1", "port": 9102}]',
        '{"id": "gru", "wg_ip": "127.0.0.1", "port": 9101}\n\n{"id": "six", "wg_ip": "2001:db8::1", "port": 9102}\n',
        'port,wg_ip,id\n9101,"127.0.0.1",gru\n 9102 ,2001:db8::1, six \n',
    ],
    ids=["csv", "csv of Windows", "csv of Excel", "json", "json lines", "csv in another order"],
)
def test_every_format_is_read_from_standard_input_too(database, text):
    done = backends(database, "load", "-", stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert {name: one["port"] for name, one in table(database).items()} == {"gru": 9101, "six": 9102}


def test_a_load_adds_and_replaces_rows_and_replace_removes_the_others_too(database):
    write_backends(database, [row("gru", 1, weight=9), row("old", 2)])
    assert backends(database, "load", "-", stdin=CSV).returncode == 0
    assert {name: one["weight"] for name, one in table(database).items()} == {"gru": 1, "old": 1, "six": 1}
    assert backends(database, "load", "--replace", "-", stdin=CSV).returncode == 0
    assert set(table(database)) == {"gru", "six"}
    assert backends(database, "load", "--demo", "--replace").returncode == 0
    assert set(table(database)) == {"gru", "nyc", "cdg", "nrt", "jnb"}


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (f"{HEAD}\na,,,,127.0.0.1,80,,,,,\nb,,,,127.0.0.1,70000,,,,,\n", ["line 3", "column port", "70000"]),
        (f"{HEAD}\na,,,,127.0.0.1,80,,-1,,,\nb,,,,no where,80,,,,,\n", ["line 2", "column weight", "line 3", "wg_ip"]),
        ("id,wg_ip,port\na,127.0.0.1,80\na,127.0.0.1,81\n", ["line 3", "column id", "is a duplicate of line 2"]),
        ("id,wg_ip,port\na,127.0.0.1\n", ["line 2", "the number of fields differs"]),
        ("id,wg_ip,port\na,127.0.0.1,80,90\n", ["line 2", "the number of fields differs"]),
        ("id,wg_ip,prot\na,127.0.0.1,80\n", ["unknown column: prot"]),
        ("wg_ip,port\n127.0.0.1,80\n", ["column id is missing"]),
        ("id,wg_ip,port\n", ["the file has no rows"]),
        ("", ["column id is missing"]),
        ('[{"id": "a", "wg_ip": "127.0.0.1", "port": "80"}]', ["row 1", "column port", "'80'"]),
        ('[{"id": "a", "wg_ip": "127.0.0.1", "port": 80}, 7]', ["row 2", "must be an object"]),
        ('{"id": "a", "wg_ip": "127.0.0.1", "port": 80}\n{"id": "b", "port": 80}', ["row 2", "column wg_ip"]),
        ('[{"id": "a", "wg_ip": "127.0.0.1", "port": 80, "colour": 1}]', ["unknown column: colour"]),
        ('[{"id": "a", ', ["Expecting"]),
        ('id,wg_ip,port\n"a,127.0.0.1,80\n', ["unexpected end of data"]),
    ],
)  # fmt: skip
def test_a_file_with_one_bad_row_changes_nothing_and_names_row_and_column(database, text, named):
    write_backends(database, [row("kept", 1)])
    done = backends(database, "load", "--replace", "-", stdin=text)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    for words in named:
        assert words in done.stderr
    assert set(table(database)) == {"kept"}


def test_a_missing_file_or_one_that_is_not_utf8_is_refused_in_one_line(database, tmp_path):
    file = tmp_path / "latin1.csv"
    file.write_bytes("id,wg_ip,port,region\na,127.0.0.1,80,são\n".encode("latin-1"))
    done = backends(database, "load", file)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "UTF-8" in done.stderr
    assert backends(database, "load", tmp_path / "absent.csv").returncode == 2
    assert backends(database, "load").returncode == 2, "neither a file nor --demo"
    assert backends(database, "load", file, "--demo").returncode == 2, "both"
    assert not database.exists()


def test_list_shows_every_row_and_the_faults_of_bad_ones(database):
    write_backends(database, [row("good", 1), row("out", 2, deleted=1), row("ill", 3, healthy=0), row("bad", 0)])
    done = backends(database, "list")
    assert done.returncode == 0
    states = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert states["good"].rstrip().endswith("serving")
    assert states["out"].rstrip().endswith("drained")
    assert states["ill"].rstrip().endswith("unhealthy")
    assert "refused: port=0" in states["bad"]
    shown = json.loads(backends(database, "list", "--json").stdout)
    assert [one["id"] for one in shown] == ["bad", "good", "ill", "out"]
    assert shown[1] == row("good", 1, drain_deadline=None)


def test_a_row_of_any_bytes_is_listed_not_tripped_over(database):
    write_backends(database, [row("good", 1)])
    with sqlite3.connect(database) as hand:
        hand.execute("INSERT INTO backends (id, wg_ip, port) VALUES ('bad', x'ff00', CAST(x'ff' AS TEXT))")
    hand.close()
    with SqliteBackendStore(database) as store:
        bad, good = store.rows()
    assert (bad["wg_ip"], bad["port"], good["id"]) == (b"\xff\x00", "\udcff", "good")
    done = backends(database, "list")
    assert (done.returncode, done.stderr) == (0, "")
    assert "refused: " in done.stdout
    bad, good = json.loads(backends(database, "list", "--json").stdout)
    assert (bad["wg_ip"], good["id"]) == ("ff00", "good")


def test_drain_undrain_and_remove_change_the_rows_named_and_no_others(database):
    write_backends(database, [row("a", 1), row("b", 2), row("c", 3)])
    before = time.time()
    assert backends(database, "drain", "a", "b", "--deadline", "5m").returncode == 0
    found = table(database)
    assert [found[name]["deleted"] for name in "abc"] == [1, 1, 0]
    assert before + 300 <= found["a"]["drain_deadline"] <= time.time() + 300
    assert backends(database, "drain", "b").returncode == 0, "again, without a deadline"
    assert backends(database, "undrain", "a").returncode == 0
    found = table(database)
    assert [found[name]["deleted"] for name in "abc"] == [0, 1, 0]
    assert [found[name]["drain_deadline"] for name in "abc"] == [None, None, None]
    assert backends(database, "remove", "a", "c").returncode == 0
    assert set(table(database)) == {"b"}


@pytest.mark.parametrize("verb", ["drain", "undrain", "remove"])
def test_an_unknown_id_among_others_changes_nothing_and_is_named(database, verb):
    write_backends(database, [row("a", 1), row("b", 2, deleted=1)])
    done = backends(database, verb, "a", "nobody", "b", "no one")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "backends: no such backend: nobody, no one; nothing was changed\n"
    assert {name: one["deleted"] for name, one in table(database).items()} == {"a": 0, "b": 1}


@pytest.mark.parametrize("deadline", ["soon", "-5s", "1w", "99999999h"])
def test_an_invalid_deadline_is_refused(database, deadline):
    write_backends(database, [row("a", 1)])
    assert backends(database, "drain", "a", f"--deadline={deadline}").returncode == 2
    assert table(database)["a"]["deleted"] == 0


def test_a_database_that_cannot_be_used_is_one_line(tmp_path):
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"this is no database" * 100)
    nowhere = tmp_path / "no" / "folder" / "x.db"
    for path, complaint in ((junk, "file is not a database"), (nowhere, "there is no folder")):
        done = backends(path, "load", "--demo")
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert complaint in done.stderr
    absent = tmp_path / "absent.db"
    done = backends(absent, "list")
    assert (done.returncode, done.stderr) == (2, f"backends: {absent} does not exist\n")
    assert not absent.exists()


def test_writers_at_once_wait_for_each_other_and_nothing_is_lost(database):
    """Each reads before it writes. If the lock were taken only at the write, some would fail at once."""
    with sqlite3.connect(database) as connection:
        connection.execute(SEED_DDL)  # without our further column: they all find it missing
    connection.close()
    program = [sys.executable, "-m", "app", "backends", "--db", str(database)]
    names = [f"b{number}" for number in range(4)]
    started = [
        subprocess.Popen(
            [*program, "load", "-"],
            cwd=ROOT,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        for _ in names
    ]
    ends = [
        one.communicate(f"id,wg_ip,port\n{name},127.0.0.1,80\n", 60) for one, name in zip(started, names, strict=True)
    ]
    assert [error for _, error in ends] == [""] * len(names)
    assert set(table(database)) == set(names)


def test_writers_that_read_first_wait_too(database):
    """A transaction that has read cannot write once another has written: it must hold the lock from its start."""
    write_backends(database, [row(f"b{number}", 1) for number in range(3)])
    script = (
        "import sys; from pathlib import Path; from app.outbound.peewee_backends import SqliteBackendStore\n"
        "for turn in range(40):\n"
        "    with SqliteBackendStore(Path(sys.argv[1])) as store:\n"
        "        (store.undrain if turn % 2 else lambda ids: store.drain(ids, None))([sys.argv[2]])\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(database), f"b{number}"],
            cwd=ROOT,
            env=clean_environment() | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(3)
    ]
    assert [one.communicate(timeout=60)[1] for one in started] == [""] * 3
    assert {one["deleted"] for one in table(database).values()} == {0}


def test_the_database_is_the_one_of_the_environment_or_of_the_option(database, tmp_path):
    other = tmp_path / "other.db"
    assert edgeproxy("backends", "load", "--demo", DB_PATH=str(database)).returncode == 0
    assert command("backends", "--db", other, "load", "-", stdin=CSV, DB_PATH=str(database)).returncode == 0
    assert (len(table(database)), len(table(other))) == (5, 2)


def test_the_seeding_script_is_the_same_from_any_folder_and_with_any_python(database, tmp_path):
    script = str(ROOT / "scripts" / "seed_backends.py")
    done = run([script, "--db", "made.db", "load", "--demo"], cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert set(table(database)) == {"gru", "nyc", "cdg", "nrt", "jnb"}
    done = run([script, "drain", "gru", "nobody"], cwd=tmp_path, DB_PATH=str(database))
    assert (done.returncode, done.stderr) == (2, "backends: no such backend: nobody; nothing was changed\n")
    assert os.access(script, os.X_OK)


def test_a_full_disk_changes_nothing_and_is_named(database, tmp_path):
    file = tmp_path / "many.json"
    file.write_text(json.dumps([row(f"b{number}", 9101, app="x" * 200) for number in range(2000)]))
    command_line = [sys.executable, "-m", "app", "backends", "--db", str(database), "load", str(file)]
    done = run(["bash", "-c", 'ulimit -f 100; exec "$@"', "limited", *command_line])
    assert (done.returncode, done.stderr) == (2, f"backends: {database}: disk I/O error\n")
    assert table(database) == {}
