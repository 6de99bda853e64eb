"""Plays systemd for an edge: hears its states, passes listening sockets to it, sets the variables that systemd sets.

The edge is a process of its own from the beginning: descriptors are passed by number, and variables name its id.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import gevent
import pytest

from tests.harness import ROOT, EdgeProcess, eventually, row, write_backends
from tests.traffic import ask, named

_AS_SYSTEMD = """
import fcntl, os, sys
descriptors = [int(text) for text in sys.argv[1].split(",") if text]
high = [fcntl.fcntl(one, fcntl.F_DUPFD, 100) for one in descriptors]
for one in set(descriptors):
    os.close(one)
for number, one in enumerate(high, start=3):
    os.dup2(one, number)
    os.close(one)
os.environ.update((name, str(os.getpid())) for name in ("LISTEN_PID", "WATCHDOG_PID"))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Passes descriptors from 3 on, then becomes the command, whose process id it puts into the variables."""


class Heard(NamedTuple):
    """A datagram of the edge: its states, and when it came."""

    states: dict[str, str]
    at: float


class ServiceManager:
    """Hears what edges say at the socket `address`, which begins with @ if it is abstract."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.heard: list[Heard] = []
        self.on_ready: Callable[[], object] = lambda: None
        """Called once for each READY=1, while nothing else is heard."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._greenlet = gevent.spawn(self._hear)

    def _hear(self) -> None:
        while True:
            lines = self._socket.recv(4096).decode().split("\n")
            self.heard.append(Heard(dict(line.split("=", 1) for line in lines), time.monotonic()))
            if "READY" in self.heard[-1].states:
                self.on_ready()

    def said(self, name: str) -> list[str]:
        """Return the values of a state, each time that it was said."""
        return [one.states[name] for one in self.heard if name in one.states]

    def wait_for(self, name: str, value: str, times: int = 1) -> None:
        eventually(lambda: self.said(name).count(value) >= times, what=f"{name}={value}, {times} times")

    def variables(self, sockets: list[socket.socket], watchdog_seconds: float = 0.0) -> dict[str, str]:
        """Return what systemd sets, but for the process ids."""
        watchdog = {"WATCHDOG_USEC": str(int(watchdog_seconds * 1e6))} if watchdog_seconds else {}
        names = ":".join(f"edgeproxy{number}.socket" for number in range(len(sockets)))
        passed = {"LISTEN_FDS": str(len(sockets)), "LISTEN_FDNAMES": names} if sockets else {}
        return {"NOTIFY_SOCKET": self.address, **watchdog, **passed}

    def close(self) -> None:
        self._greenlet.kill()
        self._socket.close()


def start_as_systemd(
    command: list[str], environment: dict[str, str], sockets: list[socket.socket]
) -> subprocess.Popen[bytes]:
    """Start `python -m app …` as systemd does; its errors are piped."""
    descriptors = [sock.fileno() for sock in sockets]
    passing = [sys.executable, "-S", "-c", _AS_SYSTEMD, ",".join(map(str, descriptors))]
    return subprocess.Popen(
        [*passing, sys.executable, "-m", "app", *command],
        cwd=ROOT, env=environment, pass_fds=descriptors, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


class ManagedEdge(EdgeProcess):
    """An edge that a service manager starts, with variables beside those of the edge."""

    def __init__(
        self, folder: Path, database: Path, sockets: list[socket.socket], variables: dict[str, str], **settings: Any
    ) -> None:
        self._sockets, self._variables = sockets, variables
        config, listen = settings.pop("config", None), settings.pop("listen", "127.0.0.1:0")
        texts = {name: str(value) for name, value in {"GEOIP_PATH": "off", **settings}.items()}
        folder.mkdir()
        super().__init__(folder, database, listen, texts, config)

    def start_process(self, arguments: tuple[str, ...], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        return start_as_systemd([*arguments], environment | self._variables, self._sockets)

    def has_open(self, sock: socket.socket) -> bool:
        """Return whether the edge has a descriptor of a socket of this process."""
        found = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return os.stat(sock.fileno()).st_ino in {one.stat().st_ino for one in found if one.exists()}


def place(*socks: socket.socket) -> str:
    """Return where sockets listen, as a configuration has it."""
    return ",".join("{}:{}".format(*sock.getsockname()) for sock in socks)


def answer(address: tuple[str, int]) -> str:
    """Connect, and ask who serves."""
    with socket.create_connection(address, 30) as client:
        return ask(client)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[ServiceManager]:
    manager = ServiceManager(str(tmp_path / "notify"))
    yield manager
    manager.close()


@pytest.fixture
def managed(tmp_path: Path, routing_db: Path, manager: ServiceManager, origin: Any) -> Iterator[Any]:
    """Start edges with one backend, a: `managed(sockets, watchdog_seconds=…, config=…, VARIABLE=…)`."""
    started: list[ManagedEdge] = []
    write_backends(routing_db, [row("a", origin(named("a")))])

    def start(*sockets: socket.socket, watchdog_seconds: float = 0.0, **settings: Any) -> ManagedEdge:
        variables = manager.variables([*sockets], watchdog_seconds) | settings.pop("variables", {})
        folder = tmp_path / f"edge{len(started)}"
        started.append(ManagedEdge(folder, routing_db, [*sockets], variables, **settings))
        return started[-1]

    yield start
    for one in started:
        one.kill()


@pytest.fixture
def listening() -> Iterator[Callable[[], socket.socket]]:
    """Open listening sockets, as a socket unit does."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
