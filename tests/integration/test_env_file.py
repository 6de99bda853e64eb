"""`.env`: commands see the configuration of the edge, under honcho and without it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from app.config import PREFIX
from app.outbound.admin_api import AdminApi
from tests.commands import Done
from tests.harness import ROOT, START_SECONDS, eventually, row, write_backends

DEMO = (ROOT / ".env.example").read_text().replace("EDGEPROXY_CONFIG", "NO_CONFIG")
"""The demo's settings, without its frontends."""
BY_HONCHO = ("honcho", "start")
BY_HAND = ("app", "serve")
SEED_BACKENDS = str(ROOT / "scripts" / "seed_backends.py")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the demo's `.env`, two backends, and a Procfile of the edge."""
    (tmp_path / ".env").write_text(DEMO)
    (tmp_path / "Procfile").write_text(f"edge: exec {shlex.quote(sys.executable)} -m app serve\n")
    write_backends(tmp_path / "routing.db", [row("gru", 1, region="sa", country="BR"), row("jnb", 2, region="af")])
    return tmp_path


def environment(**variables: str) -> dict[str, str]:
    """Return the environment of a user in a folder, with only these variables of ours."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith((PREFIX, "HONCHO"))}
    return kept | {"PYTHONPATH": str(ROOT)} | {f"{PREFIX}{name}": text for name, text in variables.items()}


def python(folder: Path, *arguments: str, **variables: str) -> Done:
    """Run a module or a script of Python in a folder."""
    return subprocess.run(
        [sys.executable, *arguments],
        check=False,
        cwd=folder,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def taken(folder: Path, *overridden: str, name: str = ".env") -> str:
    """Return the line that names the file that was read."""
    overriding = f", overriding {', '.join(overridden)} of the environment" if overridden else ""
    return f"variables from {folder / name}{overriding}"


@contextmanager
def edge_running(folder: Path, module: tuple[str, ...], **shell: str) -> Iterator[list[dict[str, object]]]:
    """Run the edge for the block. Yields the events logged until it listened."""
    log = folder / "logs" / "edge.jsonl"

    def events() -> list[dict[str, object]]:
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        return found if any(str(event["event"]).startswith("listening on") for event in found) else []

    with (folder / "output").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *module], cwd=folder, env=environment(**shell), stdout=output, stderr=output
        )
    try:
        yield eventually(events, START_SECONDS, what="the edge listens")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


@pytest.mark.parametrize("module", [BY_HONCHO, BY_HAND], ids=["honcho", "serve"])
def test_explain_sees_the_region_of_the_running_edge_also_where_the_shell_has_another(folder, module):
    listen = dict.fromkeys(("LISTEN_ADDR", "METRICS_LISTEN_ADDR", "ADMIN_LISTEN_ADDR"), "127.0.0.1:0")
    shell = {"REGION": "eu", "GEOIP_PATH": "off", **listen}
    with edge_running(folder, module, **shell) as events:
        api = AdminApi(f"http://{events[-1]['admin']}", (folder / "admin.token").read_text().strip())
        region_of_the_edge = api.call("GET", "/api/configuration")["variables"]["EDGEPROXY_REGION"]
        done = python(folder, "-m", "app", "explain", "192.0.2.1", "--json", **shell)
    assert (done.returncode, done.stderr) == (0, f"edgeproxy: {taken(folder, 'EDGEPROXY_REGION')}\n")
    assert json.loads(done.stdout)["pop_region"] == region_of_the_edge == "af"
    logged = [(event["event"], event["env_file"]) for event in events if "env_file" in event]
    by_hand = [(taken(folder, "EDGEPROXY_REGION"), str(folder / ".env"))]
    assert logged == (by_hand if module is BY_HAND else []), "under honcho, honcho reads the file"
    assert "variables from" not in (folder / "output").read_text()


def test_an_edge_of_honcho_with_another_file_is_left_with_that_file(folder):
    (folder / "prod.env").write_text(DEMO.replace("REGION=af", "REGION=us"))
    listen = dict.fromkeys(("LISTEN_ADDR", "METRICS_LISTEN_ADDR", "ADMIN_LISTEN_ADDR"), "127.0.0.1:0")
    with edge_running(folder, ("honcho", "-e", "prod.env", "start"), GEOIP_PATH="off", **listen) as events:
        api = AdminApi(f"http://{events[-1]['admin']}", (folder / "admin.token").read_text().strip())
        assert api.call("GET", "/api/configuration")["variables"]["EDGEPROXY_REGION"] == "us"
    done = python(folder, "-m", "app", "explain", "192.0.2.1", "--json", ENV_FILE="prod.env", GEOIP_PATH="off")
    assert (json.loads(done.stdout)["pop_region"], taken(folder, name="prod.env") in done.stderr) == ("us", True)


def test_a_command_that_reads_no_file_names_none(folder):
    done = python(folder, "-m", "app", "explain", "192.0.2.1", "--json", ENV_FILE="")
    assert (json.loads(done.stdout)["pop_region"], done.stderr) == ("sa", "")


def test_the_command_line_overrides_the_file(folder):
    (folder / ".env").write_text("EDGEPROXY_LOG_LEVEL=error\n")
    done = python(folder, "-m", "app", "check", "--log-level", "debug", "--json")
    assert json.loads(done.stdout)["EDGEPROXY_LOG_LEVEL"] == "debug"


def test_faults_of_the_configuration_name_the_file_where_the_variable_comes_from_it(folder):
    (folder / ".env").write_text("EDGEPROXY_REGOIN=af\nEDGEPROXY_BINDING_TTL_SECS=-1\nREGOIN=1\n")
    done = python(folder, "-m", "app", "check", CONNECT_TIMEOUT_SECS="0")
    assert (done.returncode, done.stdout) == (2, "")
    said, *faults = done.stderr.splitlines()
    assert said == f"edgeproxy: {taken(folder)}"
    path = folder / ".env"
    assert [fault.partition("SECS")[0] for fault in faults] == [
        f"edgeproxy: {path}: EDGEPROXY_BINDING_TTL_",
        "edgeproxy: EDGEPROXY_CONNECT_TIMEOUT_",
        f"edgeproxy: {path}: EDGEPROXY_REGOIN: no such variable, did you mean EDGEPROXY_REGION?",
    ]


def test_a_file_at_fault_ends_every_command(folder):
    (folder / ".env").write_text("A='\n")
    for arguments in (["-m", "app", "schema"], ["-m", "app", "serve"], [SEED_BACKENDS, "list"]):
        done = python(folder, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == f"edgeproxy: {folder}/.env: line 1: No closing quotation\n"


def test_the_script_that_seeds_reads_the_file_too(folder):
    (folder / ".env").write_text("EDGEPROXY_DB_PATH=other.db\n")
    done = python(folder, SEED_BACKENDS, "load", "--demo", DB_PATH="routing.db")
    assert (done.returncode, done.stdout) == (0, "5 backends loaded into other.db\n")
    assert done.stderr == f"edgeproxy: {taken(folder, 'EDGEPROXY_DB_PATH')}\n"


def test_handlers_and_libraries_get_the_other_variables_too(folder):
    (folder / ".env").write_text("GREETING=hello\n")
    (folder / "greet.py").write_text("import os\n\ndef handle(request, context):\n    return os.environ['GREETING']\n")
    done = python(folder, "-m", "app", "handler", "run", "greet.py", "GET", "/")
    assert (done.returncode, "hello" in done.stdout) == (0, True), done.stderr
