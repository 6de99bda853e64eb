"""Runs real etcd servers, one or three, which can be frozen, killed and restarted; and POPs that follow them."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.admin_client import Admin
from tests.commands import clean_environment
from tests.harness import ROOT, EdgeProcess, eventually, freeze
from tests.programs import program
from tests.traffic import free_ports

TICK_MS, SELECTION_MS = 50, 500
"""A tenth of what etcd does by itself: the network is loopback."""


class Node:
    """One etcd server."""

    def __init__(self, cluster: Etcd, name: str, client_port: int, peer_port: int) -> None:
        self.cluster = cluster
        self.name = name
        self.peer_url = f"http://127.0.0.1:{peer_port}"
        self.url = f"{cluster.scheme}://127.0.0.1:{client_port}"
        self.log = cluster.folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [
            self.cluster.program, "--name", self.name, "--data-dir", str(self.cluster.folder / self.name),
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", self.peer_url, "--initial-advertise-peer-urls", self.peer_url,
            "--initial-cluster", ",".join(f"{one.name}={one.peer_url}" for one in self.cluster.nodes),
            "--initial-cluster-token", self.cluster.folder.name,
            "--heartbeat-interval", str(TICK_MS), "--election-timeout", str(SELECTION_MS), *self.cluster.options,
        ]  # fmt: skip
        environment = {name: text for name, text in os.environ.items() if not name.startswith("ETCD_")}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def freeze(self) -> None:
        assert self.process is not None
        freeze(self.process.pid)

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self._signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Call the JSON gateway of this node."""
        headers = {"Content-Type": "application/json"}
        if self.cluster.token:
            headers["Authorization"] = self.cluster.token
        request = urllib.request.Request(self.url + path, json.dumps(body or {}).encode(), headers)
        with urllib.request.urlopen(request, timeout=5, context=self.cluster.tls) as response:
            return dict(json.loads(response.read()))

    def is_up(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        with suppress(OSError):
            self.call("/v3/kv/range", {"key": text64("up")})
            return True
        return False


class Etcd:
    """A cluster of nodes on loopback. Keys and values are text."""

    def __init__(self, size: int = 1, options: tuple[str, ...] = (), tls: Any = None) -> None:
        self.program = program("etcd", "etcd-server")
        self.folder = Path(tempfile.mkdtemp(prefix="edge-etcd-"))
        self.scheme, self.tls = ("http", None) if tls is None else ("https", tls)
        self.options = options
        self.token = ""
        ports = free_ports(2 * size)
        self.nodes: list[Node] = []
        for number in range(size):
            self.nodes.append(Node(self, f"n{number}", ports[2 * number], ports[2 * number + 1]))

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            eventually(node.is_up, 30, f"etcd is up: {node.log}")

    def remove(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def endpoints(self) -> str:
        return ",".join(node.url for node in self.nodes)

    def leader(self) -> Node:
        """Return the leader."""

        def look() -> Node | None:
            for node in self.nodes:
                with suppress(OSError, KeyError):
                    status = node.call("/v3/maintenance/status")
                    if status["leader"] == status["header"]["member_id"]:
                        return node
            return None

        found: Node = eventually(look, what="a leader")
        return found

    def call(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call the first node that responds."""
        for node in self.nodes:
            with suppress(OSError):
                return node.call(path, body)
        pytest.fail(f"no node answered {path}")

    def log_in(self, user: str, password: str) -> None:
        """Authenticate all further calls as a user."""
        self.token = self.call("/v3/auth/authenticate", {"name": user, "password": password})["token"]

    def add_user(self, name: str, password: str, prefix: str, permission: str = "READWRITE") -> None:
        """Add a user who may read and write keys with a prefix, or only read (READ)."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        granted = {"permType": permission, "key": text64(prefix), "range_end": text64(end)}
        self.call("/v3/auth/user/add", {"name": name, "password": password})
        self.call("/v3/auth/role/add", {"name": name})
        self.call("/v3/auth/role/grant", {"name": name, "perm": granted})
        self.call("/v3/auth/user/grant", {"user": name, "role": name})

    def put(self, key: str, value: object, lease: int = 0) -> int:
        """Put a text, or another value as JSON. Returns the revision."""
        text = value if isinstance(value, str) else json.dumps(value)
        response = self.call("/v3/kv/put", {"key": text64(key), "value": text64(text), "lease": lease})
        return int(response["header"]["revision"])

    def put_raw(self, key: bytes, value: bytes) -> None:
        """Put bytes that need not be text."""
        self.call("/v3/kv/put", {"key": base64.b64encode(key).decode(), "value": base64.b64encode(value).decode()})

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the JSON at a key."""
        found = self.record(key)
        return dict(json.loads(base64.b64decode(found["value"]))) if found else None

    def record(self, key: str) -> dict[str, Any]:
        """Return the record of a key, empty if it is absent."""
        found = self.call("/v3/kv/range", {"key": text64(key)}).get("kvs")
        return dict(found[0]) if found else {}

    def delete(self, key: str) -> None:
        self.call("/v3/kv/deleterange", {"key": text64(key)})

    def delete_all(self) -> None:
        self.call("/v3/kv/deleterange", {"key": text64("/"), "range_end": text64("0")})

    def grant(self, ttl_seconds: int) -> int:
        """Grant a lease. Returns its id."""
        return int(self.call("/v3/lease/grant", {"TTL": ttl_seconds})["ID"])

    def revision(self) -> int:
        return int(self.call("/v3/kv/range", {"key": text64("x")})["header"]["revision"])

    def compact(self) -> None:
        self.call("/v3/kv/compaction", {"revision": self.revision(), "physical": True})

    def raise_alarm(self, alarm: str) -> None:
        """Raise an alarm, as etcd does by itself when its quota is used up (NOSPACE)."""
        self.call("/v3/maintenance/alarm", {"action": "ACTIVATE", "alarm": alarm})

    def disarm(self, alarm: str) -> None:
        self.call("/v3/maintenance/alarm", {"action": "DEACTIVATE", "alarm": alarm})

    def put_backend(self, backend_id: str, port: object, lease: int = 0, **columns: Any) -> int:
        """Put a backend on loopback, like a script of an operator."""
        fields = {"schema": 1, "region": "sa", "country": "BR", "wg_ip": "127.0.0.1", "port": port, **columns}
        return self.put(f"/edgeproxy/v1/backends/{backend_id}", fields, lease)


def text64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@contextmanager
def etcd_running(size: int = 1, options: tuple[str, ...] = (), tls: Any = None) -> Iterator[Etcd]:
    """Run a cluster for the block."""
    one = Etcd(size, options, tls)
    try:
        one.start()
        yield one
    finally:
        one.remove()


@contextmanager
def guarded_etcd() -> Iterator[Etcd]:
    """Run an etcd with users: root, and pop, who may read and write under /edgeproxy/ with the password "secret"."""
    with etcd_running() as one:
        one.call("/v3/auth/user/add", {"name": "root", "password": "open sesame"})
        one.call("/v3/auth/role/add", {"name": "root"})
        one.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        one.call("/v3/auth/enable", {})
        one.log_in("root", "open sesame")
        one.add_user("pop", "secret", "/edgeproxy/")
        yield one


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1. Returns the paths of certificate and key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [program("openssl", "openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=etcd",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


@contextmanager
def etcd_with_tls(cert: Path, key: Path) -> Iterator[Etcd]:
    """Run an etcd that requires TLS with a client certificate."""
    tls = ssl.create_default_context(cafile=cert)
    tls.load_cert_chain(cert, key)
    files = ("--cert-file", str(cert), "--key-file", str(key), "--trusted-ca-file", str(cert))
    with etcd_running(1, (*files, "--client-cert-auth"), tls) as one:
        yield one


class Pop:
    """A point of presence: a replicator process and, if asked for, an edge, over one routing database."""

    def __init__(self, folder: Path, endpoints: str, **variables: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.database = folder / "routing.db"
        (self.port,) = free_ports(1)
        self.variables = {
            "DB_PATH": str(self.database),
            "ETCD_ENDPOINTS": endpoints,
            "REPLICATOR_LISTEN_ADDR": f"127.0.0.1:{self.port}",
            "ADMIN_LISTEN_ADDR": "127.0.0.1:0",
            "ADMIN_TOKEN_FILE": str(folder / "admin.token"),
            "GATEWAY_DB_PATH": str(folder / "gateway.db"),
            "GEOIP_PATH": "off",
            **{name: str(value) for name, value in variables.items()},
        }
        self.replicator: subprocess.Popen[bytes] | None = None
        self.edge: EdgeProcess | None = None
        self.errors = folder / "replicator.jsonl"

    def start_replicator(self) -> None:
        with self.errors.open("ab") as log:
            self.replicator = subprocess.Popen(
                [sys.executable, "-m", "app", "replicate"],
                cwd=ROOT,
                env=clean_environment(**self.variables),
                stderr=log,
            )

    def start_edge(self) -> EdgeProcess:
        folder = self.folder / "edge"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        self.edge = EdgeProcess(folder, self.database, "127.0.0.1:0", dict(self.variables))
        return self.edge

    def start(self) -> Pop:
        """Start both processes, and wait until the replica follows etcd."""
        self.start_replicator()
        self.start_edge()
        eventually(lambda: self.event("replica: in contact"), 15, "the replica follows")
        return self

    @property
    def admin(self) -> Admin:
        """The edge's admin API, with the first token."""
        assert self.edge is not None
        host, _, port = self.edge.event("listening on")["admin"].rpartition(":")
        return Admin((host, int(port)), (self.folder / "admin.token").read_text().strip())

    def log(self) -> list[dict[str, Any]]:
        """Return the log of the replicator."""
        if not self.errors.exists():
            return []
        return [json.loads(line) for line in self.errors.read_text().splitlines(keepends=True) if line[-1] == "\n"]

    def event(self, beginning: str) -> dict[str, Any] | None:
        return next((line for line in self.log() if line["event"].startswith(beginning)), None)

    def events(self, beginning: str) -> list[dict[str, Any]]:
        return [line for line in self.log() if line["event"].startswith(beginning)]

    def rows(self) -> dict[str, dict[str, Any]]:
        """Return the routing database's rows by id."""
        import sqlite3

        if not self.database.exists():
            return {}
        with sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=10) as database:
            database.row_factory = sqlite3.Row
            try:
                found = {row["id"]: dict(row) for row in database.execute("SELECT * FROM backends")}
            except sqlite3.OperationalError:  # not there yet
                found = {}
        database.close()
        return found

    def status(self) -> dict[str, Any]:
        """Return the content of the replica's status file, once it exists."""
        path = self.database.with_name("routing.db.replica")
        eventually(path.exists, 15, "the replicator says how it is")
        return dict(json.loads(path.read_text()))

    def stop_replicator(self, number: int = signal.SIGTERM) -> int:
        assert self.replicator is not None
        self.replicator.send_signal(number)
        code = self.replicator.wait(20)
        self.replicator = None
        return code

    def kill(self) -> None:
        if self.edge is not None:
            self.edge.kill()
        if self.replicator is not None:
            self.replicator.send_signal(signal.SIGCONT)
            self.replicator.kill()
            self.replicator.wait()


@contextmanager
def pops(folder: Path, *, remove_all: bool = True) -> Iterator[Callable[..., Pop]]:
    """Yield a function that makes POPs, by name and endpoints. All are ended after the block."""
    made: list[Pop] = []

    def make(name: str, endpoints: str, **variables: object) -> Pop:
        one = Pop(folder / name, endpoints, **variables)
        made.append(one)
        return one

    try:
        yield make
    finally:
        for one in made:
            one.kill()


def wait_for_port(port: int) -> None:
    def look() -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    eventually(look, what=f"somebody listens on {port}")
