"""Serves the connections of HTTP frontends: admits them, serves each, accounts for its end."""

from __future__ import annotations

import _socket
import time
from collections.abc import Mapping
from typing import Final

from greenlet import getcurrent
from loguru import logger

from app.config.http_options import ErrorBody
from app.domain.errors import ConnectionEnded, Killed
from app.domain.outcome import Refusal, State
from app.inbound.access_log import AccessLog
from app.inbound.admission import accepted_socket, admit
from app.inbound.connections import NO_PROGRESS, Connection, Connections
from app.inbound.event_loop import ReusedGreenlets
from app.inbound.frontend import LiveFrontend
from app.inbound.http.accounting import RequestAccounts
from app.inbound.http.connection import CLOSING, HttpConnection
from app.inbound.http.edge_responses import edge_response
from app.inbound.http.proxying import Proxying
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.responder import Responder
from app.inbound.http.stream import ClientStream
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.pipes import PipePool
from app.inbound.tcp.direction import SinkError
from app.inbound.tcp.relay import reset_on_close
from app.wire.http1_forwarding import new_request_id

MOST_LINGERING: Final = 64
"""Refused connections that may wait for their request at once, 1 s at most; beyond these, responses may be lost."""


class HttpServer:
    """Serves the accepted connections of all HTTP frontends, at most `max_connections` in the process."""

    def __init__(
        self,
        max_connections: int,
        connections: Connections,
        access_log: AccessLog,
        requests: RequestTally,
        pipes: PipePool,
        idle: UpstreamPool,
        handling: Responder,
    ) -> None:
        self._max_connections = max_connections
        self._connections = connections
        self._access_log = access_log
        self._idle = idle
        self._accounts = RequestAccounts(connections, requests, access_log)
        self._responders = (handling, Proxying(pipes, idle))
        self._greenlets = ReusedGreenlets(self._serve)
        self._lingering = 0
        """Refused connections that are still open."""

    def accept(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Take over an accepted socket. Called by the event loop: does not wait."""
        self._greenlets.run(live, descriptor, peer, listener)

    def _serve(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Serve a connection from start to end. Every path ends in the accounting."""
        downstream = accepted_socket(descriptor, peer)
        connection = Connection(getcurrent(), live, peer, listener, time.monotonic())
        connection.has_succeeded = True  # its requests tell
        self._connections.add(connection)
        client: ClientStream | None = None
        state = State.INTERNAL_ERROR
        try:
            first = admit(connection, downstream, self._connections, self._max_connections)
            client = ClientStream(downstream)
            connection.progress = NO_PROGRESS
            state = HttpConnection(connection, client, self._responders, self._accounts).run(first)
        except ConnectionEnded as ended:
            state = ended.state
            self._turn_away(connection, downstream, state, ended.reason)
        except Exception:
            logger.exception("connection from {} failed", peer[0])
            connection.frontend.service.failed("connection")
            reset_on_close(downstream)
        finally:
            if client is not None:
                client.release()
            downstream.close()
            self._connections.remove(connection)
            connection.frontend.service.closed(connection.admitted, connection.admission, state)

    def _turn_away(self, connection: Connection, downstream: _socket.socket, state: State, reason: str) -> None:
        """End a connection that was not admitted."""
        request_id = None
        if state is State.CLIENT_LIMIT:
            request_id = new_request_id().decode()
            self._refuse(downstream, reason, request_id, connection.frontend.config.http.error_bodies)
        else:
            reset_on_close(downstream)
        self._access_log.connection_ended(connection, state, reason, time.monotonic(), request_id)

    def _refuse(
        self, downstream: _socket.socket, reason: str, request_id: str, bodies: Mapping[int, ErrorBody]
    ) -> None:
        """Respond to a connection over a limit: 503, or 429 for a limit of its client (RFC 6585, section 4)."""
        is_of_all = reason == Refusal.MAX_CONNECTIONS
        extra = () if is_of_all else (("Retry-After", "1"),)
        client = ClientStream(downstream)
        try:
            status = 503 if is_of_all else 429
            client.send(edge_response(status, reason, request_id, bodies, closes=True, extra=extra))
            if self._lingering < MOST_LINGERING:  # wait for the request: a close before it comes resets the response
                self._lingering += 1
                try:
                    client.linger(is_request_read=False)
                finally:
                    self._lingering -= 1
        except (SinkError, Killed):
            reset_on_close(downstream)
        finally:
            client.release()

    def end_idle(self) -> None:
        """End, of closing frontends, the connections that wait for their next request."""
        self._connections.end_idle(CLOSING)

    def stop(self) -> None:
        """Let go of the idle connections to backends."""
        self._idle.close()

    def sweep(self) -> None:
        self._idle.sweep(time.monotonic())
