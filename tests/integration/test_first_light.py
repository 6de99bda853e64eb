"""One connection, end to end."""

import socket

from tests.harness import eventually, row


def echo(sock: socket.socket) -> None:
    while data := sock.recv(65536):
        sock.sendall(data)


def test_bytes_come_back_and_are_accounted_for(edge, origin):
    proxy = edge([row("a", origin(echo))])
    with proxy.connect() as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b""
    line = eventually(proxy.access_lines)[0]
    assert (line["backend"], line["bytes_up"], line["bytes_down"], line["termination"]) == ("a", 5, 5, "--")
    assert proxy.stop() == 0
