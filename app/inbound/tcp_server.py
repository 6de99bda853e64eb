"""The story of a connection: who is it, which backend, connect, copy, account for it. One greenlet, top to bottom."""

from __future__ import annotations

import _socket
import socket
import time
from dataclasses import dataclass
from typing import Final, Literal

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent, greenlet
from loguru import logger

from app.domain.client import unmapped
from app.domain.errors import ConnectionEnded, DialError, DownstreamError, NoBackendError
from app.domain.model import Lease
from app.domain.outcome import Affinity, Refusal, State
from app.inbound.access_log import AccessLog
from app.inbound.connections import Connection, Connections
from app.inbound.dialer import dial
from app.inbound.pipes import PipePool
from app.inbound.proxy_header import TrustedProxies, read_proxy_header
from app.inbound.relay import Relay, reset_on_close
from app.proxy_service import Client, ProxyService
from app.wire import proxy_protocol

_TOTAL_DIAL_TIMEOUTS: Final = 2
"""All attempts together take at most this many connect timeouts."""
_SHORTEST_DIAL_SECONDS: Final = 0.001
_IDLE_GREENLETS: Final = 256
"""Kept for the next connections, 6 KiB each."""

_HEADER_REFUSALS: Final = {
    State.HEADER_BAD: Refusal.BAD_PROXY_HEADER,
    State.HEADER_TIMEOUT: Refusal.SLOW_PROXY_HEADER,
}

Accepted = tuple[int, tuple[str, int], str]
"""Descriptor, peer and listener of an accepted connection."""


@dataclass(frozen=True, slots=True)
class TcpOptions:
    """What the configuration says about connections. `proxy_version` None sends no PROXY header upstream."""

    max_connections: int
    connect_timeout_seconds: float
    connect_attempts: int
    proxy_version: Literal[1, 2] | None


class TcpServer:
    """Serves accepted connections, each in a greenlet of its own."""

    def __init__(
        self,
        options: TcpOptions,
        service: ProxyService,
        connections: Connections,
        trusted: TrustedProxies,
        access_log: AccessLog,
        pipes: PipePool,
    ) -> None:
        self._options = options
        self._service = service
        self._connections = connections
        self._trusted = trusted
        self._access_log = access_log
        self._pipes = pipes
        self._idle_greenlets: list[greenlet] = []

    def accept(self, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Take over an accepted socket. Called by the event loop: does not wait."""
        if self._idle_greenlets:
            get_hub().loop.run_callback(self._idle_greenlets.pop().switch, (descriptor, peer, listener))
        else:
            gevent.spawn_raw(self._serve_one_after_another, (descriptor, peer, listener))

    def _serve_one_after_another(self, accepted: Accepted) -> None:
        """Serve connections until enough greenlets are idle: a new one costs an mmap, a munmap and a page fault."""
        hub, me = get_hub(), getcurrent()
        while True:
            self._serve(*accepted)
            if len(self._idle_greenlets) >= _IDLE_GREENLETS:
                return
            self._idle_greenlets.append(me)
            accepted = hub.switch()

    def _serve(self, descriptor: int, peer: tuple[str, int], listener: str) -> None:
        """Live a connection's whole life. Every path ends in the accounting."""
        family = socket.AF_INET6 if len(peer) > 2 else socket.AF_INET
        downstream = _socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, descriptor)
        downstream.setblocking(False)
        connection = Connection(getcurrent(), peer, listener, time.monotonic())
        self._connections.add(connection)
        upstream: _socket.socket | None = None
        state, reason = State.INTERNAL_ERROR, None
        try:
            first_bytes = self._admit(connection, downstream)
            upstream = self._connect(connection)
            version = self._options.proxy_version
            header = self._proxy_header(connection, downstream, version) if version is not None else b""
            connection.relay = relay = Relay(downstream, upstream, self._pipes)
            state = relay.run(header, first_bytes)
        except ConnectionEnded as ended:
            state, reason = ended.state, ended.reason
            if upstream is None:
                reset_on_close(downstream)
        except Exception:
            reason = "internal_error"
            reset_on_close(downstream)
            logger.exception("connection from {} failed", peer[0])
            self._service.failed("connection")
        finally:
            downstream.close()
            if upstream is not None:
                upstream.close()
            self._account(connection, state, reason)

    def _admit(self, connection: Connection, downstream: _socket.socket) -> bytes:
        """Find out who the client is; returns what it sent after its PROXY header, if it had to send one."""
        if len(self._connections) > self._options.max_connections:
            self._service.refused(Refusal.MAX_CONNECTIONS)
            raise DownstreamError(State.CLIENT_LIMIT, Refusal.MAX_CONNECTIONS)
        rest = b""
        if connection.peer[0] in self._trusted:
            try:
                header, rest = read_proxy_header(downstream)
            except DownstreamError as error:
                self._service.refused(_HEADER_REFUSALS.get(error.state, Refusal.CLIENT_GONE))
                raise
            connection.source = header.source or connection.source
            connection.destination = header.destination
        connection.client = self._service.client(unmapped(connection.source[0]))
        return rest

    def _connect(self, connection: Connection) -> _socket.socket:
        """Lease a backend and connect to it; try others, within limits, while no byte has been sent.

        Raises NoBackendError, DownstreamError (client limits), or the last DialError.
        """
        options, service, client = self._options, self._service, connection.client
        assert client is not None
        deadline = time.monotonic() + _TOTAL_DIAL_TIMEOUTS * options.connect_timeout_seconds
        tried: tuple[str, ...] = ()
        failure: DialError | None = None
        former: str | None = None
        while True:
            lease = self._lease(connection, client, tried, failure)
            connection.attempts += 1
            started = time.monotonic()
            try:
                timeout = min(options.connect_timeout_seconds, max(_SHORTEST_DIAL_SECONDS, deadline - started))
                upstream = dial(lease.backend.host, lease.backend.port, timeout)
            except DialError as error:
                failure = error
                connection.connect_seconds += time.monotonic() - started
                connection.lease = None
                service.dial_failed(lease, client, error.reason, former)
                former = lease.backend.id if lease.affinity is Affinity.HIT else former
                logger.debug("client {}: backend {} did not answer: {}", client.address, lease.backend.id, error.reason)
                tried = (*tried, lease.backend.id)
                if len(tried) >= options.connect_attempts or time.monotonic() >= deadline:
                    raise
            else:
                seconds = time.monotonic() - started
                connection.connect_seconds += seconds
                service.connected(lease, client, seconds)
                return upstream

    def _lease(
        self, connection: Connection, client: Client, tried: tuple[str, ...], failure: DialError | None
    ) -> Lease:
        """Lease a backend not tried yet, and write it down; with none left the failed dial is the reason."""
        started = time.monotonic()
        connection.lease_id = self._service.next_lease_id()
        connection.admission = connection.admission or connection.lease_id
        try:
            lease = self._service.lease(connection.lease_id, client, tried, connection.admission)
        except NoBackendError:
            if failure is not None:
                raise failure from None
            raise
        finally:
            connection.lease_seconds += time.monotonic() - started
        connection.lease = connection.last_lease = lease
        return lease

    def _proxy_header(self, connection: Connection, downstream: _socket.socket, version: Literal[1, 2]) -> bytes:
        """Return the header that tells the backend who the client is and where it connected to."""
        destination = connection.destination or downstream.getsockname()
        return proxy_protocol.encode(version, connection.source[:2], destination[:2])

    def _account(self, connection: Connection, state: State, reason: str | None) -> None:
        """Give the lease back, count, and write the access line."""
        self._connections.remove(connection)
        if connection.lease_id:
            self._service.release(connection.lease_id)
        self._service.closed(connection.client, connection.admission, state)
        self._access_log.connection_ended(connection, state, reason, time.monotonic())
