"""Helpers for tests of real connections: an edge with one backend whose behaviour each test sets.

Starting an edge takes a second, so tests of one subject share one (`Stage`). Every client has its own loopback address,
by which its access line is found. The other helpers read, reset, and wait for the kernel to deliver.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.queue import Empty, Queue
from gevent.server import StreamServer

from tests.harness import PATIENCE_SECONDS, EdgeProcess, eventually, freeze, row, write_backends

Part = Callable[[socket.socket], Any]

_sources = count(1)


def fresh_address() -> str:
    """Return a loopback address that no client of this test run has used yet."""
    number = next(_sources)
    return f"127.1.{number >> 8}.{number & 255}"


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def named(name: str) -> Part:
    """Return a backend's behaviour: send its name, then hold the connection until the client closes it."""

    def part(sock: socket.socket) -> bytes:
        sock.sendall(name.encode() + b"\n")
        return read_to_end(sock)

    return part


def name_heard(sock: socket.socket) -> str:
    """Return the name that a `named` backend sends; "" if the connection ends or is reset without one."""
    try:
        said = sock.recv(100)
    except ConnectionResetError:
        return ""
    return said.decode().strip()


def visit(edge: EdgeProcess, source: str) -> str:
    """Connect from an address, return the backend's name ("" if refused), close."""
    try:
        with edge.connect(source) as client:
            return name_heard(client)
    except ConnectionResetError:  # so early that the client was still connecting
        return ""


def is_refused(edge: EdgeProcess, source: str) -> bool:
    """Connect from an address and wait for the end. Returns whether it was a reset."""
    try:
        with edge.connect(source) as client:
            return is_reset(client)
    except ConnectionResetError:
        return True


def load(edge: EdgeProcess, database: Path, rows: list[dict[str, Any]]) -> None:
    """Replace the rows of the edge's routing database by different ones, and wait until the edge uses them."""

    def loads() -> int:
        return sum(line["event"].startswith("routing: ") for line in edge.log())

    before = loads()
    write_backends(database, rows)
    eventually(lambda: loads() > before, what="the changed rows are loaded")


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Return `size` bytes, or fewer if the stream ends before."""
    received = bytearray()
    while len(received) < size and (data := sock.recv(size - len(received))):
        received += data
    return bytes(received)


def read_to_end(sock: socket.socket) -> bytes:
    """Return everything up to a clean end."""
    received = bytearray()
    while data := sock.recv(65536):
        received += data
    return bytes(received)


def read_until_reset(sock: socket.socket, pause: Callable[[], object] = lambda: None) -> bytes:
    """Return everything up to a reset; a clean end fails the test. `pause` is called before each small read."""
    received = bytearray()
    while True:
        try:
            pause()
            data = sock.recv(16384)
        except ConnectionResetError:
            return bytes(received)
        if not data:
            pytest.fail(f"a clean end after {len(received)} bytes, not a reset")
        received += data


def is_reset(sock: socket.socket) -> bool:
    """Wait for the end of a connection that brings no byte. Returns whether it was a reset."""
    try:
        data = sock.recv(1)
    except ConnectionResetError:
        return True
    assert data == b"", "bytes instead of an end"
    return False


def reset(sock: socket.socket) -> None:
    """Close with RST, which also discards what the peer's kernel has not acknowledged."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def await_acknowledged(sock: socket.socket) -> None:
    """Wait until the peer's kernel has received everything that was sent."""
    eventually(
        lambda: struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4)))[0] == 0,
        what="all sent bytes acknowledged",
    )


@contextmanager
def paused(edge: EdgeProcess) -> Iterator[None]:
    """Stop the edge's process for the block: it then finds everything the clients did at once."""
    freeze(edge.process.pid)
    try:
        yield
    finally:
        os.kill(edge.process.pid, signal.SIGCONT)


@contextmanager
def crowd(edge: EdgeProcess, sources: Iterable[str]) -> Iterator[list[socket.socket]]:
    """Connect one client from each source address; the edge accepts them in one burst."""
    with ExitStack() as stack:
        with paused(edge):
            clients = [stack.enter_context(edge.connect(source)) for source in sources]
        yield clients


@contextmanager
def hanging_backend() -> Iterator[int]:
    """Yield the port of a backend whose accept queue is full, so that the kernel ignores further connections."""
    with ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(server.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(server.getsockname(), timeout=0.1)
        yield server.getsockname()[1]


def refusing_port(stack: ExitStack) -> int:
    """Return a port that refuses connections: it is bound, so that no other process gets it, but nothing listens."""
    sock = stack.enter_context(socket.socket())
    sock.bind(("127.0.0.1", 0))
    return int(sock.getsockname()[1])


def is_listened_on(address: tuple[str, int]) -> bool:
    """Say whether something accepts connections there, by making one."""
    try:
        socket.create_connection(address, PATIENCE_SECONDS).close()
    except ConnectionRefusedError:
        return False
    return True


class Stage:
    """An edge with one backend, "a", whose behaviour each test sets."""

    def __init__(self, folder: Path, **variables: object) -> None:
        self._part: Part = echo
        self._outcomes: Queue[Any] = Queue()
        self._server = StreamServer(("127.0.0.1", 0), self._perform, backlog=1024)
        self._server.start()
        database = folder / "routing.db"
        write_backends(database, [row("a", self._server.server_port)])
        self.edge = EdgeProcess(folder, database, "127.0.0.1:0", {name: str(v) for name, v in variables.items()})

    def close(self) -> None:
        self.edge.kill()
        self._server.stop(timeout=0.1)

    def _perform(self, sock: socket.socket, _peer: object) -> None:
        part, outcomes = self._part, self._outcomes
        try:
            outcomes.put(part(sock))
        except (Exception, pytest.fail.Exception) as error:
            outcomes.put(error)

    def play(self, part: Part) -> Callable[[], Any]:
        """Let the backend run `part(socket)` from now on. Returns a function that returns its result or OSError."""
        self._part, outcomes = part, Queue()
        self._outcomes = outcomes

        def outcome() -> Any:
            try:
                result = outcomes.get(timeout=PATIENCE_SECONDS)
            except Empty:
                pytest.fail(f"no connection to the backend has ended; {situation(self.edge)}")
            if isinstance(result, BaseException) and not isinstance(result, OSError):
                raise result
            return result

        return outcome

    def connect(self, timeout: float = PATIENCE_SECONDS) -> socket.socket:
        return self.edge.connect(fresh_address(), timeout)

    def line_of(self, client: str) -> dict[str, Any]:
        """Return the access line of the client at an address."""
        return next(iter(lines_of(self.edge, client)))


def situation(edge: EdgeProcess) -> str:
    """Return an edge's last log lines, the stacks of its greenlets, and the machine's TCP sockets that do not wait."""
    before = edge.log()[-3:]
    edge.process.send_signal(signal.SIGUSR1)
    gevent.sleep(1.0)
    stacks = [line["event"] for line in edge.log() if line["event"].startswith("stack of")]
    lines = Path("/proc/net/tcp").read_text().splitlines()
    sockets = [line for line in lines if line.split()[3] != "06"]
    listeners = f"it listens on {', '.join(f'{port:04X}' for _, port in edge.addresses)}"
    return "\n".join(["its last log lines and greenlets:", *map(str, before), *stacks, listeners, *sockets])


def lines_of(edge: EdgeProcess, client: str, at_least: int = 1) -> list[dict[str, Any]]:
    """Wait for `at_least` access lines of a client and return them."""

    def look() -> list[dict[str, Any]] | None:
        lines = [line for line in edge.access_lines() if line["client"] == client]
        return lines if len(lines) >= at_least else None

    return eventually(look, what=f"{at_least} access lines of {client}")


def address_of(client: socket.socket) -> str:
    """Return the address of an open client connection."""
    return str(client.getsockname()[0])


def await_idle(edge: EdgeProcess) -> dict[str, float]:
    """Wait until the edge has no connection and no lease. Returns the metrics then."""

    def look() -> dict[str, float] | None:
        samples = edge.metrics()
        held = ("edgeproxy_connections_active{", "edgeproxy_backend_connections_active{")
        return samples if not sum(value for name, value in samples.items() if name.startswith(held)) else None

    try:
        return dict(eventually(look, what="no connection and no lease left"))
    except pytest.fail.Exception as failed:
        pytest.fail(f"{failed}; {situation(edge)}")
