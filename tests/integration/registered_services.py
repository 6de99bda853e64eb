"""Services run by `python -m app register`, each with its program as a child, and edges for them."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.admin_client import Admin, admin_of, admin_variables
from tests.commands import clean_environment
from tests.harness import ROOT, EdgeProcess, eventually, write_backends
from tests.traffic import free_ports

NAMED_SERVER = [sys.executable, "-S", str(Path(__file__).with_name("named_server.py"))]
END_SECONDS = 20.0


def named_server(name: str, port: int, *more: object) -> list[str]:
    """Return the command of a service that responds with its name."""
    return [*NAMED_SERVER, name, str(port), *(map(str, more) if more else ("0",))]


def python(source: str) -> list[str]:
    return [sys.executable, "-S", "-c", source]


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


class Home:
    """An edge whose admin API has a constant port, and which can be restarted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "routing.db"
        self.token = folder / "admin.token"
        (self.port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.edges: list[EdgeProcess] = []

    def start(self) -> EdgeProcess:
        folder = self.folder / f"edge{len(self.edges)}"
        folder.mkdir()
        variables = {name: str(value) for name, value in admin_variables(self.folder).items()}
        variables["ADMIN_LISTEN_ADDR"] = f"127.0.0.1:{self.port}"
        self.edges.append(EdgeProcess(folder, self.database, "127.0.0.1:0", variables))
        return self.edge

    @property
    def edge(self) -> EdgeProcess:
        return self.edges[-1]

    @property
    def admin(self) -> Admin:
        return admin_of(self.edge, self.folder)

    def rows(self) -> dict[str, dict[str, Any]]:
        with sqlite3.connect(f"{self.database.as_uri()}?mode=ro", uri=True, timeout=10) as connection:
            connection.row_factory = sqlite3.Row
            found = {one["id"]: dict(one) for one in connection.execute("SELECT * FROM backends")}
        connection.close()
        return found

    def kill(self) -> None:
        for one in self.edges:
            one.kill()


class Service:
    """A process `python -m app register …` and its output."""

    def __init__(self, output: Path, arguments: list[str], variables: dict[str, str]) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", "register", *arguments],
                cwd=ROOT,
                env=clean_environment(**variables),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    @property
    def said(self) -> str:
        return self._output.read_text()

    def wait_for(self, words: str, seconds: float = 30.0) -> None:
        eventually(lambda: words in self.said, seconds, f"{words!r} in {self.said!r}")

    @property
    def program(self) -> int:
        """The pid of its program."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (child,) = map(int, children)
        return child

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        return self.process.wait(END_SECONDS)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A running edge for the tests of a file, which may restart it."""
    one = Home(tmp_path_factory.mktemp("home"))
    write_backends(one.database, [])
    one.start()
    yield one
    one.kill()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Start services: `start(home, "--app", …, command=[…])`; all are ended after the test."""
    started: list[Service] = []

    def begin(home: Any, *arguments: object, command: list[str] | None = None, **variables: str) -> Service:
        variables = {"API_URL": home.url, "ADMIN_TOKEN_FILE": str(home.token), **variables}
        texts = [*map(str, arguments), *(["--", *command] if command else [])]
        one = Service(tmp_path / f"service{len(started)}", texts, variables)
        started.append(one)
        return one

    yield begin
    for one in started:
        one.kill()
