"""Reaches a backend for a request: leases one, and takes an idle connection to it or dials."""

from __future__ import annotations

from app.inbound.connections import Connection
from app.inbound.http.stream import UpstreamStream
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.upstream import dial_leased, lease_backend


def reach_backend(connection: Connection, idle: UpstreamPool | None) -> UpstreamStream:
    """Return a connection to a leased backend; `idle` is None where connections are not shared.

    Raises NoBackendError, DialError, UpstreamError, AskTimeoutError.
    """
    lease = lease_backend(connection)
    upstream = idle.take(lease.backend) if idle is not None else None
    if upstream is None:
        return dial_backend(connection)
    assert connection.client is not None
    connection.attempts += 1
    connection.frontend.service.keep(lease, connection.client)
    return upstream


def dial_backend(connection: Connection) -> UpstreamStream:
    """Return a fresh connection to the leased backend, or to another leased in its place. Raises as reach_backend."""
    assert connection.lease is not None
    sock = dial_leased(connection, connection.lease)
    backend = connection.lease.backend
    return UpstreamStream(sock, (backend.host, backend.port))
