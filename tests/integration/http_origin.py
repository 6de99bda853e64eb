"""Both raw ends of an HTTP edge: an origin that keeps every byte it gets and answers as told, and a client.

Neither leaves anything to a library: what is tested is which bytes go where.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from gevent.server import StreamServer

from tests.harness import PATIENCE_SECONDS, EdgeProcess, eventually, write_backends
from tests.integration.peers import await_acknowledged, reset

_paths = count(1)


def fresh_path() -> str:
    """Return a path that no request of this test run has asked for yet."""
    return f"/{next(_paths)}"


def get(path: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Write a request without a body."""
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: shop", *lines, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *lines: str, method: str = "POST", version: str = "1.1") -> bytes:
    return get(path, f"Content-Length: {len(body)}", *lines, method=method, version=version) + body


def response(body: bytes = b"", *lines: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Write an answer; `length` when Content-Length is not to say the truth."""
    said = len(body) if length is None else length
    return "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {said}", *lines, "", ""]).encode("latin-1") + body


class Message:
    """A request as the origin got it, or an answer as the client did. Names of headers are in lower case."""

    def __init__(self, head: bytes) -> None:
        self.head = head
        self.line, *lines = head[:-4].decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        self.headers = [(name.lower(), value.strip(" \t")) for name, _, value in pairs]
        self.body = b""
        self.trailers = b""
        self.visit = 0
        """Which connection of the origin it came by, from 1."""

    def __getitem__(self, name: str) -> str | None:
        """Return the value of the one header of this name."""
        values = self.all(name)
        assert len(values) < 2, f"{name} is there more than once: {values}"
        return values[0] if values else None

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    @property
    def status(self) -> int:
        return int(self.line.split(" ")[1])


class Wire:
    """Reads messages from a socket. `received` is every byte that came."""

    def __init__(self, sock: socket.socket, on_bytes: Callable[[bytes], object] = lambda data: None) -> None:
        self.sock = sock
        self.received = bytearray()
        self._on_bytes = on_bytes
        self._at = 0

    def _more(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"ended after {bytes(self.received[self._at :])!r}")
        self.received += data
        self._on_bytes(data)

    def until(self, mark: bytes) -> bytes:
        while (end := self.received.find(mark, self._at)) < 0:
            self._more()
        return self._take(end + len(mark))

    def exactly(self, size: int) -> bytes:
        while len(self.received) - self._at < size:
            self._more()
        return self._take(self._at + size)

    def to_end(self) -> bytes:
        """Return all that comes before a clean end."""
        try:
            while True:
                self._more()
        except EOFError:
            return self._take(len(self.received))

    @property
    def consumed(self) -> int:
        """How many bytes were read, of those that came."""
        return self._at

    def _take(self, end: int) -> bytes:
        start, self._at = self._at, end
        return bytes(self.received[start:end])

    def read_body(self, message: Message) -> None:
        """Read what the headers announce, if anything."""
        if message["transfer-encoding"] == "chunked":
            while size := int(self.until(b"\r\n").split(b";")[0], 16):
                message.body += self.exactly(size + 2)[:-2]
            while (line := self.until(b"\r\n")) != b"\r\n":
                message.trailers += line
        else:
            message.body = self.exactly(int(message["content-length"] or 0))


Part = Callable[["Visit", Message], Any]


class Visit:
    """One connection to the origin, as the part that answers sees it."""

    def __init__(self, origin: Origin, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.wire = Wire(sock, origin.take)
        self.number = number
        self._origin = origin

    def read_body(self, request: Message) -> None:
        """Read the rest of a request; it counts as one that the origin got from then on."""
        self.wire.read_body(request)
        self._origin.requests.append(request)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def reset(self) -> None:
        reset(self.sock)


class Origin:
    """Answers by path: with bytes, or with what a part does; with 200 and the path where nothing else is said.

    A part gets the head of a request, reads the body itself, and returns true to end the connection.
    """

    def __init__(self) -> None:
        self.parts: dict[str, Part | bytes] = {}
        self.heads: list[Message] = []
        self.requests: list[Message] = []
        """Those that were read whole."""
        self.bytes = bytearray()
        """All that came, by whichever connection."""
        self.visits = 0
        """Connections there have been; they are numbered from 1."""
        self.ended: set[int] = set()
        """The numbers of those that have ended."""
        self._server = StreamServer(("127.0.0.1", 0), self._serve, backlog=1024)
        self._server.start()
        self.port = int(self._server.server_port)

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def take(self, data: bytes) -> None:
        self.bytes += data

    def on(self, part: Part | bytes, path: str = "") -> str:
        """Let requests for a path be answered so; returns the path, one that nobody has asked for yet."""
        path = path or fresh_path()
        self.parts[path] = part
        return path

    def got(self, path: str) -> list[Message]:
        """Return the whole requests for a path."""
        return [request for request in self.requests if request.path == path]

    def one(self, path: str) -> Message:
        """Return the only request there was for a path."""
        (request,) = self.got(path)
        return request

    def _serve(self, sock: socket.socket, _peer: object) -> None:
        self.visits += 1
        visit = Visit(self, sock, self.visits)
        try:
            while not self._answer(visit):
                pass
        except (EOFError, OSError):
            return
        finally:
            self.ended.add(visit.number)

    def _answer(self, visit: Visit) -> Any:
        request = Message(visit.wire.until(b"\r\n\r\n"))
        request.visit = visit.number
        self.heads.append(request)
        part = self.parts.get(request.path, response(request.path.encode()))
        if callable(part):
            return part(visit, request)
        visit.read_body(request)
        visit.send(part)
        return False


def then_end(data: bytes) -> Part:
    """Return the part of an origin that reads a request, sends this and ends the connection."""

    def part(visit: Visit, request: Message) -> bool:
        visit.read_body(request)
        visit.send(data)
        return True

    return part


def then_reset(data: bytes = b"") -> Part:
    """Return the part of an origin that reads a request, sends this, and resets the connection once it is delivered."""

    def part(visit: Visit, request: Message) -> bool:
        visit.read_body(request)
        if data:
            visit.send(data)
            await_acknowledged(visit.sock)
        visit.reset()
        return True

    return part


class Client:
    """A connection to the edge, over which bytes are sent as they are."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wire = Wire(sock)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self) -> Message:
        """Read the head of an answer, an interim one perhaps."""
        return Message(self.wire.until(b"\r\n\r\n"))

    def response(self, *, has_body: bool = True) -> Message:
        """Read an answer whose end can be told without the end of the connection."""
        message = self.head()
        if has_body:
            assert message["content-length"] is not None or message["transfer-encoding"] is not None, message.head
            self.wire.read_body(message)
        return message

    def ask(self, data: bytes, *, has_body: bool = True) -> Message:
        self.send(data)
        return self.response(has_body=has_body)

    def rest(self) -> bytes:
        """Return what comes before a clean end; a reset raises ConnectionResetError."""
        return self.wire.to_end()


@contextmanager
def client_of(edge: EdgeProcess, frontend: str = "", source: str = "") -> Iterator[Client]:
    with edge.connect(source, PATIENCE_SECONDS, frontend=frontend) as sock:
        yield Client(sock)


def start_edge(folder: Path, config: dict[str, Any], **variables: str) -> EdgeProcess:
    """Start an edge by a configuration file, with an empty routing database."""
    database = folder / "routing.db"
    write_backends(database, [])
    return EdgeProcess(folder, database, "", {"GEOIP_PATH": "off", **variables}, config)


def request_lines(edge: EdgeProcess, target: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Return the access lines of requests for a target, once there are so many."""

    def look() -> list[dict[str, Any]] | None:
        lines = [line for line in edge.log() if line["event"] == "request" and line["target"] == target]
        return lines if len(lines) >= at_least else None

    return list(eventually(look, what=f"{at_least} access lines of {target}"))


def request_line(edge: EdgeProcess, target: str) -> dict[str, Any]:
    """Return the one access line of a target."""
    (line,) = request_lines(edge, target)
    return line


def sample(samples: dict[str, float], name: str, **labels: str) -> float:
    """Return a sample of /metrics by its labels, in any order; 0 when it is not there."""
    for text, value in samples.items():
        said, _, rest = text.partition("{")
        if said == name and dict(re.findall(r'(\w+)="([^"]*)"', rest)) == labels:
            return value
    return 0.0
