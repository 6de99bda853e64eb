"""Three points of presence, each with a node of one etcd, on machines of their own; backends and clients beside."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import eventually
from tests.namespaces import Machine, Wire, wire
from tests.programs import program

NAMES = ("gru", "fra", "nrt")

_BACKENDS = """
import socketserver, sys
class Who(socketserver.BaseRequestHandler):
    def handle(self):
        while self.request.recv(4096):
            self.request.sendall(b"%d\\n" % self.server.server_address[1])
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 1024
import threading
for port in map(int, sys.argv[1:]):
    threading.Thread(target=Server(("", port), Who).serve_forever).start()
print("ready", flush=True)
"""
"""Servers that answer whatever they are asked with their port."""

_CLIENT = """
import json, socket, sys, threading, time
def ask(sock):
    try:
        sock.sendall(b"who?")
        return sock.recv(100).decode().strip()
    except OSError:
        return ""
def connect():
    return socket.create_connection(("127.0.0.1", 8000), 10)
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
staying = connect()
first = ask(staying)
count, has_stayed, changes, failures, last = 0, bool(first), [], [], None
while not ended.wait(0.005):
    try:
        with connect() as sock:
            said = ask(sock)
    except OSError:
        said = ""
    count += 1
    if not said:
        failures.append(time.monotonic())
    if said != last:
        changes.append((time.monotonic(), said))
        last = said
    if count % 10 == 0:
        has_stayed = has_stayed and ask(staying) == first
json.dump({"count": count, "has_stayed": has_stayed, "changes": changes, "failures": failures}, sys.stdout)
"""
"""Asks on new connections who serves it, over and over, and now and then on one that it had first."""


def more_than_an_hour_fast() -> dict[str, str]:
    """Return what makes the clock of a process so."""
    program("faketime", "faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": "+3700", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Client:
    """A client in a POP's city, until it is told to stop."""

    def __init__(self, machine: Machine) -> None:
        self._process = subprocess.Popen(
            machine.command(sys.executable, "-c", _CLIENT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> dict[str, Any]:
        """Return what it saw: how often it connected, who answered from when on, when nobody did."""
        said, _ = self._process.communicate(timeout=30)
        return dict(json.loads(said))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Place:
    """A POP: a node of etcd, a replicator and an edge on one machine."""

    def __init__(self, machine: Machine, folder: Path, number: int, environment: dict[str, str]) -> None:
        self.machine = machine
        self.name = machine.name
        self.address = f"192.0.2.{number}"
        self.folder = folder / machine.name
        self.folder.mkdir()
        self.environment = environment
        self.database = self.folder / "routing.db"
        self.etcd: subprocess.Popen[bytes] | None = None

    def start_etcd(self, peers: str) -> None:
        url = f"http://{self.address}"
        options = {
            "name": self.name,
            "data-dir": self.folder / "etcd",
            "initial-cluster": peers,
            "initial-advertise-peer-urls": f"{url}:2380",
            "listen-peer-urls": f"{url}:2380",
            "advertise-client-urls": f"{url}:2379",
            "listen-client-urls": f"{url}:2379",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.etcd = self.machine.start(program("etcd", "etcd-server"), *arguments, log=self.folder / "etcd.log")

    def start_pop(self, endpoints: str) -> None:
        variables = {
            "LISTEN_ADDR": "127.0.0.1:8000",
            "METRICS_LISTEN_ADDR": "127.0.0.1:9090",
            "ADMIN_LISTEN_ADDR": "127.0.0.1:8081",
            "ADMIN_TOKEN_FILE": str(self.folder / "admin.token"),
            "GATEWAY_DB_PATH": str(self.folder / "gateway.db"),
            "DB_PATH": str(self.database),
            "LOG_PATH": str(self.folder / "edge.jsonl"),
            "GEOIP_PATH": "off",
            "ETCD_ENDPOINTS": endpoints,
        }
        for command in ("replicate", "serve"):
            words = ("env", *(f"{name}={text}" for name, text in self.environment.items()), sys.executable, "-m", "app")
            own = variables if command == "serve" else variables | {"LOG_PATH": ""}
            self.machine.start(*words, command, log=self.folder / f"{command}.log", **own)

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask this POP's admin API; returns status and JSON."""
        token = (self.folder / "admin.token").read_text().strip()
        words = ["curl", "-s", "-m", "30", "-X", method, "-H", f"Authorization: Bearer {token}", "-w", "\n%{http_code}"]
        if body is not None:
            words += ["--json", json.dumps(body)]
        said, _, status = self.machine.run(*words, f"http://127.0.0.1:8081{path}", timeout=40).stdout.rpartition("\n")
        return int(status), json.loads(said) if said else None

    def ready(self) -> dict[str, Any]:
        """Return what the edge says of itself, nothing while it does not."""
        said = self.machine.run("curl", "-s", "-m", "5", "http://127.0.0.1:9090/ready").stdout
        return dict(json.loads(said)) if said else {}

    def is_up(self) -> bool:
        """Say whether the edge runs and its replica is fresh."""
        replica = self.ready().get("replica") or {}
        return (replica.get("age_seconds") or 99) < 3 and not replica["error"]

    def rows(self) -> list[tuple[object, ...]]:
        """Return the replica: every backend but for when its drain ends, which is by each POP's own clock."""
        columns = (
            "id, app, region, country, wg_ip, port, healthy, weight, soft_limit, hard_limit, deleted, suspect_since"
        )
        with sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=10) as database:
            found = database.execute(f"SELECT {columns} FROM backends ORDER BY id").fetchall()
        database.close()
        return found

    def deadline_of(self, backend_id: str) -> float:
        """Return when the drain of a backend ends, in Unix seconds by this POP's clock."""
        with sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=10) as database:
            ((deadline,),) = database.execute("SELECT drain_deadline FROM backends WHERE id = ?", (backend_id,))
        database.close()
        return float(deadline)

    def signal_etcd(self, number: int) -> None:
        assert self.etcd is not None
        self.etcd.send_signal(number)

    def ask_etcd(self, path: str, body: object) -> dict[str, Any]:
        """Ask this POP's node of etcd; returns nothing when it does not answer."""
        url = f"http://{self.address}:2379{path}"
        said = self.machine.run("curl", "-s", "-m", "2", "-d", json.dumps(body), url).stdout
        return dict(json.loads(said)) if said else {}

    def compact(self) -> None:
        """Let etcd forget everything but how things are now."""
        revision = self.ask_etcd("/v3/kv/range", {"key": "eA=="})["header"]["revision"]
        assert self.ask_etcd("/v3/kv/compaction", {"revision": revision, "physical": True})

    def is_leader(self) -> bool:
        status = self.ask_etcd("/v3/maintenance/status", {})
        return "leader" in status and status["leader"] == status["header"]["member_id"]

    def cut_off(self, others: list[Place]) -> None:
        """Let nothing go from here to the other POPs; backends stay in reach."""
        for other in others:
            self.machine.do("ip", "route", "add", "blackhole", f"{other.address}/32")

    def heal(self, others: list[Place]) -> None:
        for other in others:
            self.machine.do("ip", "route", "del", "blackhole", f"{other.address}/32")


class Cluster:
    """Three POPs over a three-node etcd, and a machine of backends on ports 9001 to 9006."""

    ports = range(9001, 9007)

    def __init__(self, network: Wire, folder: Path) -> None:
        environments = {"nrt": more_than_an_hour_fast()}
        self.places = [
            Place(network[name], folder, number, environments.get(name, {}))
            for number, name in enumerate(NAMES, start=1)
        ]
        self._peers = ",".join(f"{place.name}=http://{place.address}:2380" for place in self.places)
        self.host = f"192.0.2.{len(NAMES) + 1}"
        log = folder / "backends.log"
        network["backends"].start(sys.executable, "-c", _BACKENDS, *self.ports, log=log)
        for place in self.places:
            self.start_etcd(place)
        eventually(lambda: any(place.is_leader() for place in self.places), 30, "etcd has a leader")
        eventually(lambda: "ready" in log.read_text(), what="the backends listen")
        for number, place in enumerate(self.places):
            nearest_first = self.places[number:] + self.places[:number]
            place.start_pop(",".join(f"http://{one.address}:2379" for one in nearest_first))
        self.wait()

    def start_etcd(self, place: Place) -> None:
        place.start_etcd(self._peers)

    def wait(self, seconds: float = 40) -> None:
        """Wait until all POPs follow."""
        for place in self.places:
            eventually(place.is_up, seconds, f"{place.name} follows")

    def leader(self) -> Place:
        found: Place = eventually(lambda: next((one for one in self.places if one.is_leader()), None), 20, "a leader")
        return found

    def backend(self, port: int, **columns: object) -> dict[str, object]:
        """Return the columns of a backend."""
        return {"wg_ip": self.host, "port": port, "region": "sa", "country": "BR", **columns}

    def service(self, port: int) -> dict[str, object]:
        """Return what a service says of itself."""
        return {"host": self.host, "port": port, "region": "sa", "country": "BR"}

    def put(self, place: Place, backend_id: str, port: int) -> None:
        status, said = place.api("PUT", f"/api/backends/{backend_id}", self.backend(port))
        assert status == 200, said

    def are_equal(self) -> bool:
        """Say whether the replicas are, with nothing doubtful in them."""
        first, *others = (place.rows() for place in self.places)
        return all(rows == first for rows in others) and all(row[-1] is None for row in first)

    @contextmanager
    def clients(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Run a client at every POP for the block, and let it be asked at the end what each saw."""
        running = [Client(place.machine) for place in self.places]
        try:
            time.sleep(0.5)
            yield lambda: [client.stop() for client in running]
        finally:
            for client in running:
                client.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run three POPs for the block, one of which has a clock that is more than an hour fast."""
    program("curl", "curl")
    with wire(*NAMES, "backends") as network:
        yield Cluster(network, folder)
