"""Anycast: the announcements to a real router follow /ready, and are withdrawn before the listeners close."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import yaml

from tests.commands import command
from tests.harness import eventually, row, write_backends
from tests.integration.bird_router import AS_NUMBER, Router
from tests.machines import PYTHON, MachineEdge, backend, get
from tests.namespaces import Machine, require_namespaces, wire
from tests.programs import program

PREFIXES = {"198.51.100.0/24", "2001:db8:100::/48"}
SERVICE = ("198.51.100.1", "2001:db8:100::1")
"""Where clients connect, in every POP: an address of each prefix."""
WITHDRAWN_SECONDS = 3.0
OURS = 64512


@pytest.fixture(scope="module", autouse=True)
def _tools():
    require_namespaces()
    program("birdc", "bird2")
    program("curl", "curl")


def pop(name, number):
    """Return a POP of the file: the machine of that number in the network, where the first is its router."""
    return {
        "name": name,
        "region": "sa",
        "endpoint": f"192.0.2.{number}",
        "bgp": {
            "router_id": f"192.0.2.{number}",
            "neighbours": [
                {"address": "192.0.2.1", "as": AS_NUMBER, "local_address": f"192.0.2.{number}"},
                {"address": "2001:db8::1", "as": AS_NUMBER, "local_address": f"2001:db8::{number}"},
            ],
        },
    }


class Announcing:
    """A POP with the addresses of the prefixes, one backend, the edge, and the process that announces it."""

    def __init__(self, machine: Machine, folder: Path, number: int, **variables: str) -> None:
        self.machine = machine
        self.config = folder / f"{machine.name}.exabgp.conf"
        self.config.write_text(self._configuration(folder / f"{machine.name}.yaml", number))
        for address in SERVICE:
            machine.do("ip", "address", "add", address, "dev", "lo")
        backend(machine, folder, f"{machine.name}-web", "127.0.0.1")
        self.edge = MachineEdge(machine, folder, DRAIN_TIMEOUT_SECS="1", BGP_CONFIG=str(self.config), **variables)
        self.log = folder / f"{machine.name}.announce.log"
        self.serve()

    def _configuration(self, file: Path, number: int) -> str:
        anycast = {"as": OURS, "prefixes": sorted(PREFIXES)}
        pops = [pop(self.machine.name, number)]
        file.write_text(yaml.safe_dump({"network": "x", "pops": pops, "anycast": anycast}))
        done = command("mesh", "bgp", file, self.machine.name)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def start(self) -> None:
        self.edge.start()
        self.announcer = self.machine.start(
            PYTHON, "-m", "app", "mesh", "announce", log=self.log, **self.edge.variables
        )

    def serve(self, **columns: object) -> None:
        """Write one backend, with these columns changed."""
        write_backends(self.edge.database, [row("web", 8080, **columns)])

    def is_ready(self) -> bool:
        return "no candidate" not in get(self.machine, "127.0.0.1", 9090, "/ready")

    def exabgp(self) -> list[int]:
        """Return the pids of exabgp."""
        return [pid for pid in self.machine.pids() if b"exabgp\0server" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_prefixes_are_announced_while_ready_and_withdrawn_before_listeners_close(tmp_path):
    with wire("router", "gru") as network:
        router = Router(network["router"], tmp_path, {2: OURS}, 1)
        gru = Announcing(network["gru"], tmp_path, 2, DRAIN_WITHDRAW_SECS="6")
        gru.start()
        eventually(lambda: set(router.routes()) == PREFIXES, 15, "announced")
        for address in SERVICE:
            assert get(router.machine, address, 8000).startswith("gru-web"), "a client far away is served"
        gru.serve(healthy=0)
        eventually(lambda: not gru.is_ready(), what="not ready")
        eventually(lambda: not router.routes(), WITHDRAWN_SECONDS, "withdrawn: not ready")
        gru.serve()
        eventually(lambda: set(router.routes()) == PREFIXES, what="announced again")
        os.kill(gru.exabgp()[0], signal.SIGKILL)
        eventually(lambda: "exabgp ended with exit code -9" in gru.log.read_text(), what="its end is noticed")
        eventually(lambda: set(router.routes()) == PREFIXES, 30, what="announced by an exabgp started again")
        router.stop()
        router.start()
        eventually(lambda: set(router.routes()) == PREFIXES, 30, what="announced to a router that was restarted")
        gru.edge.stop(signal.SIGTERM)
        eventually(lambda: not router.routes(), WITHDRAWN_SECONDS, "withdrawn: draining")
        assert get(gru.machine, "192.0.2.2", 8000).startswith("gru-web"), "the doors are still open"
        assert gru.edge.ended() == 0
        gru.announcer.send_signal(signal.SIGTERM)
        assert gru.announcer.wait(10) == 0
        assert gru.exabgp() == []


def test_clients_of_a_pop_that_ends_or_hangs_go_to_the_next(tmp_path):
    """Both announce the same prefixes; the router prefers the lower router id, gru, while both exist."""
    with wire("router", "gru", "fra") as network:
        router = Router(network["router"], tmp_path, {2: OURS, 3: OURS}, 1)
        pops = gru, fra = [
            Announcing(network["gru"], tmp_path, 2, DRAIN_WITHDRAW_SECS="30"),
            Announcing(network["fra"], tmp_path, 3),
        ]
        for one in pops:
            one.start()

        def served_by(name: str) -> bool:
            return all(get(router.machine, address, 8000).startswith(name) for address in SERVICE)

        eventually(lambda: set(router.routes().values()) == {"192.0.2.2", "2001:db8::2"}, 15, "both by way of gru")
        assert served_by("gru-web")
        eventually(lambda: router.neighbours_of("198.51.100.0/24") == 2, 15, "fra announces too")
        gru.edge.stop(signal.SIGTERM)
        eventually(lambda: set(router.routes().values()) == {"192.0.2.3", "2001:db8::3"}, WITHDRAWN_SECONDS, "by fra")
        assert served_by("fra-web")
        assert get(gru.machine, "192.0.2.2", 8000).startswith("gru-web"), "gru's doors are still open"
        fra.edge.stop(signal.SIGSTOP)
        eventually(lambda: not router.routes(), WITHDRAWN_SECONDS, "withdrawn: it hangs")
        warning = "EDGEPROXY_DRAIN_WITHDRAW_SECS is below 3"
        assert [warning in one.log.read_text() for one in pops] == [False, True]


def test_the_process_idles_without_a_configuration(tmp_path):
    """It must not end before the others, which honcho would end with it."""
    with wire("gru") as network:
        log = tmp_path / "announce.log"
        idle = network["gru"].start(PYTHON, "-m", "app", "mesh", "announce", log=log)
        eventually(lambda: "idle: EDGEPROXY_BGP_CONFIG is not set" in log.read_text(), what="it says that it idles")
        idle.send_signal(signal.SIGTERM)
        assert idle.wait(10) == 0
        assert "Traceback" not in log.read_text()
