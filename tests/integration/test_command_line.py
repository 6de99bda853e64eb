"""`python -m app`: check prints the configuration, explain shows which backend a client would get."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
import tomllib

from app.cli import VERSION, main
from app.config import Settings, variable
from tests.commands import clean_environment, command, commands_of, edgeproxy, run
from tests.harness import ROOT, row, write_backends

ROWS = [
    row("gru", 1, country="BR", region="sa"),
    row("scl", 2, country="CL", region="sa"),
    row("nyc", 3, country="US", region="us"),
    row("jnb", 4, country="ZA", region="af"),
    row("old", 5, country="BR", region="sa", deleted=1),
    row("ill", 6, country="BR", region="sa", healthy=0),
    row("last", 7, country="BR", region="sa", weight=0),
    row("six", 8, country="BR", region="sa", wg_ip="2001:db8::1", weight=3),
    row("bad", 0),
]


def test_help_names_every_command():
    done = edgeproxy("--help")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("serve", "check", "schema", "explain", "backends"):
        assert f"\n  {name} " in done.stdout
    done = command("backends", "-h")
    for name in ("load", "list", "drain", "undrain", "remove"):
        assert f"\n  {name} " in done.stdout
    assert command("nonsense").returncode == 2


def test_the_list_of_commands_is_what_each_says_of_itself_and_imports_none(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    lines = command("--help").stdout.partition("Commands:\n")[2].splitlines()
    listed = dict(line.split(maxsplit=1) for line in lines)
    assert listed.keys() == commands_of(main).keys()
    for name, one in commands_of(main).items():
        assert one.get_short_help_str(200).startswith(listed[name].removesuffix("..."))
    for option in ("--help", "--version"):
        loaded = f"import runpy, sys; sys.argv[1:] = ['{option}']\ntry:\n    runpy.run_module('app')\n"
        loaded += "finally:\n    print([name for name in sys.modules if name in ('pydantic', 'peewee', 'loguru')])"
        done = run([sys.executable, "-c", loaded])
        assert done.stdout.splitlines()[-1] == "[]"


def test_the_version_is_that_of_the_project_and_of_the_changelog():
    done = command("--version")
    assert done.stdout == f"edgeproxy {VERSION}, Python {platform.python_version()}\n"
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == VERSION
    assert f"\n## {VERSION} " in (ROOT / "CHANGELOG.md").read_text()


def test_explain_prints_json_on_standard_output(routing_db):
    write_backends(routing_db, ROWS)
    done = edgeproxy("explain", "200.160.2.3", DB_PATH=str(routing_db))
    assert (done.returncode, done.stderr) == (0, "")
    assert "same country as the client" in done.stdout


def test_check_prints_every_variable_with_its_effective_value():
    done = command("check", REGION="EU", DRAIN_TIMEOUT_SECS="4.5", PROXY_PROTOCOL_FROM="127.0.0.2/32, ::1")
    assert done.returncode == 0
    # Somebody else may listen on the default ports.
    assert [line for line in done.stderr.splitlines() if "Address already in use" not in line] == []
    lines = {line.split()[0]: line for line in done.stdout.splitlines() if line.strip()}
    assert {variable(name) for name in Settings.model_fields} == set(lines) - {"variable"}
    assert " eu " in lines["EDGEPROXY_REGION"]
    assert " 4.5 " in lines["EDGEPROXY_DRAIN_TIMEOUT_SECS"]
    assert "127.0.0.2/32,::1/128" in lines["EDGEPROXY_PROXY_PROTOCOL_FROM"]
    assert "0.0.0.0:8080,[::]:8080" in lines["EDGEPROXY_LISTEN_ADDR"]
    for name, field in Settings.model_fields.items():
        assert field.description in lines[variable(name)]


def test_check_as_json_shows_the_defaults_and_the_derived_limit():
    shown = json.loads(command("check", "--json").stdout)
    assert set(shown) == {variable(name) for name in Settings.model_fields} | {"frontends", "pools", "sources"}
    assert shown["sources"]["EDGEPROXY_DB_PATH"] == "default"
    assert shown["EDGEPROXY_DB_PATH"] == "routing.db"
    assert shown["EDGEPROXY_BINDING_TTL_SECS"] == "600"
    assert shown["EDGEPROXY_SOFT_LIMIT_SPILL"] == "false"
    assert shown["EDGEPROXY_LOG_PATH"] == ""
    assert int(shown["EDGEPROXY_MAX_CONNECTIONS"]) > 0


def explained(routing_db, address, **variables):
    done = command("explain", address, "--json", DB_PATH=str(routing_db), **variables)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_explain_as_json_lists_every_backend_best_first_with_tier_score_and_reason(routing_db):
    write_backends(routing_db, ROWS)
    before = routing_db.read_bytes()
    found = explained(routing_db, "200.160.2.3", REGION="af")
    assert (found["client"], found["country"], found["region"], found["pop_region"]) == (
        "200.160.2.3", "BR", "sa", "af",
    )  # fmt: skip
    assert found["geography_age_days"] >= 0
    assert (found["frontend"], found["pool"], found["total"]) == ("edge", "default", len(found["items"]))
    verdicts = [(one["id"], one["tier"], one["score"], one["is_candidate"]) for one in found["items"]]
    assert verdicts == [
        ("six", 0, 0, True),
        ("gru", 0, 0, True),
        ("scl", 1, 100, True),
        ("jnb", 2, 200, True),
        ("nyc", 3, 300, True),
        ("ill", 0, 0, False),
        ("old", 0, 0, False),
        ("last", 0, 0, False),
    ]
    why = {one["id"]: one["why"] for one in found["items"]}
    assert why["gru"] == "in: same country as the client"
    assert why["scl"] == "in: same region as the client"
    assert why["jnb"] == "in: same region as this POP"
    assert why["nyc"] == "in: elsewhere"
    assert (why["old"], why["ill"]) == ("out: drained (deleted)", "out: unhealthy in the database")
    assert why["last"].startswith("out: weight 0")
    assert len(found["refused_rows"]) == 1 and "port=0" in found["refused_rows"][0]
    assert routing_db.read_bytes() == before


def test_explain_prints_the_same_as_a_table(routing_db):
    write_backends(routing_db, ROWS)
    done = command("explain", "2001:12ff::10", DB_PATH=str(routing_db), REGION="af")
    assert (done.returncode, done.stderr) == (0, "")
    head, _, *rows = done.stdout.splitlines()
    assert head.startswith("client: 2001:12ff::10  country: BR  region: sa  pop_region: af  geography_built: 20")
    table = [line.split()[0] for line in rows if line.strip() and not line.startswith("refused row")]
    assert table[:5] == ["six", "gru", "scl", "jnb", "nyc"]
    assert "[2001:db8::1]:8" in done.stdout
    assert rows[-1].startswith("refused row: backend 'bad': port=0: ")


def test_explain_shows_unknown_values_as_unknown(routing_db):
    write_backends(routing_db, ROWS)
    for address, variables in (("192.0.2.1", {}), ("10.0.0.1", {}), ("200.160.2.3", {"GEOIP_PATH": "off"})):
        found = explained(routing_db, address, REGION="af", **variables)
        assert (found["country"], found["region"]) == (None, None)
        assert (found["items"][0]["id"], found["items"][0]["tier"]) == ("jnb", 2)
    assert explained(routing_db, "::ffff:200.160.2.3")["client"] == "200.160.2.3"


def test_explain_shows_only_the_rows_of_the_app(routing_db):
    write_backends(routing_db, [row("a", 1, app="web"), row("b", 2, app="api")])
    assert [one["id"] for one in explained(routing_db, "192.0.2.1", APP="api")["items"]] == ["b"]


def test_explain_refuses_wrong_input_in_one_line(routing_db, tmp_path):
    for address, database, complaint in (
        ("200.160.2", routing_db, "'200.160.2' is not an IP address"),
        ("localhost", routing_db, "'localhost' is not an IP address"),
        ("200.160.2.3", tmp_path / "absent.db", "absent.db does not exist; create it with scripts/seed_backends.py"),
        ("200.160.2.3", tmp_path, str(tmp_path)),
    ):
        done = command("explain", address, DB_PATH=str(database))
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.splitlines()
        assert complaint in line
    assert not (tmp_path / "absent.db").exists()


def test_the_replicator_takes_every_limit_that_the_edge_takes(tmp_path):
    """Both raise the soft limit of descriptors, against which the limit of connections is validated."""
    command = ["bash", "-c", 'ulimit -Sn 1024; exec "$0" -m app replicate', sys.executable]
    environment = clean_environment(MAX_CONNECTIONS="1000", DB_PATH=str(tmp_path / "routing.db"))
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert "idle: EDGEPROXY_ETCD_ENDPOINTS is not set" in process.stderr.readline()
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
