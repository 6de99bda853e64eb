"""The edge as a part of another program: made of a document, started, used and stopped, and once more."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.commands import clean_environment
from tests.harness import ROOT

PROGRAM = '''
from gevent import monkey

monkey.patch_all()

import json
import socket
import sys

from gevent.server import StreamServer

from app.edge.edge import Edge
from app.config import ConfigError, load
from app.inbound.listener import BindError


def origin(name):
    """Start a server that says its name; returns its address."""
    server = StreamServer(("127.0.0.1", 0), lambda sock, _address: sock.sendall(name))
    server.start()
    return f"127.0.0.1:{server.server_port}"


def document(*addresses, listen="127.0.0.1:0"):
    return {
        "global": {"metrics": {"listen": "127.0.0.1:0"}},
        "frontends": [{"name": "web", "listen": listen, "backend": "servers"}],
        "backends": [{"name": "servers", "servers": [{"address": address} for address in addresses]}],
    }


def ask(address):
    with socket.create_connection((address.host, address.port), 10) as sock:
        return sock.makefile().read()


def is_open(address):
    try:
        socket.create_connection((address.host, address.port), 10).close()
    except ConnectionRefusedError:
        return False
    return True


environment = {
    "EDGEPROXY_LOG_PATH": sys.argv[1],
    "EDGEPROXY_GEOIP_PATH": "off",
    "EDGEPROXY_ADMIN_LISTEN_ADDR": "",
}
a, b = origin(b"a"), origin(b"b")
told = {"heard": [], "still open": [], "refused": []}
for addresses in ([a], [a, b]):
    edge = Edge(load(environment, document=document(*addresses)))
    edge.start()
    (address,) = edge.listeners.addresses["web"]
    told["heard"].append([ask(address) for _ in range(3)])
    edge.stop()
    told["still open"] += [is_open(address), is_open(edge.status.address)]
    try:
        edge.start()
    except RuntimeError as error:
        told["again"] = str(error)

try:
    load(environment, document=document("no address"))
except ConfigError as error:
    told["refused"] += error.faults
with socket.create_server(("127.0.0.1", 0)) as taken:
    edge = Edge(load(environment, document=document(a, listen="127.0.0.1:%d" % taken.getsockname()[1])))
    try:
        edge.start()
    except BindError as error:
        told["refused"].append(str(error).partition(" 127")[0])
    told["still open"].append(is_open(edge.status.address))
print(json.dumps(told))
'''


def test_it_starts_serves_and_stops_twice_in_one_program(tmp_path: Path):
    log = tmp_path / "edge.jsonl"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(log)],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads(done.stdout)
    assert told["again"] == "an edge starts only once: make another one"
    assert told["heard"] == [["a", "a", "a"], ["a", "b", "a"]]
    assert told["still open"] == [False] * 5
    fault, unbound = told["refused"]
    assert fault.startswith("backends[0].servers[0].address='no address': ")
    assert unbound == "frontend web: cannot listen on"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["connection"] * 6, "access lines; the events are the program's affair"
