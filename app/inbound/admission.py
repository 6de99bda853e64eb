"""Admission of a connection: the connection limits, the PROXY header, the client and its limits."""

from __future__ import annotations

import _socket
import socket
from typing import Final, Literal

from app.domain.client import unmapped
from app.domain.errors import DownstreamError
from app.domain.outcome import Refusal, State
from app.inbound.connections import Connection, Connections
from app.inbound.proxy_header import read_proxy_header
from app.wire import proxy_protocol

_HEADER_REFUSALS: Final = {
    State.HEADER_BAD: Refusal.BAD_PROXY_HEADER,
    State.HEADER_TIMEOUT: Refusal.SLOW_PROXY_HEADER,
}
_PROXY_VERSIONS: Final[dict[str, Literal[1, 2]]] = {"v1": 1, "v2": 2}


def accepted_socket(descriptor: int, peer: tuple[str, int]) -> _socket.socket:
    """Return the non-blocking socket of a descriptor that accept() returned with this peer's address."""
    family = socket.AF_INET6 if len(peer) > 2 else socket.AF_INET
    downstream = _socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
    downstream.setblocking(False)
    return downstream


def admit(connection: Connection, downstream: _socket.socket, connections: Connections, max_connections: int) -> bytes:
    """Identify the client and check the limits. Returns the bytes received after a required PROXY header.

    Raises DownstreamError if the process, the frontend or the client is over a limit, or the header is bad.
    """
    frontend = connection.frontend
    service, name, limits = frontend.service, frontend.config.name, frontend.config.limits
    if len(connections) > max_connections or 0 < limits.max_connections < connections.open_at[name]:
        service.refused(Refusal.MAX_CONNECTIONS)
        raise DownstreamError(State.CLIENT_LIMIT, Refusal.MAX_CONNECTIONS)
    rest = b""
    if connection.peer[0] in frontend.proxies:
        try:
            header, rest = read_proxy_header(downstream)
        except DownstreamError as error:
            service.refused(_HEADER_REFUSALS.get(error.state, Refusal.CLIENT_GONE))
            raise
        connection.source = header.source or connection.source
        connection.destination, connection.tlvs = header.destination, header.tlvs
    client = connection.client = service.client(unmapped(connection.source[0]))
    if service.route.has_client_limits:
        connection.admission = service.next_lease_id()
        service.admit(client, connection.admission)
        connection.admitted = client
    return rest


def proxy_header(connection: Connection, downstream: _socket.socket) -> bytes:
    """Return the PROXY header for the backend, or b"" if the frontend sends none."""
    version = _PROXY_VERSIONS.get(connection.frontend.config.tcp.send_proxy)
    if version is None:
        return b""
    destination = connection.destination or downstream.getsockname()
    return proxy_protocol.encode(version, connection.source[:2], destination[:2], connection.tlvs)
