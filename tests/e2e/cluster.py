"""Three POPs, each with a node of one etcd, in network namespaces of their own, with backends and clients."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.harness import eventually
from tests.namespaces import Machine, Wire, wire
from tests.places import Place
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
"""Servers that respond to everything with their port."""

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
"""Repeatedly asks over new connections which backend serves it, and sometimes over its first connection."""


def more_than_an_hour_fast() -> dict[str, str]:
    """Return the environment that sets a process's clock forward."""
    program("faketime", "faketime")
    (library,) = Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")
    return {"LD_PRELOAD": str(library), "FAKETIME": "+3700", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


class Client:
    """A client in a POP's city; runs until `stop`."""

    def __init__(self, machine: Machine) -> None:
        self._process = subprocess.Popen(
            machine.command(sys.executable, "-c", _CLIENT), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def stop(self) -> dict[str, Any]:
        """Stop and return its record: number of connects, the backends over time, failures."""
        said, _ = self._process.communicate(timeout=30)
        return dict(json.loads(said))

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


class Cluster:
    """Three POPs over a three-node etcd, and a machine of backends on ports 9001 to 9006."""

    ports = range(9001, 9007)

    def __init__(self, network: Wire, folder: Path) -> None:
        environments = {"nrt": more_than_an_hour_fast()}
        self.places = [
            Place(network[name], folder, f"192.0.2.{number}", environments.get(name))
            for number, name in enumerate(NAMES, start=1)
        ]
        self.host = f"192.0.2.{len(NAMES) + 1}"
        log = folder / "backends.log"
        network["backends"].start(sys.executable, "-c", _BACKENDS, *self.ports, log=log)
        for place in self.places:
            self.start_etcd(place)
        eventually(lambda: any(place.is_leader() for place in self.places), 30, "etcd has a leader")
        eventually(lambda: "ready" in log.read_text(), what="the backends listen")
        for number, place in enumerate(self.places):
            nearest_first = self.places[number:] + self.places[:number]
            place.variables["ETCD_ENDPOINTS"] = ",".join(f"{one.url}:2379" for one in nearest_first)
            place.start_pop()
        self.wait()

    def start_etcd(self, place: Place) -> None:
        place.start_etcd(self.places)

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
        """Return the body of a service's registration."""
        return {"host": self.host, "port": port, "region": "sa", "country": "BR"}

    def put(self, place: Place, backend_id: str, port: int) -> None:
        status, said = place.api("PUT", f"/api/backends/{backend_id}", self.backend(port))
        assert status == 200, said

    def are_equal(self) -> bool:
        """Return whether the replicas are equal, without suspects."""
        first, *others = (place.rows() for place in self.places)
        return all(rows == first for rows in others) and all(row[-1] is None for row in first)

    @contextmanager
    def clients(self) -> Iterator[Callable[[], list[dict[str, Any]]]]:
        """Run a client at every POP for the block. Yields a function that returns the record of each."""
        running = [Client(place.machine) for place in self.places]
        try:
            time.sleep(0.5)
            yield lambda: [client.stop() for client in running]
        finally:
            for client in running:
                client.kill()


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """Run three POPs for the block, one with a clock more than an hour fast."""
    program("curl", "curl")
    with wire(*NAMES, "backends") as network:
        yield Cluster(network, folder)
