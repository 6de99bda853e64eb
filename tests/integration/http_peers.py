"""HTTP peers whose every byte the test decides: origins that play a part, clients that read answers piece by piece."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from gevent.server import StreamServer

from tests.harness import EdgeProcess, eventually, frontend, write_backends

Headers = dict[str, str]


class Wire:
    """Reads HTTP/1.1 off a socket. `received` counts every byte."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.buffered = b""
        self.received = 0

    def some(self, most: int = 1 << 18) -> bytes:
        """Return what is there, at most so much; empty at the end."""
        if not self.buffered:
            self.buffered = self.sock.recv(most)
            self.received += len(self.buffered)
        data, self.buffered = self.buffered[:most], self.buffered[most:]
        return data

    def until(self, mark: bytes) -> bytes:
        """Return what comes up to and with the mark; empty when the stream ends cleanly before its first byte."""
        while mark not in self.buffered:
            data = self.sock.recv(65536)
            if not data:
                assert not self.buffered, f"the stream ended after {self.buffered!r}"
                return b""
            self.received += len(data)
            self.buffered += data
        found, _, self.buffered = self.buffered.partition(mark)
        return found + mark

    def exactly(self, size: int) -> Iterator[bytes]:
        """Give so many bytes piece by piece. Raises EOFError when the stream ends before."""
        while size:
            data = self.some(min(size, 1 << 18))
            if not data:
                raise EOFError(f"{size} bytes are missing")
            size -= len(data)
            yield data

    def head(self) -> tuple[str, Headers] | None:
        """Return first line and headers, their names in lower case; None at the end of the stream."""
        text = self.until(b"\r\n\r\n")
        if not text:
            return None
        first, *lines = text.decode("latin-1").split("\r\n")[:-2]
        return first, _fields(lines)

    def body(self, headers: Headers, trailers: Headers, *, has_length: bool = True) -> Iterator[bytes]:
        """Give a body piece by piece; one without framing ends with the stream unless it has a length of 0 then."""
        if "transfer-encoding" in headers:
            while size := int(self.until(b"\r\n").partition(b";")[0], 16):
                yield from self.exactly(size)
                assert b"".join(self.exactly(2)) == b"\r\n"
            while line := self.until(b"\r\n").decode().strip():
                trailers |= _fields([line])
        elif "content-length" in headers or has_length:
            yield from self.exactly(int(headers.get("content-length", 0)))
        else:
            while data := self.some():
                yield data


def _fields(lines: Iterable[str]) -> Headers:
    named = (line.partition(":") for line in lines)
    return {name.lower(): value.strip() for name, _, value in named}


@dataclass
class Request:
    """A request as an origin gets it, on the connection of this number."""

    wire: Wire
    connection: int
    method: str
    target: str
    headers: Headers
    trailers: Headers = field(default_factory=dict)
    has_ended: bool = False
    """Its connection has ended with this request, and with this error."""
    error: BaseException | None = None

    @property
    def sock(self) -> socket.socket:
        return self.wire.sock

    def pieces(self) -> Iterator[bytes]:
        """Give the body as it comes."""
        return self.wire.body(self.headers, self.trailers)

    def response(self, body: bytes = b"", *headers: str, status: str = "200 OK") -> None:
        self.sock.sendall(whole(f"HTTP/1.1 {status}", body, *headers))


def whole(first: str, body: bytes = b"", *headers: str) -> bytes:
    """Return a message with a Content-Length."""
    return b"%b%b" % (head(first, *headers, f"Content-Length: {len(body)}"), body)


def head(first: str, *headers: str) -> bytes:
    return "\r\n".join([first, *headers, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


Part = Callable[[Request], object]


def say_who(request: Request) -> None:
    """Answer with the number of the connection, once all of the request is there."""
    for _ in request.pieces():
        pass
    request.response(str(request.connection).encode())


class Origin:
    """An HTTP server in the test's process: plays `part(request)` for each; the part returns True to end there."""

    def __init__(self, part: Part = say_who, host: str = "127.0.0.1") -> None:
        self.part = part
        self.requests: list[Request] = []
        """Those of this part."""
        self.accepted = 0
        self.open = 0
        self._server = StreamServer((host, 0), self._serve, backlog=1024)
        self._server.start()
        self.port = int(self._server.server_port)

    @property
    def used(self) -> list[int]:
        """Return the numbers of the connections that brought the requests."""
        return [request.connection for request in self.requests]

    def play(self, part: Part) -> None:
        """Begin anew with another part."""
        self.part, self.requests = part, []

    def await_end(self, number: int = 0) -> BaseException | None:
        """Wait until the connection has ended that brought this request; returns the error that ended it."""
        eventually(lambda: self.requests[number:] and self.requests[number].has_ended, what="the connection ends")
        return self.requests[number].error

    def close(self) -> None:
        self._server.stop(timeout=0.1)

    def _serve(self, sock: socket.socket, _peer: object) -> None:
        number = self.accepted = self.accepted + 1
        self.open += 1
        request: Request | None = None
        error: BaseException | None = None
        try:
            wire = Wire(sock)
            while (found := wire.head()) is not None:
                method, target, _ = found[0].split(" ")
                request = Request(wire, number, method, target, found[1])
                self.requests.append(request)
                if self.part(request):
                    break
        except (Exception, pytest.fail.Exception) as caught:
            error = caught
        finally:
            self.open -= 1
            if request is not None:
                request.error, request.has_ended = error, True


@dataclass
class ReceivedResponse:
    """What a client got."""

    status: int
    headers: Headers
    body: bytes
    trailers: Headers


class Client:
    """A client's connection, kept alive."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.wire = Wire(sock)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, target: str = "/", *headers: str, method: str = "GET", body: bytes | None = None) -> ReceivedResponse:
        """Send a request and read its answer."""
        first = f"{method} {target} HTTP/1.1"
        self.send(head(first, "Host: x", *headers) if body is None else whole(first, body, "Host: x", *headers))
        return self.read(has_body=method != "HEAD")

    def read_head(self) -> ReceivedResponse:
        """Read the head of an answer."""
        found = self.wire.head()
        if found is None:
            raise EOFError("no answer")
        return ReceivedResponse(int(found[0].split(" ")[1]), found[1], b"", {})

    def read(self, *, has_body: bool = True) -> ReceivedResponse:
        """Read a whole answer; EOFError when it is cut short."""
        response = self.read_head()
        if has_body and response.status not in (204, 304):
            pieces = self.wire.body(response.headers, response.trailers, has_length=False)
            response.body = b"".join(pieces)
        return response

    def has_ended(self) -> bool:
        """Wait for what comes next; say whether it is a clean end."""
        return self.wire.some() == b""


def live(name: str, backend: str, **more: Any) -> dict[str, Any]:
    """Return an HTTP frontend of the configuration file, on a port the kernel chooses."""
    return frontend(name, backend, protocol="http", **more)


@contextmanager
def http_edge(folder: Path, config: dict[str, Any], **variables: object) -> Iterator[EdgeProcess]:
    """Run an edge with this configuration for the block."""
    database = folder / "routing.db"
    write_backends(database, [])
    texts = {"GEOIP_PATH": "off", **{name: str(value) for name, value in variables.items()}}
    edge = EdgeProcess(folder, database, "", texts, config)
    try:
        yield edge
    finally:
        edge.kill()


def client_of(edge: EdgeProcess, source: str = "", *, frontend: str = "") -> Client:
    return Client(edge.connect(source, frontend=frontend))


def request_line(edge: EdgeProcess, target: str) -> dict[str, Any]:
    """Return the access line of the request for this target, once it is there."""

    def look() -> list[dict[str, Any]]:
        return [line for line in edge.log() if line["event"] == "request" and line["target"] == target]

    line: dict[str, Any] = eventually(look, what=f"an access line of {target}")[0]
    return line


def leases(edge: EdgeProcess) -> float:
    """Return how many leases are held on all backends."""
    samples = edge.metrics().items()
    return sum(value for name, value in samples if name.startswith("edgeproxy_backend_connections_active{"))
