"""Leases a backend and connects to it; if that fails, tries others within limits. No byte has been sent yet."""

from __future__ import annotations

import _socket
import time
from typing import Final

from loguru import logger

from app.domain.errors import DialError, NoBackendError
from app.domain.model import Lease
from app.domain.outcome import Affinity
from app.inbound.connections import Connection
from app.inbound.dialer import dial

_TOTAL_DIAL_TIMEOUTS: Final = 2
"""Limit for all attempts together, in connect timeouts."""
_SHORTEST_DIAL_SECONDS: Final = 0.001


def lease_backend(connection: Connection, tried: tuple[str, ...] = ()) -> Lease:
    """Lease a backend that is not in `tried`, and record the lease. Raises NoBackendError, AskTimeoutError."""
    service, client = connection.frontend.service, connection.client
    assert client is not None
    started = time.monotonic()
    connection.lease_id = service.next_lease_id()
    try:
        lease = service.lease(connection.lease_id, client, tried)
    finally:
        connection.lease_seconds += time.monotonic() - started
    connection.lease = connection.last_lease = lease
    return lease


def dial_leased(connection: Connection, lease: Lease) -> _socket.socket:
    """Connect to the leased backend; if that fails, lease and try others.

    Raises the last DialError, NoBackendError, UpstreamError (this host is out of resources), AskTimeoutError.
    """
    service, client, options = connection.frontend.service, connection.client, connection.frontend.config.tcp
    assert client is not None
    deadline = time.monotonic() + _TOTAL_DIAL_TIMEOUTS * options.connect_timeout_seconds
    tried: tuple[str, ...] = ()
    former: str | None = None
    while True:
        connection.attempts += 1
        started = time.monotonic()
        try:
            timeout = min(options.connect_timeout_seconds, max(_SHORTEST_DIAL_SECONDS, deadline - started))
            upstream = dial(lease.backend.host, lease.backend.port, timeout)
        except DialError as error:
            connection.connect_seconds += time.monotonic() - started
            connection.lease = None
            service.dial_failed(lease, client, error.reason, former)
            former = lease.backend.id if lease.affinity is Affinity.HIT else former
            logger.debug("client {}: cannot connect to backend {}: {}", client.address, lease.backend.id, error.reason)
            tried = (*tried, lease.backend.id)
            if len(tried) >= options.connect_attempts or time.monotonic() >= deadline:
                raise
            try:
                lease = lease_backend(connection, tried)
            except NoBackendError:  # report the failed connect, not the lack of another backend
                raise error from None
        else:
            seconds = time.monotonic() - started
            connection.connect_seconds += seconds
            service.connected(lease, client, seconds)
            return upstream
