"""Idle connections: the sink that accepts them (`python idle.py PORT`) and the client that opens them."""

import asyncio
import socket
import sys
from collections.abc import Callable

BACKLOG = 4096


class Hold(asyncio.Protocol):
    """Echo all data until the peer closes the connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


async def hold_all(port: int) -> None:
    """Serve the sink on a loopback port until killed."""
    server = await asyncio.get_running_loop().create_server(Hold, "127.0.0.1", port, backlog=BACKLOG)
    await server.serve_forever()


def echo(connection: socket.socket) -> bool:
    """Send one byte. Returns whether it was echoed."""
    connection.sendall(b".")
    return connection.recv(1) == b"."


def open_idle(port: int, count: int, proof: Callable[[socket.socket], bool] = echo) -> list[socket.socket]:
    """Open `count` connections through the proxy on `port`, and check that each reaches the upstream."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=10)
            opened.append(connection)
            if not proof(connection):
                raise ConnectionError(f"connection {len(opened)} of {count} was closed by the proxy")
    except BaseException:
        close_all(opened)
        raise
    return opened


def close_all(connections: list[socket.socket]) -> None:
    """Close the connections and clear the list."""
    while connections:
        connections.pop().close()


if __name__ == "__main__":
    asyncio.run(hold_all(int(sys.argv[1])))
