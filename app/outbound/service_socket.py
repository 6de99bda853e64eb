"""Opens a TCP connection to a service. Every failed attempt closes its socket, also on a gevent.Timeout or kill."""

from __future__ import annotations

import socket


def open_socket(host: str, port: int, timeout_s: float) -> socket.socket:
    """Connect to the first address of a host that accepts. Returns a socket without a timeout. Raises OSError."""
    failure: OSError | None = None
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            sock.connect(address)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.settimeout(None)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or OSError(f"{host} has no address")
