"""The Procfile: honcho starts the edge and the demo, and clients of five places get backends in five cities.

The tests run in a copy of the project, on other ports.
"""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest
from gevent.os import make_nonblocking, nb_read

from tests.commands import clean_environment, run
from tests.documents import blocks
from tests.harness import ROOT, START_SECONDS, eventually
from tests.traffic import free_ports

PLACES = {
    "200.160.2.3": "gru · São Paulo, BR (sa)",
    "8.8.8.8": "nyc · New York, US (us)",
    "193.51.208.13": "cdg · Paris, FR (eu)",
    "133.11.0.1": "nrt · Tokyo, JP (ap)",
    "192.0.2.1": "jnb · Johannesburg, ZA (af)",
    "2001:12ff::10": "gru · São Paulo, BR (sa)",
}
"""Clients from Brazil, the United States, France, Japan, an unknown place, and from Brazil over IPv6."""


class Project:
    """A copy of the project in which `honcho start` runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("app", "actors", "scripts"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Procfile", ".env.example"):
            shutil.copy(ROOT / name, folder)
        self.port, self.metrics_port, self.gateway_port, *self.demo_ports = free_ports(8)
        frontends = folder / "app/data/demo.yaml"
        listen = f"[127.0.0.1:{self.port}, '[::1]:{self.port}']"
        written = frontends.read_text().replace('"*:8080"', listen)
        frontends.write_text(written.replace('"*:8000"', f"127.0.0.1:{self.gateway_port}"))
        self.environment = clean_environment(
            LISTEN_ADDR=f"127.0.0.1:{self.port},[::1]:{self.port}", METRICS_LISTEN_ADDR=f"127.0.0.1:{self.metrics_port}"
        )
        self.environment |= {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "DEMO_BACKENDS": str(folder / "demo.csv"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self.environment.pop("DEMO", None)
        self._output = (folder / "output").open("wb")
        self.honcho: subprocess.Popen[bytes] | None = None

    def write_demo_backends(self) -> None:
        """Write the demo's own backends with other ports, and load them into the routing database."""
        with (self.folder / "app/data/demo_backends.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        with (self.folder / "demo.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(row | {"port": port} for row, port in zip(rows, self.demo_ports, strict=True))
        done = run([sys.executable, "-m", "app", "backends", "load", "demo.csv"], cwd=self.folder)
        assert done.returncode == 0, done.stderr

    def start(self, *prefix: str, output: int | None = None) -> None:
        """Run the last command of scripts/start; wait until the edge is live and each process handles signals.

        `output` is the descriptor of a terminal or of a pipe, which goes to the same file.
        """
        (arguments,) = re.findall(r'^exec python (.*) "\$@"$', (ROOT / "scripts/start").read_text(), re.MULTILINE)
        self.honcho = subprocess.Popen(
            [*(prefix or ["setsid"]), sys.executable, *arguments.split()],
            cwd=self.folder,
            env=self.environment,
            stdin=output,
            stdout=self._output if output is None else output,
            stderr=subprocess.STDOUT,
        )
        eventually(lambda: self.get(self.metrics_port, "/live")[0] == 200, START_SECONDS, what="the edge lives")
        for name in ("edge", "replicator", "demo", "bgp"):
            eventually(lambda name=name: self.handles_signals(name), START_SECONDS, what=f"{name} handles signals")

    def pids(self) -> dict[str, int]:
        """Return the ids of the processes that have started, by name."""
        return {name: int(pid) for name, pid in re.findall(r"(\w+)\.1 started \(pid=(\d+)\)", self.output())}

    def copy(self, descriptor: int) -> None:
        """Copy what arrives to the output, until there is no more."""
        make_nonblocking(descriptor)
        with (self.folder / "output").open("ab", buffering=0) as output, contextlib.suppress(OSError):
            while text := nb_read(descriptor, 4096):
                output.write(text)

    def handles_signals(self, name: str) -> bool:
        """Return whether a process of the Procfile catches SIGTERM, or waits for it."""
        process = Path(f"/proc/{self.pids().get(name)}")
        if not process.exists():
            return False
        caught = re.search(r"^SigCgt:\s*(\w+)$", process.joinpath("status").read_text(), re.MULTILINE)
        is_caught = caught is not None and int(caught[1], 16) >> (signal.SIGTERM - 1) & 1
        return bool(is_caught) or "sigtimedwait" in process.joinpath("wchan").read_text()

    def output(self) -> str:
        return (self.folder / "output").read_text()

    def get(self, port: int, path: str, host: str = "127.0.0.1") -> tuple[int, str]:
        """Return (status, body) of a GET; (0, "") if nothing listens."""
        connection = http.client.HTTPConnection(host, port, timeout=10)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read().decode()
        except ConnectionError:
            return 0, ""
        finally:
            connection.close()

    def as_client(self, address: str) -> list[str]:
        """Return the backends of two connections of a client at an address."""
        script = str(self.folder / "scripts" / "as_client.py")
        done = run([sys.executable, script, address, "--edge", f"127.0.0.1:{self.port}", "--count", "2"])
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    def type(self, script: str) -> str:
        """Run commands of a document in the folder. Returns their output."""
        script = script.replace("as_client.py", f"as_client.py --edge 127.0.0.1:{self.port}")
        script = script.replace("localhost:8080", f"127.0.0.1:{self.port}")
        script = script.replace("localhost:8000", f"127.0.0.1:{self.gateway_port}")
        script = script.replace("/tmp/", f"{self.folder}/")
        command = ["env", "-u", "EDGEPROXY_ENV_FILE", "bash", "-euo", "pipefail", "-c", script]
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> str:
        """End honcho as a service manager does. Returns its output."""
        assert self.honcho is not None
        self.honcho.send_signal(signal.SIGTERM)
        self.honcho.wait(20)
        return self.output()

    def clean_up(self) -> None:
        if self.honcho is not None and self.honcho.poll() is None:
            for pid in (self.honcho.pid, *self.pids().values()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.honcho.wait()
        self._output.close()


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    one = Project(tmp_path)
    yield one
    one.clean_up()


def assert_clean_end(output: str) -> None:
    processes = (ROOT / "Procfile").read_text().strip().count("\n") + 1
    assert output.count("(rc=0)") == processes, output
    assert "SIGKILL" not in output
    assert "Traceback" not in output


def said_of_readiness(project: Project) -> list[str] | None:
    """Return what the terminal shows, if the last words are those of an edge that has started."""
    lines = project.output().splitlines()
    return lines if "their token: " in lines[-1] else None


def test_clients_of_five_places_land_in_five_cities_and_stay_there(project):
    shutil.copy(project.folder / ".env.example", project.folder / ".env")
    project.write_demo_backends()
    project.start()
    eventually(lambda: project.get(project.port, "/")[0] == 200, what="an answer through the edge")
    assert project.get(project.port, "/")[1].splitlines()[0] == PLACES["192.0.2.1"], "127.0.0.1 is nowhere"
    assert project.get(project.port, "/", "::1")[0] == 200
    responses = {address: project.as_client(address) for address in PLACES}
    assert responses == {address: [city, city] for address, city in PLACES.items()}
    assert_clean_end(project.stop())
    lines = [json.loads(line) for line in (project.folder / "logs" / "edge.jsonl").read_text().splitlines()]
    located = {line["client"]: line["country"] for line in lines if line["event"] == "connection"}
    assert [located[address] for address in PLACES] == ["BR", "US", "FR", "JP", None, "BR"]


def test_the_tutorial(project):
    """docs/tutorial/five-minutes.md, as it is typed after `scripts/start`, and the same lines of the README."""
    shutil.copy(project.folder / ".env.example", project.folder / ".env")
    project.environment["EDGEPROXY_ADMIN_LISTEN_ADDR"] = "127.0.0.1:0"
    project.write_demo_backends()
    project.start()
    eventually(lambda: project.get(project.port, "/")[0] == 200, what="a response through the edge")
    *_, ready, page, token = eventually(lambda: said_of_readiness(project))
    addresses = f"127.0.0.1:{project.port}, [::1]:{project.port}, 127.0.0.1:{project.gateway_port}"
    assert ready.endswith(f"ready: clients connect to {addresses}")
    url = re.search(r"web page and admin API: (http://127\.0\.0\.1:\d+)/$", page)
    assert token.endswith(f"their token: {project.folder / 'admin.token'}")
    _, clients, explain, drain, handler, token = [
        one.text for one in blocks("tutorial/five-minutes.md") if one.language == "sh"
    ]
    assert [line for line in project.type(clients).splitlines() if line in PLACES.values()] == [
        *(PLACES[address] for address in ("192.0.2.1", "200.160.2.3", "8.8.8.8", "193.51.208.13")),
        *[PLACES["133.11.0.1"]] * 5,
    ]
    assert "pop_region: af" in project.type(explain.replace("source .venv/bin/activate\n", ""))
    assert PLACES["200.160.2.3"] not in project.type(drain)
    project.environment["EDGEPROXY_API_URL"] = url[1]
    assert project.type(handler).splitlines()[-1] == '{"hello":"you"}'
    assert project.type(token).strip()
    lines = (ROOT / "README.md").read_text().partition("## First success")[2].partition("## ")[0]
    typed_here = [line.partition(" #")[0] for text in (clients, explain) for line in text.splitlines()]
    assert [line for line in typed_here if f"    {line}" not in lines] == []
    assert_clean_end(project.stop())


def test_without_settings_and_database_it_runs_and_logs_how_to_seed_one(project):
    project.start()
    eventually(lambda: "create it with scripts/seed_backends.py" in project.output(), what="how to seed a database")
    status, body = project.get(project.metrics_port, "/ready")
    assert (status, json.loads(body)["reasons"]) == (503, ["no candidate backend"])
    assert project.get(project.port, "/")[0] == 0
    script = str(project.folder / "scripts" / "seed_backends.py")
    assert run([sys.executable, script, "load", "--demo"], cwd=project.folder).returncode == 0
    eventually(lambda: project.get(project.metrics_port, "/ready")[0] == 200, what="the new database serves")
    output = project.stop()
    assert "idle" not in output
    assert_clean_end(output)


def test_a_connection_open_at_the_end_is_served_until_the_drain_time_is_over(project):
    shutil.copy(project.folder / ".env.example", project.folder / ".env")
    project.write_demo_backends()
    project.start()
    eventually(lambda: project.get(project.port, "/")[0] == 200, what="an answer through the edge")
    connection = http.client.HTTPConnection("127.0.0.1", project.port, timeout=10)
    connection.request("GET", "/")
    assert connection.getresponse().read()
    project.honcho.send_signal(signal.SIGTERM)
    eventually(lambda: project.get(project.port, "/")[0] == 0, what="the listener has closed")
    connection.request("GET", "/")
    assert connection.getresponse().status == 200, "the demo outlives the edge's drain"
    connection.close()
    project.honcho.wait(20)
    assert_clean_end(project.output())


def assert_all_end(project: Project, pids: dict[str, int]) -> None:
    assert pids.keys() == {"edge", "replicator", "demo", "bgp"}
    project.honcho.wait(20)
    eventually(lambda: not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()], what="every process ends")
    assert project.get(project.metrics_port, "/live")[0] == 0


def test_everything_ends_when_its_terminal_is_closed(project):
    ours, theirs = pty.openpty()
    reading = gevent.spawn(project.copy, ours)
    project.start("setsid", "--ctty", output=theirs)
    os.close(theirs)
    pids = project.pids()
    reading.kill()
    os.close(ours)
    assert_all_end(project, pids)


def test_under_nohup_everything_goes_on_until_nobody_reads_its_output_any_more(project):
    ours, theirs = os.pipe()
    reading = gevent.spawn(project.copy, ours)
    project.start("setsid", "nohup", output=theirs)
    os.close(theirs)
    pids = project.pids()
    project.honcho.send_signal(signal.SIGHUP)
    os.kill(pids["edge"], signal.SIGHUP)
    eventually(lambda: "SIGHUP: there is no configuration file" in project.output(), what="it goes on")
    assert project.honcho.poll() is None
    reading.kill()
    os.close(ours)

    def has_ended() -> bool:
        """Have the edge log something, which honcho cannot print."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pids["edge"], signal.SIGHUP)
        gevent.sleep(0.3)
        return project.honcho.poll() is not None

    eventually(has_ended, 20, what="honcho ends")
    assert_all_end(project, pids)
