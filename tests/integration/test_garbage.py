"""Connections leave no reference cycles: old objects are collected only while the edge is idle (app.edge.garbage)."""

import gc
import socket

from tests.edge_in_process import edge_in_process
from tests.harness import eventually, row

WARM_UP, COUNTED = 20, 200


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def test_connections_leave_no_cycles(tmp_path, origin):
    with edge_in_process(tmp_path, [row("a", origin(echo))]) as edge:
        thresholds = gc.get_threshold()
        gc.disable()
        try:
            live(edge, WARM_UP)
            gc.collect()
            live(edge, COUNTED)
            assert gc.collect() < COUNTED, "less than one unreachable object a connection"
        finally:
            gc.enable()
            gc.set_threshold(*thresholds)


def live(edge, count: int) -> None:
    """Let so many connections come, speak and go."""
    for _ in range(count):
        with edge.connect() as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"hello"
    eventually(lambda: len(edge.parts.data_plane.connections) == 0)
