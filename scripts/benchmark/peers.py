"""A peer under test: one process on one core in front of one upstream. Starts the edge, in every mode."""

import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.machine import ROOT
from scripts.benchmark.processes import free_port, running

MODES = ("tcp", "http", "handler")
NAMES = ("edge", "haproxy", "nginx", "caddy", "flask", "bottle", "bottle-nodelay")
BACKENDS_TABLE = """\
CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER)
"""


@dataclass(frozen=True)
class Command:
    """How to run a peer. `environment` None means ours; `ready()` returns whether it is up."""

    argv: list[str]
    ready: Callable[[], bool]
    environment: dict[str, str] | None = None


@dataclass(frozen=True)
class Peer:
    """A proxy or server under test: one of NAMES in one of MODES; `needs` are names of machine.PROGRAMS."""

    name: str
    mode: str
    needs: tuple[str, ...]
    prepare: Callable[[Path, int, int], Command]
    """Write the configuration, which listens on the first port and connects to the second, into a folder."""


@dataclass(frozen=True)
class Proxy:
    """A running peer, with its configuration in `folder`."""

    port: int
    pid: int
    upstream_port: int
    folder: Path


@contextmanager
def serving(peer: Peer, folder: Path, upstream_port: int, core: int) -> Iterator[Proxy]:
    """Run a peer, pinned to `core`, with its files in `folder`."""
    port = free_port()
    folder.mkdir()
    command = peer.prepare(folder, port, upstream_port)
    argv = ["taskset", "--cpu-list", str(core), *command.argv]  # taskset becomes the proxy: same pid
    with running(peer.name, argv, folder, command.ready, command.environment) as child:
        yield Proxy(port, child.process.pid, upstream_port, folder)


def why_absent(peer: Peer, missing: list[str]) -> str | None:
    """Return why a peer cannot be measured here, or None."""
    lacking = [program for program in peer.needs if program in missing]
    if lacking:
        return f"{' and '.join(lacking)} not installed"
    if peer.name == "edge" and not (ROOT / ".venv/bin/python").exists():
        return f"no {ROOT / '.venv'} (scripts/start makes it)"
    return None


def edge_command(folder: Path, upstream_port: int, settings: dict[str, str], *options: str) -> Command:
    """Run `python -m app serve` as a user does, with routing database, metrics and the JSON log on."""
    seed(folder / "routing.db", upstream_port)
    metrics_port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGEPROXY_")}
    environment = inherited | {
        "PYTHONPATH": str(ROOT),  # the working directory is the temporary folder, to keep the clone clean
        "EDGEPROXY_DB_PATH": str(folder / "routing.db"),
        "EDGEPROXY_METRICS_LISTEN_ADDR": f"127.0.0.1:{metrics_port}",
        "EDGEPROXY_ADMIN_LISTEN_ADDR": "",
        "EDGEPROXY_LOG_PATH": str(folder / "edge.jsonl"),
    }
    argv = [str(ROOT / ".venv/bin/python"), "-m", "app", "serve", *options]
    return Command(argv, lambda: is_ready(metrics_port), environment | settings)


def seed(database: Path, upstream_port: int) -> None:
    """Write a routing database, with one backend on loopback that is never full."""
    row = ("bench", "bench", "sa", "BR", "127.0.0.1", upstream_port, 1, 1, 100, 0, 0)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(BACKENDS_TABLE)
        connection.execute(f"INSERT INTO backends VALUES ({','.join('?' * len(row))})", row)
    connection.close()


def is_ready(metrics_port: int) -> bool:
    """Return whether the edge's /ready responds with 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/ready", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
