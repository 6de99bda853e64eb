"""The proxies under test, each one process on one core before one upstream: our edge, HAProxy, nginx."""

import os
import sqlite3
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.machine import ROOT, STREAM_MODULE, find
from scripts.benchmark.processes import free_port, is_listening, running
from scripts.benchmark.upstreams import nginx_user

HAPROXY_CONFIGURATION = """\
global
    nbthread 1
    maxconn 6500
    maxpipes 200
defaults
    mode tcp
    option splice-auto
    timeout connect 3s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port} backlog 4096
    server upstream 127.0.0.1:{upstream_port}
"""
NGINX_CONFIGURATION = """\
load_module {module};
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {user}
worker_rlimit_nofile 16000;
events {{ worker_connections 13000; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{upstream_port};
        proxy_connect_timeout 3s; proxy_timeout 1h;
    }}
}}
"""
BACKENDS_TABLE = """\
CREATE TABLE backends (id TEXT PRIMARY KEY, app TEXT, region TEXT, country TEXT, wg_ip TEXT, port INTEGER,
    healthy INTEGER, weight INTEGER, soft_limit INTEGER, hard_limit INTEGER, deleted INTEGER)
"""


@dataclass(frozen=True)
class Command:
    """How a peer is run; `environment` None means ours; `ready()` tells when it serves."""

    argv: list[str]
    ready: Callable[[], bool]
    environment: dict[str, str] | None = None


@dataclass(frozen=True)
class Peer:
    """A proxy under test; `needs` are names of machine.DEBIAN_PACKAGES."""

    name: str
    needs: tuple[str, ...]
    prepare: Callable[[Path, int, int], Command]
    """Write the configuration into a folder; listen on the first port, connect to the second."""


@dataclass(frozen=True)
class Proxy:
    """A running peer."""

    port: int
    pid: int


@contextmanager
def serving(peer: Peer, folder: Path, upstream_port: int, core: int) -> Iterator[Proxy]:
    """Run a peer, pinned to `core`, with its files in `folder`."""
    port = free_port()
    folder.mkdir()
    command = peer.prepare(folder, port, upstream_port)
    argv = ["taskset", "--cpu-list", str(core), *command.argv]  # taskset becomes the proxy: same pid
    with running(peer.name, argv, folder, command.ready, command.environment) as child:
        yield Proxy(port, child.process.pid)


def why_absent(peer: Peer, missing: list[str]) -> str | None:
    """Return why a peer cannot be measured here, or None."""
    lacking = [program for program in peer.needs if program in missing]
    if lacking:
        return f"{' and '.join(lacking)} not installed"
    if peer is EDGE and not (ROOT / ".venv/bin/python").exists():
        return f"no {ROOT / '.venv'} (scripts/start makes it)"
    return None


def _edge(folder: Path, port: int, upstream_port: int) -> Command:
    """Run `python -m app serve` as a user does, with geography, bindings, metrics and the JSON log on."""
    seed(folder / "routing.db", upstream_port)
    metrics_port = free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EDGEPROXY_")}
    environment = inherited | {
        "PYTHONPATH": str(ROOT),  # the working directory is the temporary folder, to keep the clone clean
        "EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{port}",
        "EDGEPROXY_DB_PATH": str(folder / "routing.db"),
        "EDGEPROXY_METRICS_LISTEN_ADDR": f"127.0.0.1:{metrics_port}",
        "EDGEPROXY_LOG_PATH": str(folder / "edge.jsonl"),
    }
    argv = [str(ROOT / ".venv/bin/python"), "-m", "app", "serve"]
    return Command(argv, lambda: is_ready(metrics_port), environment)


def seed(database: Path, upstream_port: int) -> None:
    """Write a routing database, by the seed's own table, with one backend on loopback that is never full."""
    row = ("bench", "bench", "sa", "BR", "127.0.0.1", upstream_port, 1, 1, 100, 0, 0)
    connection = sqlite3.connect(database)
    with connection:
        connection.execute(BACKENDS_TABLE)
        connection.execute(f"INSERT INTO backends VALUES ({','.join('?' * len(row))})", row)
    connection.close()


def is_ready(metrics_port: int) -> bool:
    """Tell whether the edge's /ready answers 200."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/ready", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _haproxy(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY_CONFIGURATION.format(port=port, upstream_port=upstream_port))
    argv = [find("haproxy") or "haproxy", "-db", "-f", str(configuration)]
    return Command(argv, lambda: is_listening(port))


def _nginx(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "nginx.conf"
    text = NGINX_CONFIGURATION.format(
        module=STREAM_MODULE, folder=folder, user=nginx_user(), port=port, upstream_port=upstream_port
    )
    configuration.write_text(text)
    argv = [find("nginx") or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    return Command(argv, lambda: is_listening(port))


EDGE = Peer("edge", (), _edge)
PEERS = {
    peer.name: peer
    for peer in (
        EDGE,
        Peer("haproxy", ("haproxy",), _haproxy),
        Peer("nginx", ("nginx", "nginx-stream"), _nginx),
    )
}
