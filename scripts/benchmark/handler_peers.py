"""The peers of mode handler: each runs the same three lines for GET /hello in one process, without a proxy in front.

The edge runs with access log, metrics and actors, and with a pool behind the gateway; the others write no log.
"""

import json
import subprocess
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from scripts.benchmark.http_peers import EDGE_FILE, edge_file
from scripts.benchmark.machine import ROOT
from scripts.benchmark.peers import Command, Peer, edge_command
from scripts.benchmark.processes import MeasurementError

HELLO_PATH = "/hello"
HELLO = {"hello": "world"}
GATEWAY_OPTION = """\
    gateway: on
"""
FLASK_APPLICATION = """\
from flask import Flask

application = Flask("bench")


@application.get("/hello")
def hello():
    return {"hello": "world"}
"""
BINARIES = ROOT / ".venv/bin"
HERE = Path(__file__).parent


def says_hello(port: int) -> bool:
    """Return whether the handler responds. Raises MeasurementError if the response is wrong."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{HELLO_PATH}", timeout=2) as response:
            greeting = json.load(response)
    except (urllib.error.URLError, OSError):
        return False
    if greeting != HELLO:
        raise MeasurementError(f"the handler returned {greeting!r} instead of {HELLO!r}")
    return True


def _edge(folder: Path, port: int, upstream_port: int) -> Command:
    database, configuration = folder / "gateway.db", folder / EDGE_FILE
    subprocess.run(
        [BINARIES / "python", HERE / "seed_endpoint.py", database], check=True, env={"PYTHONPATH": str(ROOT)}
    )
    configuration.write_text(edge_file(port, [f"127.0.0.1:{upstream_port}"], GATEWAY_OPTION))
    settings = {"EDGEPROXY_GATEWAY_DB_PATH": str(database)}
    command = edge_command(folder, upstream_port, settings, "--config", str(configuration))
    return replace(command, ready=lambda: command.ready() and says_hello(port))


def _flask(folder: Path, port: int, upstream_port: int) -> Command:
    """Run one worker. Gunicorn's other process only supervises it."""
    (folder / "flask_hello.py").write_text(FLASK_APPLICATION)
    bind = ["--bind", f"127.0.0.1:{port}", "--backlog", "4096", "--keep-alive", "3600", "--no-control-socket"]
    argv = [str(BINARIES / "gunicorn"), "--worker-class", "gevent", "--workers", "1", *bind, "flask_hello:application"]
    return Command(argv, lambda: says_hello(port))


def _bottle(folder: Path, port: int, upstream_port: int) -> Command:
    return Command([str(BINARIES / "python"), str(HERE / "bottle_server.py"), str(port)], lambda: says_hello(port))


def _bottle_nodelay(folder: Path, port: int, upstream_port: int) -> Command:
    command = _bottle(folder, port, upstream_port)
    return replace(command, argv=[*command.argv, "nodelay"])


HANDLER_PEERS = (
    Peer("edge", "handler", (), _edge),
    Peer("flask", "handler", ("flask", "gunicorn"), _flask),
    Peer("bottle", "handler", ("bottle",), _bottle),
    Peer("bottle-nodelay", "handler", ("bottle",), _bottle_nodelay),
)
