"""`python -m app simulate`, with the country database in app/data and with small ones."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys

import pytest

from tests.commands import Done, backends, clean_environment, command, edgeproxy
from tests.harness import ROOT
from tests.integration.test_country_database import flat, make_database
from tests.programs import program

FLEET = ROOT / "docs" / "fleet.csv"


@pytest.fixture
def fleet(routing_db):
    assert backends(routing_db, "load", FLEET).returncode == 0
    return routing_db


@pytest.fixture
def world(tmp_path):
    """A country database of three countries. Returns the arguments that select it."""
    networks = {"1.0.0.0/16": flat("BR"), "2.0.0.0/24": flat("FR"), "2001:db8::/32": flat("JP")}
    return {"GEOIP_PATH": str(make_database(tmp_path / "world.mmdb", networks, version=6)), "REGION": "eu"}


def simulate(database: object, *arguments: object, **variables: str) -> Done:
    return command("simulate", "--db", database, *arguments, **variables)


def test_the_whole_world_a_failure_and_a_surge(fleet):
    done = edgeproxy(
        *("simulate", "--db", fleet, "--clients", 20_000, "--fail", "gru-1", "--surge", "BR=5", "--json"), REGION="eu"
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    steady, surge, failure = found["stages"]
    assert [stage["name"] for stage in found["stages"]] == ["steady", "surge", "failure"]
    assert (steady["clients"], steady["served"]) == (20_000, 20_000)
    # Brazil has 172 of 4,568 million users: 754 of 20,000 clients, and four times as many more come.
    assert surge["clients"] - steady["clients"] == pytest.approx(4 * 754, rel=0.02)
    assert failure["clients"] == surge["clients"]
    by_id = [{row["id"]: row for row in stage["backends"]} for stage in found["stages"]]
    assert by_id[0]["gru-1"]["connections"] > 0
    assert (by_id[2]["gru-1"]["connections"], by_id[2]["gru-1"]["state"]) == (0, "out")
    assert found["broken_bindings"] == by_id[1]["gru-1"]["connections"]
    assert sum(move["clients"] for move in found["moves"]) == found["broken_bindings"]
    assert {move["from"] for move in found["moves"]} == {"gru-1"}


def test_tables_a_whole_region_failing_and_the_same_again(fleet, world):
    first = simulate(fleet, "--clients", 3000, "--fail", "SA", "--fail", "bah-1", **world)
    assert first.returncode == 0
    assert "Bindings broken by the failure of gru-1, gru-2, scl-1, bah-1: 2," in first.stdout
    assert simulate(fleet, "--clients", 3000, "--fail", "SA", "--fail", "bah-1", **world).stdout == first.stdout
    other = simulate(fleet, "--clients", 3000, "--fail", "SA", "--fail", "bah-1", "--seed", 2, **world)
    assert other.stdout != first.stdout


def test_a_frontend_of_the_configuration_file(fleet, world, tmp_path):
    file = tmp_path / "edge.yaml"
    file.write_text(
        "frontends: [{name: a, listen: '127.0.0.1:0', backend: s, algorithm: geo},"
        " {name: b, listen: '127.0.0.1:0', backend: w, algorithm: geo, soft_limit_spill: true}]\n"
        "backends: [{name: s, app: nobody}, {name: w, app: web}]\n"
    )
    world["CONFIG"] = str(file)
    nobody = json.loads(simulate(fleet, "--clients", 10, "--json", **world).stdout)
    assert (nobody["frontend"], nobody["stages"][0]["unserved"]) == ("a", {"no_backends": 10})
    web = json.loads(simulate(fleet, "--clients", 10, "--frontend", "b", "--json", **world).stdout)
    assert (web["frontend"], web["stages"][0]["served"]) == ("b", 10)


def test_a_picture_as_svg_and_png(fleet, world, tmp_path):
    svg, png = tmp_path / "world.svg", tmp_path / "world.png"
    assert simulate(fleet, "--clients", 100, "--picture", svg, **world).returncode == 0
    assert svg.read_text().startswith("<svg ")
    program("rsvg-convert", "librsvg2-bin")
    assert simulate(fleet, "--clients", 100, "--picture", png, **world).returncode == 0
    assert png.read_bytes().startswith(b"\x89PNG")


def test_a_terminal_shows_how_far_it_is(fleet, world):
    """Progress is shown only on a terminal: here one made by `script`."""
    script = program("script", "bsdutils")
    simulation = shlex.join(
        [sys.executable, "-m", "app", "simulate", "--db", str(fleet), "--clients", "50000", "--json"]
    )
    done = subprocess.run(
        [script, "-qec", simulation, "/dev/null"],
        cwd=ROOT,
        env={**clean_environment(**world), "TERM": "xterm", "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "clients arrive" in done.stdout
    assert "50000/50000" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["--fail", "lax-9"], "there is no such backend or region"),
        (["--surge", "ZZ=2"], "no clients come from this country"),
        (["--surge", "BR"], "needs a country and a factor"),
        (["--surge", "BR=1"], "needs a country and a factor"),
        (["--surge", "BR=nan"], "needs a country and a factor"),
        (["--picture", "world.jpg"], "must end in .svg or .png"),
        (["--picture", "/nowhere/world.svg"], "its directory does not exist"),
        (["--clients", "0"], "not in the range"),
        (["--frontend", "other"], "no frontend other"),
    ],
)
def test_an_impossible_simulation_is_an_error_with_exit_code_2(fleet, world, arguments, fault):
    done = simulate(fleet, "--clients", 10, *arguments, **world)
    assert done.returncode == 2
    assert fault in done.stderr


def test_without_a_database_there_is_nothing_to_draw_from(fleet, world, tmp_path):
    done = simulate(fleet, **world | {"GEOIP_PATH": "off"})
    assert (done.returncode, "clients need the country database" in done.stderr) == (2, True)
    done = simulate(tmp_path / "none.db", **world)
    assert (done.returncode, "does not exist" in done.stderr) == (2, True)


def test_a_png_without_its_maker_names_the_package(fleet, world, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    done = simulate(fleet, "--picture", tmp_path / "world.png", **world)
    assert done.returncode == 2
    assert "librsvg2-bin" in done.stderr
