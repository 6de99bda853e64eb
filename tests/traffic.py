"""Clients that keep asking who serves them, and backends that say so: load for tests of what happens meanwhile."""

from __future__ import annotations

import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import gevent
from gevent.server import StreamServer

from tests.harness import EdgeProcess

_LOWEST_PORT, _HIGHEST_PORT = 12_000, 32_000
"""Below the kernel's ephemeral ports, which clients of other tests are given."""


def named(name: str) -> Callable[[socket.socket], None]:
    """Return an origin's handler: it answers every question with its name and a newline."""

    def serve(sock: socket.socket) -> None:
        try:
            while sock.recv(4096):
                sock.sendall(name.encode() + b"\n")
        except ConnectionError:
            pass  # the edge reset it, as tests make it do

    return serve


@contextmanager
def serving(handler: Callable[[socket.socket], object], host: str = "127.0.0.1") -> Iterator[int]:
    """Run an origin for the block; gives its port."""
    server = StreamServer((host, 0), lambda sock, _address: handler(sock), backlog=1024)
    server.start()
    try:
        yield int(server.server_port)
    finally:
        server.stop(timeout=0.1)


def ask(sock: socket.socket) -> str:
    """Ask on an open connection who serves it; "" when it has ended."""
    try:
        sock.sendall(b"who?")
        return sock.makefile("rb").readline().decode().strip()
    except ConnectionError:
        return ""


def who(edge: EdgeProcess, source: str = "", *, frontend: str = "") -> str:
    """Connect, ask who serves, close; "" when the edge reset the connection."""
    try:
        with edge.connect(source, frontend=frontend) as sock:
            return ask(sock)
    except ConnectionError:
        return ""


class Load:
    """A few clients, each from its own address, that ask over and over on new connections, and one that stays."""

    def __init__(self, edge: EdgeProcess, clients: int) -> None:
        self._edge = edge
        self.responses: Counter[str] = Counter()
        """Who answered how often; "" counts the connections that nobody served."""
        self.staying = edge.connect("127.0.1.1")
        self._greenlets = [gevent.spawn(self._go_on, f"127.0.1.{2 + number}") for number in range(clients)]

    def _go_on(self, source: str) -> None:
        while True:
            self.responses[who(self._edge, source)] += 1
            gevent.sleep(0.005)

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self.staying.close()
        for greenlet in self._greenlets:
            if not greenlet.successful():
                raise greenlet.exception
        assert self.responses, "the load never ran"


@contextmanager
def load(edge: EdgeProcess, clients: int = 3) -> Iterator[Load]:
    """Keep clients asking during the block."""
    one = Load(edge, clients)
    try:
        yield one
    finally:
        one.stop()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, for processes that must be told theirs beforehand."""
    ports: list[int] = []
    while len(ports) < count:
        port = random.randint(_LOWEST_PORT, _HIGHEST_PORT)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in ports:
            ports.append(port)
    return ports


def is_cut(sock: socket.socket) -> bool:
    """Wait for the end of a connection; say whether it was a reset, as the edge ends what it cuts."""
    try:
        while sock.recv(65536):
            pass
    except ConnectionResetError:
        return True
    return False
