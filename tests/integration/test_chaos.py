"""Servers die, freeze, dawdle and flap while clients keep coming: only what was under way on a bad one may fail.

Three servers behind one frontend, six clients that come again at once. The bound on what the clients may see:

- killed: the connections open on it at that moment, one a client at most; every later dial goes elsewhere;
- frozen: those that reached it before its probes gave it up (the kernel still accepts for it); none after that;
- slow: none;
- flapping: as killed, each time.

No connection to a server that is well ever fails.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import gevent

from tests.harness import EdgeProcess, eventually, frontend, pool
from tests.traffic import ask

CLIENTS = 6
PATIENCE_SECONDS = 0.5
"""Of a client, for an answer."""
CHECK = {
    "type": "http", "interval": "100ms", "timeout": "300ms", "unhealthy_threshold": 2, "healthy_threshold": 2,
    "cooldown": "200ms",
}  # fmt: skip


class Server:
    """A named server in a process of its own."""

    def __init__(self, name: str, delay_seconds: float = 0.0) -> None:
        self.name = name
        self._delay = str(delay_seconds)
        self.port = 0
        self.start()

    def start(self) -> None:
        """Listen, where it did before."""
        command = [sys.executable, "-S", str(Path(__file__).with_name("named_server.py"))]
        self._process = subprocess.Popen([*command, self.name, str(self.port), self._delay], stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    @property
    def id(self) -> str:
        return f"127.0.0.1:{self.port}"


class Crowd:
    """Clients that come, ask and go, again and again; what they heard is counted by the phase they came in."""

    def __init__(self, edge: EdgeProcess) -> None:
        self.edge = edge
        self._ends = False
        self._sources = count()
        self.phase = "before"
        self.heard: dict[str, Counter[str]] = {}
        """Who answered how often, by phase; "" counts the connections that nobody answered."""
        self._greenlets = [gevent.spawn(self._come_and_go) for _ in range(CLIENTS)]

    def _come_and_go(self) -> None:
        while not self._ends:
            phase = self.phase
            response = self._visit(f"127.0.18.{1 + next(self._sources) % 250}")
            self.heard.setdefault(phase, Counter())[response] += 1
            gevent.sleep(0.002)

    def _visit(self, source: str) -> str:
        try:
            with self.edge.connect(source, PATIENCE_SECONDS) as sock:
                return ask(sock)
        except (ConnectionError, TimeoutError):
            return ""

    def wait_for(self, phase: str, look: Callable[[Counter[str]], Any]) -> None:
        """Begin a phase, and wait until what was heard of it is as it should be."""
        self.phase = phase
        eventually(lambda: look(self.heard.get(phase, Counter())), what=phase)

    def end(self) -> None:
        self._ends = True
        gevent.joinall(self._greenlets, timeout=20, raise_error=True)

    def failures(self) -> int:
        return sum(heard[""] for heard in self.heard.values())


@contextmanager
def scene(folder: Path, *, algorithm: str = "round_robin", slow: float = 0.0) -> Iterator[tuple[Crowd, Server]]:
    """Set three servers, the first of them the one that gets into trouble, behind an edge before a crowd."""
    with ExitStack() as stack:
        servers = [Server("bad", slow), Server("good"), Server("better")]
        for one in servers:
            stack.callback(one.kill)
        listeners = [frontend("web", "p", algorithm=algorithm, tcp={"connect_timeout": "500ms"})]
        backends = [pool("p", *(one.port for one in servers), health_check=CHECK)]
        config = {"frontends": listeners, "backends": backends}
        proxy = EdgeProcess(folder, folder / "no.db", "", {"GEOIP_PATH": "off"}, config)
        stack.callback(proxy.kill)
        eventually(lambda: [x.get("state") for x in proxy.log()].count("up") == 3, what="all are known to be well")
        crowd = Crowd(proxy)
        stack.callback(crowd.end)
        crowd.wait_for("before", lambda heard: all(heard[one.name] >= 5 for one in servers))
        yield crowd, servers[0]
        crowd.end()
        eventually(lambda: proxy.ready()["connections"] == 0)
        heard = sum(sum(one.values()) for one in crowd.heard.values())
        lines = eventually(lambda: (found := proxy.access_lines())[heard - 1 :] and found)
        unanswered = [line for line in lines if not line["bytes_down"]]
        assert {line["backend"] for line in unanswered} <= {servers[0].id}, "nobody who is well ever fails anybody"


def is_available(edge: EdgeProcess, server: Server) -> bool:
    return edge.metrics()[f'edgeproxy_backend_available{{backend="{server.id}",pool="p"}}'] == 1


def test_a_killed_server_fails_only_whom_it_was_serving_and_comes_back(tmp_path):
    with scene(tmp_path) as (crowd, bad):
        crowd.phase = "killed"
        bad.kill()
        crowd.wait_for("dead", lambda heard: heard["good"] + heard["better"] >= 100)
        eventually(lambda: not is_available(crowd.edge, bad), what="probes or refused dials have found out")
        bad.start()
        crowd.wait_for("back", lambda heard: heard["bad"] >= 10)
    assert crowd.heard["dead"][""] + crowd.heard["back"][""] == 0, "every dial that is refused goes elsewhere"
    assert crowd.failures() <= CLIENTS


def test_a_frozen_server_gets_nobody_once_its_probes_have_given_it_up(tmp_path):
    with scene(tmp_path) as (crowd, bad):
        crowd.phase = "freezing"
        bad.signal(signal.SIGSTOP)
        eventually(lambda: not is_available(crowd.edge, bad))
        crowd.wait_for("frozen", lambda heard: heard["good"] + heard["better"] >= 100)
        assert crowd.heard["frozen"][""] == 0
        bad.signal(signal.SIGCONT)
        crowd.wait_for("back", lambda heard: heard["bad"] >= 10)
    assert crowd.heard["frozen"].keys() == {"good", "better"}
    assert crowd.heard["back"][""] == 0


def test_a_slow_server_fails_nobody_and_least_connections_spares_it(tmp_path):
    with scene(tmp_path, algorithm="least_connections", slow=0.1) as (crowd, _slow):
        crowd.wait_for("slow", lambda heard: heard["bad"] >= 10)
    assert crowd.failures() == 0
    assert crowd.heard["slow"]["bad"] < min(crowd.heard["slow"]["good"], crowd.heard["slow"]["better"])


def test_a_flapping_server_fails_only_whom_it_was_serving_each_time(tmp_path):
    times = 5
    with scene(tmp_path) as (crowd, bad):
        for number in range(times):
            bad.kill()
            crowd.wait_for(f"dead {number}", lambda heard: heard["good"] + heard["better"] >= 20)
            bad.start()
            crowd.wait_for(f"back {number}", lambda heard: heard["bad"] >= 1)
    assert crowd.failures() <= times * CLIENTS
    assert sum(heard[""] for phase, heard in crowd.heard.items() if phase.startswith("dead")) == 0
