"""An actor that dies again and again ends the process, with the exit code that says so."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gevent

from actors import supervisor
from actors.runtime import Crash, tell
from actors.supervisor import EXIT_CODE, MAX_RESTARTS
from tests.edge_in_process import edge_in_process
from tests.harness import ROOT, eventually, row

SERVE_WITH_A_FAULT = """
from gevent import monkey
monkey.patch_all()
import sys
import gevent
import pytest
from actors import supervisor
from actors.runtime import Crash, tell
from app import cli
from app.edge import edge

start = edge.Edge.start

def start_and_crash(edge):
    start(edge)
    gevent.spawn(crash_for_ever, edge.parts.actors.bindings)

def crash_for_ever(actor):
    while True:
        tell(actor, Crash())
        gevent.sleep(0.001)

supervisor.FIRST_BACKOFF_SECONDS = 0.0001
edge.Edge.start = start_and_crash
cli.main(["serve"])
"""
"""`python -m app serve` with an actor that cannot live, and a supervisor that is quick to find out."""


def test_serve_ends_with_the_supervisors_exit_code_and_says_why(tmp_path: Path, routing_db: Path):
    log_path = tmp_path / "edge.jsonl"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("EDGEPROXY_")} | {
        "EDGEPROXY_LISTEN_ADDR": "127.0.0.1:0",
        "EDGEPROXY_METRICS_LISTEN_ADDR": "127.0.0.1:0",
        "EDGEPROXY_ADMIN_LISTEN_ADDR": "",
        "EDGEPROXY_ENV_FILE": "",
        "EDGEPROXY_DB_PATH": str(routing_db),
        "EDGEPROXY_GEOIP_PATH": "off",
        "EDGEPROXY_LOG_PATH": str(log_path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", SERVE_WITH_A_FAULT], cwd=ROOT, env=environment, timeout=60, check=False
    )
    events = [json.loads(line) for line in log_path.read_text().splitlines()]
    assert ended.returncode == EXIT_CODE == 70
    assert sum(line["event"] == "actor bindings was restarted" for line in events) == MAX_RESTARTS
    last = events[-1]
    assert (last["level"], last["event"].endswith("giving up")) == ("CRITICAL", True)


def test_an_edge_that_is_stopped_while_its_actors_still_live_ends_with_0(tmp_path, origin):
    with edge_in_process(tmp_path, [row("a", origin(lambda sock: None))]) as edge:
        running = gevent.spawn(edge.edge.run)
        edge.edge.request_stop()
        assert running.get(timeout=20) == 0


def test_an_edge_whose_actor_cannot_live_ends_without_waiting_for_its_connections(tmp_path, origin, monkeypatch):
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 0.0001)
    rows = [row("a", origin(lambda sock: sock.recv(1)))]
    with edge_in_process(tmp_path, rows, DRAIN_TIMEOUT_SECS=600) as edge, edge.connect():
        eventually(lambda: edge.leases() == 1)
        running = gevent.spawn(edge.edge.run)
        registry = edge.actor("registry")
        for epoch in range(1, MAX_RESTARTS + 2):
            eventually(lambda now=epoch: registry.epoch == now)
            assert not running.ready()
            tell(registry, Crash())
        assert running.get(timeout=20) == EXIT_CODE
        edge.parts.data_plane.connections.end_all("the test is over")
