"""Real edges, real origins, real databases for tests: each started on ports the kernel chooses, each ended by pid."""

from __future__ import annotations

import atexit
import functools
import http.client
import json
import lzma
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
import yaml
from gevent.server import StreamServer

from app.outbound.maxmind_geo import SHIPPED_DATABASE
from tests.forked import Forked

ROOT = Path(__file__).resolve().parent.parent
SEED_DDL = """CREATE TABLE backends (
    id TEXT PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER)"""
PATIENCE_SECONDS = 10.0
START_SECONDS = 30.0
"""For a process to come up, beside whatever else the machine does."""


def eventually(look: Callable[[], Any], seconds: float = PATIENCE_SECONDS, what: str = "") -> Any:
    """Return the first true value of `look()`; fail when there is none within `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        value = look()
        if value:
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {what or look}")
        gevent.sleep(0.01)


def freeze(pid: int) -> None:
    """Stop a process, and wait until each of its threads has stopped: a signal takes its time on a busy machine."""

    def has_stopped() -> bool:
        states = [task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in tasks.iterdir()]
        return all(state in "TtZX" for state in states)

    tasks = Path(f"/proc/{pid}/task")
    os.kill(pid, signal.SIGSTOP)
    eventually(has_stopped, what=f"process {pid} has stopped")


def row(backend_id: str, port: int, **columns: Any) -> dict[str, Any]:
    """Return a row of the seed's table: a backend on loopback that BR clients are near to."""
    return {
        "id": backend_id, "app": None, "region": "sa", "country": "BR", "wg_ip": "127.0.0.1", "port": port,
        "healthy": 1, "weight": 1, "soft_limit": 100, "hard_limit": 0, "deleted": 0, **columns,
    }  # fmt: skip


def write_backends(path: Path, rows: list[dict[str, Any]]) -> None:
    """Make the table of the seed's own DDL hold exactly these rows, in one transaction."""
    with sqlite3.connect(path, timeout=10) as database:
        if not database.execute("SELECT 1 FROM sqlite_master WHERE name = 'backends'").fetchone():
            database.execute(SEED_DDL)
        database.execute("DELETE FROM backends")
        for one in rows:
            columns = ", ".join(one)
            marks = ", ".join("?" * len(one))
            database.execute(f"INSERT INTO backends ({columns}) VALUES ({marks})", list(one.values()))
    database.close()


def frontend(name: str, backend: str, **more: Any) -> dict[str, Any]:
    """Return a frontend of the configuration file, on a port the kernel chooses."""
    return {"name": name, "listen": "127.0.0.1:0", "backend": backend, **more}


def pool(name: str, *ports: int, **more: Any) -> dict[str, Any]:
    """Return a pool of the configuration file: servers on these ports of loopback."""
    return {"name": name, "servers": [{"address": f"127.0.0.1:{port}"} for port in ports], **more}


@functools.cache
def country_database() -> Path:
    """Return the path of the shipped country database, decompressed: that takes each start 0.3 s."""
    path = Path(tempfile.mkdtemp(prefix="edge-country-")) / "country.mmdb"
    atexit.register(shutil.rmtree, path.parent)
    path.write_bytes(lzma.decompress(SHIPPED_DATABASE.read_bytes()))
    return path


def _inherited() -> tuple[str, Path, tuple[int, int]]:
    return sys.executable, ROOT, resource.getrlimit(resource.RLIMIT_NOFILE)


_AS_STARTED = _inherited()


def _start(arguments: tuple[str, ...], environment: dict[str, str]) -> Forked | subprocess.Popen[bytes]:
    """Start `python -m app …`: from its beginning if a test has changed what a process inherits, else forked."""
    if _inherited() == _AS_STARTED:
        return Forked(arguments, environment)
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE)


class EdgeProcess:
    """`python -m app serve` as a user runs it, on ports the kernel chooses, with a configuration file or without."""

    def __init__(
        self,
        folder: Path,
        database: Path,
        listen: str,
        variables: dict[str, str],
        config: dict[str, Any] | None = None,
        options: tuple[str, ...] = (),
    ) -> None:
        self.log_path = folder / "edge.jsonl"
        self.config_path = folder / "edge.yaml"
        environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEPROXY_")}
        environment |= {
            **self._where_to_listen(listen, config),
            "EDGEPROXY_DB_PATH": str(database),
            "EDGEPROXY_LOG_PATH": str(self.log_path),
            "EDGEPROXY_DRAIN_TIMEOUT_SECS": "2",
            "EDGEPROXY_ADMIN_LISTEN_ADDR": "",
            "EDGEPROXY_ENV_FILE": "",
            "EDGEPROXY_GEOIP_PATH": str(country_database()),
            **{f"EDGEPROXY_{name}": text for name, text in variables.items()},
        }
        self.process = self.start_process(("serve", *options), environment)

        def started() -> dict[str, Any] | None:
            if self.process.poll() is not None:
                pytest.fail(f"the edge ended with {self.process.returncode}: {self.process.stderr.read().decode()}")
            return self.event("listening on")

        try:
            self._learn_addresses(eventually(started, START_SECONDS, "the edge listens"))
        except BaseException:
            self.kill()
            raise

    def start_process(
        self, arguments: tuple[str, ...], environment: dict[str, str]
    ) -> Forked | subprocess.Popen[bytes]:
        """Start `python -m app …`."""
        return _start(arguments, environment)

    def _where_to_listen(self, listen: str, config: dict[str, Any] | None) -> dict[str, str]:
        """Return the variables that say it, or that the file says it; metrics only where the file says nothing."""
        metrics = {"EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0"}
        if config is None:
            return {"EDGEPROXY_LISTEN_ADDR": listen, **metrics}
        self.write_config(config)
        said = {} if "metrics" in config.get("global", {}) else metrics
        return {"EDGEPROXY_CONFIG": str(self.config_path), **said}

    def _learn_addresses(self, head: dict[str, Any]) -> None:
        self.addresses = [_address(text) for text in head["listeners"]]
        self.frontends: dict[str, list[tuple[str, int]]] = {}
        for name, text in zip(head["frontends"], head["listeners"], strict=True):
            self.frontends.setdefault(name, []).append(_address(text))
        """By name, what each listens on."""
        self.metrics_address = _address(head["metrics"])

    @property
    def address(self) -> tuple[str, int]:
        """The first address clients connect to."""
        return self.addresses[0]

    def connect(self, source: str = "", timeout: float = PATIENCE_SECONDS, *, frontend: str = "") -> socket.socket:
        """Return a client connection to the edge, from a loopback address of one's choice, to a frontend by name."""
        address = self.frontends[frontend][0] if frontend else self.address
        return socket.create_connection(address, timeout, (source, 0) if source else None)

    def write_config(self, config: dict[str, Any]) -> None:
        """Replace the configuration file in one step."""
        fresh = self.config_path.with_suffix(".new")
        fresh.write_text(yaml.safe_dump(config, sort_keys=False))
        fresh.replace(self.config_path)

    def reload(self, config: dict[str, Any]) -> dict[str, Any]:
        """Replace the configuration file and send SIGHUP; returns the event that says what came of it."""
        before = len(self.reloads())
        self.write_config(config)
        self.process.send_signal(signal.SIGHUP)
        return self.wait_for_reload(before)

    def reloads(self) -> list[dict[str, Any]]:
        """Return the events that say what came of reading the configuration again."""
        return [line for line in self.log() if line["event"].startswith("configuration re")]

    def wait_for_reload(self, before: int) -> dict[str, Any]:
        """Wait until there have been more than so many; returns the event, and knows the new addresses then."""
        event: dict[str, Any] = eventually(lambda: self.reloads()[before:], what="a reload")[0]
        if event["event"].startswith("configuration reloaded"):
            done = sum(line["event"].startswith("configuration reloaded") for line in self.reloads())
            self._learn_addresses(eventually(lambda: self._heads()[done:])[0])
        return event

    def _heads(self) -> list[dict[str, Any]]:
        """Return the events that say where the edge listens: of the start and of every reload."""
        return [line for line in self.log() if line["event"].startswith("listening on")]

    def get(self, path: str) -> tuple[int, bytes]:
        """Return status and body of a route of the metrics listener."""
        connection = http.client.HTTPConnection(*self.metrics_address, timeout=PATIENCE_SECONDS)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def ready(self) -> dict[str, Any]:
        """Return the details of /ready."""
        return dict(json.loads(self.get("/ready")[1]))

    def metrics(self) -> dict[str, float]:
        """Return every sample of /metrics as written there, name and labels -> value."""
        lines = self.get("/metrics")[1].decode().splitlines()
        samples = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def log(self) -> list[dict[str, Any]]:
        """Return the lines logged so far."""
        if not self.log_path.exists():
            return []
        return [json.loads(line) for line in self.log_path.read_text().split("\n")[:-1]]

    def access_lines(self) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"] == "connection"]

    def event(self, beginning: str) -> dict[str, Any] | None:
        """Return the first logged event whose text begins so."""
        return next((line for line in self.log() if line["event"].startswith(beginning)), None)

    def wait_for_backends(self, count: int) -> None:
        """Wait until the edge serves this many candidates."""
        eventually(lambda: self.ready()["candidates"] == count, what=f"{count} candidates")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Signal the edge and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait()

    def wait(self, seconds: float = 30.0) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process.stderr is not None and not self.process.stderr.closed:
            said = self.process.stderr.read().decode()
            self.process.stderr.close()
            assert "Traceback" not in said, said


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


@pytest.fixture
def routing_db(tmp_path: Path) -> Path:
    """The path of a routing database with the seed's table and no rows."""
    path = tmp_path / "routing.db"
    write_backends(path, [])
    return path


@pytest.fixture
def edge(tmp_path: Path, routing_db: Path) -> Iterator[Callable[..., EdgeProcess]]:
    """Start edges: `edge(rows, listen="127.0.0.1:0", VARIABLE="text", …)`; all are ended after the test.

    `config` is the content of a configuration file, `options` are those of `serve`.
    """
    started: list[EdgeProcess] = []

    def start(
        rows: list[dict[str, Any]] | None = None,
        *,
        listen: str = "127.0.0.1:0",
        config: dict[str, Any] | None = None,
        options: tuple[str, ...] = (),
        **variables: object,
    ) -> EdgeProcess:
        if rows is not None:
            write_backends(routing_db, rows)
        folder = tmp_path / f"edge{len(started)}"
        folder.mkdir()
        texts = {name: str(value) for name, value in variables.items()}
        one = EdgeProcess(folder, Path(texts.pop("DB_PATH", routing_db)), listen, texts, config, options)
        started.append(one)
        return one

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def origin() -> Iterator[Callable[..., int]]:
    """Start origins in this process: `origin(handler, host="127.0.0.1")` returns the port; `handler(socket)`.

    The socket is closed when the handler returns.
    """
    servers: list[StreamServer] = []

    def start(handler: Callable[[socket.socket], object], host: str = "127.0.0.1") -> int:
        server = StreamServer((host, 0), lambda sock, _address: handler(sock), backlog=1024)
        server.start()
        servers.append(server)
        return int(server.server_port)

    yield start
    for server in servers:
        server.stop(timeout=0.1)


@pytest.fixture
def backend_row() -> Callable[..., dict[str, Any]]:
    return row
