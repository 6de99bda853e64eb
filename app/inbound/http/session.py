"""A client's HTTP connection: one request after the other, each by the configuration of its moment."""

from __future__ import annotations

import re
import socket
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

import gevent
from gevent.hub import get_hub
from greenlet import getcurrent
from loguru import logger

from app.domain.client import unmapped
from app.domain.errors import ConnectionEnded, DownstreamError, Killed
from app.domain.model import Lease
from app.domain.outcome import State
from app.inbound.access_log import ServedRequest
from app.inbound.connections import Connection
from app.inbound.frontend import LiveFrontend, OpenFrontend
from app.inbound.http.edge_responses import STATUS_OF, edge_response
from app.inbound.http.exchange import Exchange
from app.inbound.http.gateway import Handled
from app.inbound.http.stream import Stream
from app.inbound.tcp.direction import SinkError, SourceError
from app.inbound.tcp.relay import Relay, reset_on_close
from app.wire.http1 import RequestHead, parse_request
from app.wire.http1_faults import BadMessage

if TYPE_CHECKING:
    from app.inbound.http.server import HttpServer

CLOSING: Final = "closing"
"""The reason by which a connection that waits for its next request is ended."""
_LATE_HEAD: Final = (State.REQUEST_TIMEOUT, "head_timeout")
_NO_REQUEST: Final = (State.IDLE_TIMEOUT, "no_request")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")
_TURN_SECONDS: Final = 0.0005
"""A timer, because a callback alone would be run in the same turn."""
_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))
_CODES: Final = {int(code): str(int(code)) for code in HTTPStatus}
_LINGER_SECONDS: Final = 1.0
_LINGER_BYTES: Final = 1 << 20
"""Read and thrown away before we close on a client that still sends: a close with unread bytes is a reset, which may
overtake our answer (RFC 9112, section 9.6)."""


class HttpSession:
    """Serves the requests of one connection. The table of connections reads its progress."""

    def __init__(self, server: HttpServer, live: LiveFrontend, connection: Connection, client: Stream) -> None:
        self.server = server
        self.connection = connection
        self.client = client
        self.wake = getcurrent().switch
        self._live = live
        self._take_frontend(live.current)
        self.buffered = b""
        """Read from the client, and not understood yet."""
        self.has_client_ended = False
        """It sends nothing more; it may still wait for an answer."""
        self.started_at = 0.0
        """When the first byte of the request came, in monotonic seconds."""
        self._exchange: Exchange | None = None
        self._up_before = self._down_before = 0
        """Bytes of the requests before this one, to backends and to the client."""
        self._is_handed_over = False
        """To another protocol, or to a reset: there is no leave to take of the client."""
        self._has_answered_itself = False
        self._own_bytes = 0
        """Of our own answer to this request."""
        self._relay: Relay | None = None
        self._relay_state = State.NORMAL

    def _take_frontend(self, frontend: OpenFrontend) -> None:
        """Go by this configuration from now on."""
        self.frontend = self.connection.frontend = frontend
        address = unmapped(self.connection.source[0])
        self.connection.client = frontend.service.client(address)
        self.sender = frontend.headers.sender(address)
        self.shares_upstreams = frontend.config.tcp.send_proxy == "off"
        """A PROXY header speaks for one client alone."""

    @property
    def is_closing(self) -> bool:
        """No further request is wanted, or none will come."""
        return self._live.is_closing or (self.has_client_ended and not self.buffered)

    # What the table of connections reads

    @property
    def bytes_up(self) -> int:
        relayed = self._relay.bytes_up if self._relay is not None else 0
        return self._up_before + relayed + (self._exchange.bytes_up if self._exchange is not None else 0)

    @property
    def bytes_down(self) -> int:
        relayed = self._relay.bytes_down if self._relay is not None else 0
        return self._down_before + relayed + (self._exchange.bytes_down if self._exchange is not None else 0)

    @property
    def is_half_closed(self) -> bool:
        return self._relay is not None and self._relay.is_half_closed

    def keep_alive(self) -> None:
        if self._relay is not None:
            self._relay.keep_alive()
        elif self._exchange is not None:
            self._exchange.keep_alive()

    def notice_reset(self) -> None:
        if self._relay is not None:
            self._relay.notice_reset()

    # The requests

    def run(self, first: bytes) -> State:
        """Serve requests until one of both sides has had enough; returns how that came."""
        self.buffered = first
        while True:
            try:
                head = self._next_head()
            except BadMessage as bad:
                return self._refuse(State.REQUEST_BAD, bad.status, bad.reason)
            except ConnectionEnded as ended:
                status = STATUS_OF.get(ended.state)
                return self._refuse(ended.state, status, ended.reason) if status is not None else ended.state
            if head is None:
                return State.NORMAL
            state, goes_on = self._serve(head)
            if not goes_on:
                return state

    def _next_head(self) -> RequestHead | None:
        """Wait for a whole head; None when the client, or we, end between requests.

        Raises BadMessage (400, 431, 501, 505), ConnectionEnded.
        """
        connection, options = self.connection, self._live.current.config.http
        if self.buffered and self._has_answered_itself:
            self.give_others_a_turn()
        data, self.buffered = self.buffered, b""
        limit = options.max_head_bytes
        self.started_at = time.monotonic()
        while True:
            if data[:2] == b"\r\n":  # empty lines before a request are none of it (RFC 9112, section 2.2)
                size = len(data)
                data = _EMPTY_LINES.sub(b"", data, count=1)
                limit -= size - len(data)
            if not data and limit >= 0:
                data = self._first_of_head()
                if not data:
                    return None
                self.started_at = time.monotonic()
                continue
            if connection.late is _NO_REQUEST:
                connection.deadline = None
            connection.is_idle = False
            end = data.find(b"\r\n\r\n") + 4
            if 3 < end <= limit:
                break
            if len(data) > limit:
                raise BadMessage(431, "head_too_long")
            if connection.deadline is None:  # one deadline for the whole head
                connection.expect(options.head_timeout_seconds, _LATE_HEAD)
            more = self.receive()
            if not more:
                raise DownstreamError(State.CLIENT_GONE_IN_REQUEST, "client_gone")
            data += more
        connection.deadline = None
        if end < len(data):
            self.buffered = data[end:]
            data = data[:end]
        return parse_request(data)

    def give_others_a_turn(self) -> None:
        """Let the loop turn: our own answers need nothing of it, and a client could pipeline requests for ever."""
        self.client.unwatch()
        gevent.sleep(_TURN_SECONDS)

    def _first_of_head(self) -> bytes:
        """Wait for the next request; empty at the end of the connection."""
        connection, options = self.connection, self._live.current.config.http
        connection.is_idle = connection.has_served
        if connection.is_idle and self.is_closing:
            return b""
        seconds = options.keep_alive_timeout_seconds if connection.is_idle else options.head_timeout_seconds
        if connection.deadline is None:  # empty lines do not renew it
            connection.expect(seconds, _NO_REQUEST)
        try:
            data = self.receive()
        except Killed as killed:
            if killed.reason != CLOSING:
                raise
            data = self._last_request()
        return data

    def _last_request(self) -> bytes:
        """Return a request that is there already when its connection is to end: it is served still."""
        try:
            return self.client.receive() or b""
        except SourceError:
            return b""

    def receive(self) -> bytes:
        """Wait until the client sends something; empty at its end."""
        client, sleep = self.client, get_hub().switch
        client.watch(self.wake)
        try:
            while True:
                sleep()
                data = client.receive()
                if data is not None:
                    return data
        except SourceError:
            return b""

    def _serve(self, head: RequestHead) -> tuple[State, bool]:
        """Carry a request out and account for it; returns how it ended, and whether another may follow."""
        if self._live.current is not self.frontend:
            self._take_frontend(self._live.current)
        self.connection.begin_request()
        if self.frontend.config.gateway:
            ended = self._serve_by_handler(head)
            if ended is not None:
                return ended
        exchange = self._exchange = Exchange(self, head)
        state, reason, own_status, goes_on = State.INTERNAL_ERROR, None, None, False
        try:
            goes_on = exchange.run(self.buffered)
            state = self._relay_state
        except ConnectionEnded as ended:
            state, reason = ended.state, ended.reason
            own_status, goes_on = self._answer_instead(exchange, head, state, reason)
        except Exception:
            reason = "internal_error"
            logger.exception("request from {} failed", self.connection.peer[0])
            self.frontend.service.failed("request")
            own_status, _ = self._answer_instead(exchange, head, state, reason)
        finally:
            self._account(exchange, head, state, reason, own_status)
        if not goes_on and not self._is_handed_over:
            self._take_leave(is_request_read=exchange.is_request_read)
        return state, goes_on

    def _serve_by_handler(self, head: RequestHead) -> tuple[State, bool] | None:
        """Let a handler of the gateway answer; None when the request is for the frontend's pool."""
        request_id = self.frontend.headers.request_id(head, self.sender)
        handled, state, reason = Handled(self, head), State.INTERNAL_ERROR, None
        try:
            if not self.server.gateway.handle(handled, request_id.decode()):
                if self.frontend.has_pool:
                    return None
                handled.refuse(404, "no_endpoint", request_id.decode())
            state, reason = State.NORMAL, handled.reason
        except ConnectionEnded as ended:
            state, reason = ended.state, ended.reason
            status = STATUS_OF.get(state)
            if status is not None and not handled.bytes_down:
                handled.refuse(status, reason, request_id.decode())
                handled.goes_on = False
        except Exception:
            reason = "internal_error"
            logger.exception("request from {} failed", self.connection.peer[0])
            self.frontend.service.failed("request")
            if not handled.bytes_down:
                handled.refuse(500, reason, request_id.decode())
            handled.goes_on = False
        self._account_handled(handled, head, request_id, state, reason)
        goes_on = handled.goes_on and state is State.NORMAL
        if not goes_on and not self._is_handed_over:
            self._take_leave(is_request_read=handled.is_request_read)
        return state, goes_on

    def _account_handled(
        self, handled: Handled, head: RequestHead, request_id: bytes, state: State, reason: str | None
    ) -> None:
        """Count a request that a handler, or the gateway in its place, has answered, and write the access line."""
        now = time.monotonic()
        connection, name = self.connection, self.frontend.config.name
        connection.deadline, connection.quiet_since = None, now
        seconds = now - self.started_at
        up, down = handled.bytes_up, handled.bytes_down
        self.server.connections.moved("", "", down, up)
        self.server.requests.served(("", "", name, _code_label(handled.status), _method_label(head)), seconds)
        served = ServedRequest(
            head, request_id, handled.status, up, down, seconds, state, reason, handled.endpoint_id or None
        )
        self.server.access_log.request_ended(connection, served, now)

    def reset(self) -> None:
        """End the connection so that the client sees half an answer for what it is."""
        self._is_handed_over = True
        reset_on_close(self.client.sock)

    def _answer_instead(
        self, exchange: Exchange, head: RequestHead, state: State, reason: str
    ) -> tuple[int | None, bool]:
        """Answer a request that no backend has answered; returns the status, and whether another may follow."""
        status = STATUS_OF.get(state)
        if exchange.is_answered:
            self._is_handed_over = True
            reset_on_close(self.client.sock)  # half an answer must not look like a whole one
            return None, False
        if status is None:
            return None, False
        self._has_answered_itself = True
        goes_on = head.is_persistent and head.version == b"1.1" and exchange.is_request_read and not self.is_closing
        data = edge_response(
            status, reason, exchange.request_id.decode(), closes=not goes_on, has_body=head.method != b"HEAD"
        )
        return status, self._send_response(data) and goes_on

    def _send_response(self, data: bytes) -> bool:
        try:
            sent = self.client.send(data)
        except SinkError:
            return False
        self._own_bytes = sent
        return sent == len(data)

    def _refuse(self, state: State, status: int, reason: str) -> State:
        """Answer what is no request, and close: nobody knows where the next one would begin."""
        self.connection.begin_request()
        self._exchange = None
        self._send_response(edge_response(status, reason, None, closes=True))
        self._account(None, None, state, reason, status)
        self._linger()
        return state

    def _account(
        self, exchange: Exchange | None, head: RequestHead | None, state: State, reason: str | None, status: int | None
    ) -> None:
        """Say what the request tells of its backend, give the lease back, count, and write the access line."""
        now = time.monotonic()
        connection, service, lease = self.connection, self.frontend.service, self.connection.last_lease
        connection.deadline = None
        connection.quiet_since = now
        up, down = self._count_bytes(exchange)
        if exchange is not None and exchange.response is not None and status is None:
            status = exchange.response.status
        if connection.lease is not None and exchange is not None:
            self._judge(connection.lease, exchange.failure, status, state)
        if connection.lease_id:
            service.release(connection.lease_id)
            connection.lease = None
        request_id = exchange.request_id if exchange is not None else b""
        seconds = now - self.started_at
        backend = lease.backend.id if lease is not None else ""
        labels = (service.route.pool, backend, service.route.frontend, _code_label(status), _method_label(head))
        self.server.requests.served(labels, seconds)
        self.server.access_log.request_ended(
            connection, ServedRequest(head, request_id, status, up, down, seconds, state, reason), now
        )

    def _count_bytes(self, exchange: Exchange | None) -> tuple[int, int]:
        """Add this request's bytes to the connection's and to its backend's; returns those sent up and down."""
        up, down, connection = 0, 0, self.connection
        if exchange is not None:
            up, down = exchange.sent, exchange.response_bytes_sent
        if self._relay is not None:
            up, down = up + self._relay.bytes_up, down + self._relay.bytes_down
        self._exchange = self._relay = None
        self._up_before += up
        self._down_before += down
        pool, lease = self.frontend.service.route.pool, connection.last_lease
        if lease is not None:  # but for what a sweep has counted meanwhile
            unseen = self._down_before - connection.seen_bytes_down, self._up_before - connection.seen_bytes_up
            self.server.connections.moved(pool, lease.backend.id, *unseen)
            connection.seen_bytes_down, connection.seen_bytes_up = self._down_before, self._up_before
        if self._own_bytes:
            self.server.connections.moved(pool, "", self._own_bytes, 0)
            down, self._own_bytes = down + self._own_bytes, 0
        return up, down

    def _judge(self, lease: Lease, failure: str | None, status: int | None, state: State) -> None:
        """Tell the registry, once, what a request says of its backend: a failure, or that all went well."""
        service = self.frontend.service
        if failure is None and status in self.frontend.pool.health_check.passive_statuses:
            failure = f"status_{status}"
        if failure is not None:
            service.traffic_failed(lease.backend, failure)
        elif state is State.NORMAL:
            service.traffic_succeeded(lease)

    # Other ends

    def relay(self, upstream: Stream, first_down: bytes) -> None:
        """Copy both ways from now on: client and backend have agreed on another protocol. Raises Killed."""
        self._is_handed_over = True
        sock = upstream.release()
        self._relay = Relay(self.client.release(), sock, self.server.pipes)
        try:
            self._relay_state = self._relay.run(b"", self.buffered, first_down)
        finally:
            sock.close()

    def _take_leave(self, *, is_request_read: bool) -> None:
        """Before the connection is closed: if the client sends what nobody reads, see that it gets our answer."""
        try:
            has_unread = bool(self.buffered or self.client.sock.recv(1, socket.MSG_PEEK))
        except OSError:  # mostly nothing there
            has_unread = False
        if has_unread or not is_request_read:
            self._linger()

    def _linger(self) -> None:
        """Send our FIN, then read and throw away what the client still sends, within bounds."""
        client = self.client
        client.unwatch()
        left = _LINGER_BYTES
        try:
            client.sock.shutdown(socket.SHUT_WR)
            with gevent.Timeout(_LINGER_SECONDS, False):
                while left > 0:
                    data = self.receive()
                    if not data:
                        return
                    left -= len(data)
        except (OSError, Killed):
            return


def _code_label(status: int | None) -> str:
    """Return a status as a label: those that have a name, and classes for what else backends think of."""
    if status is None:
        return ""
    return _CODES.get(status) or f"{status // 100}xx"


def _method_label(head: RequestHead | None) -> str:
    if head is None:
        return ""
    return head.method.decode() if head.method in _METHODS else "other"
