"""Serves the connections of HTTP frontends: lets them in, hands each to a session, accounts for its end."""

from __future__ import annotations

import _socket
import socket
import time

from greenlet import getcurrent
from loguru import logger

from app.domain.errors import ConnectionEnded
from app.domain.outcome import State
from app.inbound.access_log import AccessLog
from app.inbound.admission import admit
from app.inbound.connections import Connection, Connections
from app.inbound.frontend import LiveFrontend
from app.inbound.greenlets import ReusedGreenlets
from app.inbound.http.edge_responses import STATUS_OF, edge_response
from app.inbound.http.gateway import Gateway
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.session import CLOSING, HttpSession
from app.inbound.http.stream import Stream
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.pipes import PipePool
from app.inbound.tcp.relay import reset_on_close


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
        gateway: Gateway,
    ) -> None:
        self._max_connections = max_connections
        self.connections = connections
        self.access_log = access_log
        self.requests = requests
        self.pipes = pipes
        self.idle = idle
        self.gateway = gateway
        self._greenlets = ReusedGreenlets(self._serve)

    def accept(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Take over an accepted socket. Called by the event loop: does not wait."""
        self._greenlets.run(live, descriptor, peer, listener)

    def _serve(self, live: LiveFrontend, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Live a connection's whole life. Every path ends in the accounting."""
        family = socket.AF_INET6 if len(peer) > 2 else socket.AF_INET
        downstream = _socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
        downstream.setblocking(False)
        connection = Connection(getcurrent(), live, peer, listener, time.monotonic())
        connection.has_succeeded = True  # its requests tell
        self.connections.add(connection)
        client: Stream | None = None
        state = State.INTERNAL_ERROR
        try:
            first = admit(connection, downstream, self.connections, self._max_connections)
            client = Stream(downstream)
            session = HttpSession(self, live, connection, client)
            connection.relay = session
            state = session.run(first)
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
            self.connections.remove(connection)
            connection.frontend.service.closed(connection.admitted, connection.admission, state)

    def _turn_away(self, connection: Connection, downstream: _socket.socket, state: State, reason: str) -> None:
        """End a connection that was not let in."""
        if state is State.CLIENT_LIMIT:
            try:
                downstream.send(edge_response(STATUS_OF[state], reason, None, closes=True))
            except OSError:
                reset_on_close(downstream)
        else:
            reset_on_close(downstream)
        self.access_log.connection_ended(connection, state, reason, time.monotonic())

    def end_idle(self) -> None:
        """End, at doors that are closing, the connections that wait for their next request."""
        self.connections.end_idle(CLOSING)

    def stop(self) -> None:
        """Let go of the idle connections to backends."""
        self.idle.close()

    def sweep(self) -> None:
        self.idle.sweep(time.monotonic())
