"""Points of presence on machines of their own: a node of etcd, a replicator and an edge on each."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

from tests.machines import MachineEdge, bracketed
from tests.namespaces import Machine
from tests.programs import program


class Place(MachineEdge):
    """A POP, whose node of etcd speaks at the machine's address alone."""

    def __init__(
        self, machine: Machine, folder: Path, address: str, environment: dict[str, str] | None = None, **variables: str
    ) -> None:
        listening = {
            "LISTEN_ADDR": "127.0.0.1:8000",
            "METRICS_LISTEN_ADDR": "127.0.0.1:9090",
            "ADMIN_LISTEN_ADDR": "127.0.0.1:8081",
        }
        super().__init__(machine, folder, environment, **{**listening, **variables})
        self.name = machine.name
        self.url = f"http://{bracketed(address)}"
        self.address = address
        self.etcd: subprocess.Popen[bytes] | None = None

    @property
    def peer(self) -> str:
        """This POP's node as the others find it."""
        return f"{self.name}={self.url}:2380"

    def start_etcd(self, peers: list[Place]) -> None:
        options = {
            "name": self.name,
            "data-dir": self.folder / "etcd",
            "initial-cluster": ",".join(place.peer for place in peers),
            "initial-advertise-peer-urls": f"{self.url}:2380",
            "listen-peer-urls": f"{self.url}:2380",
            "advertise-client-urls": f"{self.url}:2379",
            "listen-client-urls": f"{self.url}:2379",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        self.etcd = self.machine.start(program("etcd", "etcd-server"), *arguments, log=self.folder / "etcd.log")

    def start_pop(self) -> None:
        """Start the replicator and the edge; `is_up` says when they are."""
        self.run("replicate", LOG_PATH="")
        self.process = self.run("serve")

    def api(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Ask this POP's admin API; returns status and JSON."""
        token = (self.folder / "admin.token").read_text().strip()
        words = ["curl", "-s", "-m", "30", "-X", method, "-H", f"Authorization: Bearer {token}", "-w", "\n%{http_code}"]
        if body is not None:
            words += ["--json", json.dumps(body)]
        url = f"http://{self.variables['ADMIN_LISTEN_ADDR']}{path}"
        said, _, status = self.machine.run(*words, url, timeout=40).stdout.rpartition("\n")
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
        url = f"{self.url}:2379{path}"
        said = self.machine.run("curl", "-s", "-g", "-m", "2", "-d", json.dumps(body), url).stdout
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
