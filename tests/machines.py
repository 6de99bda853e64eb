"""What runs on machines of their own in tests: HTTP servers that say who they are, edges, and who asks them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.commands import command
from tests.harness import eventually
from tests.namespaces import Machine

PYTHON = sys.executable

_BACKEND = """
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{sys.argv[1]} was asked by {self.client_address[0]}\\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", len(body))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[2] else socket.AF_INET
Server((sys.argv[2], int(sys.argv[3])), Answer).serve_forever()
"""

_CLIENT = """
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=20)
for _ in sys.stdin:
    connection.request("GET", "/")
    connection.auto_open = 0
    print(connection.getresponse().read().decode().strip(), flush=True)
"""
"""Asks once for each line it reads, always on the connection that it had first."""


def backend(machine: Machine, folder: Path, name: str, host: str, port: int = 8080) -> None:
    """Start an HTTP server that says its name, and wait until it answers."""
    machine.start(PYTHON, "-c", _BACKEND, name, host, port, log=folder / f"{name}.log")
    eventually(lambda: get(machine, host, port).startswith(name), what=f"{name} on {host} answers")


def bracketed(host: str) -> str:
    """Return an address as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def get(machine: Machine, host: str, port: int, path: str = "/") -> str:
    """Return what a machine is answered by HTTP, "" where nobody answers."""
    return machine.run("curl", "-sS", "-g", "-m", "5", f"http://{bracketed(host)}:{port}{path}").stdout


class MachineEdge:
    """`python -m app serve` on a machine, with a routing database of its own."""

    def __init__(
        self, machine: Machine, folder: Path, environment: dict[str, str] | None = None, **variables: str
    ) -> None:
        self.machine = machine
        self.environment = environment or {}
        self.folder = folder / f"edge-{machine.name}"
        self.folder.mkdir(exist_ok=True)
        self.database = self.folder / "routing.db"
        self.log_path = self.folder / "edge.jsonl"
        self.variables = {
            "LISTEN_ADDR": "*:8000",
            "GEOIP_PATH": "off",
            "DB_PATH": str(self.database),
            "GATEWAY_DB_PATH": str(self.folder / "gateway.db"),
            "ADMIN_TOKEN_FILE": str(self.folder / "admin.token"),
            "LOG_PATH": str(self.log_path),
            **variables,
        }
        self.process: subprocess.Popen[bytes] | None = None

    def load(self, rows: str) -> None:
        """Put rows of CSV into its routing database."""
        done = command("backends", "--db", self.database, "load", "-", stdin=rows)
        assert done.returncode == 0, done.stderr

    def run(self, command: str, **variables: str) -> subprocess.Popen[bytes]:
        """Start `python -m app` with this edge's variables, some of them changed; its output has its name."""
        words = ("env", *(f"{name}={text}" for name, text in self.environment.items()), PYTHON, "-m", "app", command)
        return self.machine.start(*words, log=self.folder / f"{command}.log", **{**self.variables, **variables})

    def start(self) -> None:
        self.process = self.run("serve")
        eventually(lambda: self.event("listening on"), 30, what=f"the edge of {self.machine.name} listens")

    def stop(self, number: int) -> None:
        """Send it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    def ended(self) -> int:
        """Wait until it has ended; returns how."""
        assert self.process is not None
        return self.process.wait(20)

    def event(self, beginning: str) -> dict[str, Any] | None:
        """Return the first logged event whose text begins so."""
        if not self.log_path.exists():
            return None
        lines = [json.loads(line) for line in self.log_path.read_text().splitlines(keepends=True) if line[-1] == "\n"]
        return next((line for line in lines if line["event"].startswith(beginning)), None)

    def response(self) -> str:
        """Return what a client on the edge's own machine is answered."""
        return get(self.machine, "127.0.0.1", 8000)

    @contextmanager
    def connection(self) -> Iterator[Callable[[], str]]:
        """Hold one connection open on the edge's own machine; gives what asks on it, "" when it has ended."""
        arguments = self.machine.command(PYTHON, "-c", _CLIENT, "127.0.0.1", 8000)
        with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdin is not None
            assert client.stdout is not None
            stdin, stdout = client.stdin, client.stdout

            def ask() -> str:
                stdin.write("ask\n")
                stdin.flush()
                return stdout.readline().strip()

            yield ask
            stdin.close()
