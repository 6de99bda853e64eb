"""A TCP connection in one greenlet, top to bottom: admit it, lease a backend, connect, copy, account for it."""

from __future__ import annotations

import _socket
import time
from functools import partial

from greenlet import getcurrent
from loguru import logger

from app.domain.errors import ConnectionEnded
from app.domain.outcome import State
from app.inbound.access_log import AccessLog
from app.inbound.admission import accepted_socket, admit, proxy_header
from app.inbound.connections import Connection, Connections
from app.inbound.event_loop import ReusedGreenlets
from app.inbound.frontend import LiveFrontend
from app.inbound.pipes import PipePool
from app.inbound.tcp.relay import Relay, reset_on_close
from app.inbound.upstream import dial_leased, lease_backend


class TcpServer:
    """Serves the accepted connections of all TCP frontends, at most `max_connections` in the process."""

    def __init__(self, max_connections: int, connections: Connections, access_log: AccessLog, pipes: PipePool) -> None:
        self._max_connections = max_connections
        self._connections = connections
        self._access_log = access_log
        self._pipes = pipes
        self._greenlets = ReusedGreenlets(self._serve)

    def accept(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Take over an accepted socket. Called by the event loop: does not wait."""
        self._greenlets.run(live, descriptor, peer, listener)

    def _serve(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Serve a connection from start to end. Every path ends in `_account`."""
        downstream = accepted_socket(descriptor, peer)
        connection = Connection(getcurrent(), live, peer, listener, time.monotonic())
        self._connections.add(connection)
        upstream: _socket.socket | None = None
        state, reason = State.INTERNAL_ERROR, None
        try:
            first_bytes = admit(connection, downstream, self._connections, self._max_connections)
            upstream = dial_leased(connection, lease_backend(connection))
            header = proxy_header(connection, downstream)
            release = partial(connection.frontend.service.release, connection.lease_id)  # no slow client holds it then
            connection.progress = relay = Relay(downstream, upstream, self._pipes, release)
            state = relay.run(header, first_bytes)
        except ConnectionEnded as ended:  # a cut is a reset: a clean end would look like the end of the data
            state, reason = ended.state, ended.reason
            reset_on_close(downstream)
            if upstream is not None:
                reset_on_close(upstream)
        except Exception:
            reason = "internal_error"
            reset_on_close(downstream)
            logger.exception("connection from {} failed", peer[0])
            connection.frontend.service.failed("connection")
        finally:
            downstream.close()
            if upstream is not None:
                upstream.close()
            self._account(connection, state, reason)

    def _account(self, connection: Connection, state: State, reason: str | None) -> None:
        """Report the backend's success or failure, release the lease, count, and write the access line."""
        service, lease, progress = connection.frontend.service, connection.lease, connection.progress
        if state is State.NORMAL and lease is not None:  # also if the backend has sent nothing
            service.traffic_succeeded(lease)
        elif state is State.SERVER_RESET and lease is not None and progress is not None and not progress.bytes_down:
            service.traffic_failed(lease.backend, "reset_before_a_byte")
        else:
            connection.report_success()
        self._connections.remove(connection)
        if connection.lease_id:
            service.release(connection.lease_id)
        service.closed(connection.admitted, connection.admission, state)
        self._access_log.connection_ended(connection, state, reason, time.monotonic())
