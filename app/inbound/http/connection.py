"""A client's HTTP connection, as a state machine: read a head, respond, keep or close.

    READING --a head--> RESPONDING --may be kept--> KEPT --a head--> RESPONDING ...
       |                    |                         |
       +---- bad head ------+-------- done -----------+----> CLOSING

Each request is served by the frontend's configuration in force when its head is read.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Final

from loguru import logger

from app.domain.client import unmapped
from app.domain.errors import ConnectionEnded, DownstreamError, Killed
from app.domain.outcome import State
from app.inbound.connections import Connection
from app.inbound.frontend import OpenFrontend
from app.inbound.http.accounting import RequestAccounts
from app.inbound.http.edge_responses import STATUS_OF, edge_response
from app.inbound.http.responder import Ending, Outcome, Refusal, Request, Responder
from app.inbound.http.stream import ClientStream
from app.inbound.tcp.direction import SinkError
from app.inbound.tcp.relay import reset_on_close
from app.wire.http1 import RequestHead, parse_request
from app.wire.http1_faults import BadMessage
from app.wire.http1_forwarding import new_request_id
from app.wire.http1_framing import Framing
from app.wire.http1_rules import may_keep

CLOSING: Final = "closing"
"""The reason for ending a kept connection of a frontend that closes."""
_LATE_HEAD: Final = (State.REQUEST_TIMEOUT, "head_timeout")
_NO_REQUEST: Final = (State.IDLE_TIMEOUT, "no_request")
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)+")


class Phase(Enum):
    """Where a connection stands."""

    READING = auto()
    """The first request's head is awaited or has begun."""
    RESPONDING = auto()
    KEPT = auto()
    """A request was served; the next one is awaited or has begun."""
    CLOSING = auto()


class HttpConnection:
    """One client connection. The first of `responders` that takes a request serves it."""

    def __init__(
        self, connection: Connection, client: ClientStream, responders: Sequence[Responder], accounts: RequestAccounts
    ) -> None:
        self._connection = connection
        self._client = client
        self._responders = responders
        self._accounts = accounts
        self._phase = Phase.READING
        self._state = State.NORMAL
        """How the connection ended, once it is CLOSING."""
        self._started_at = 0.0
        """When the first byte of the request came, in monotonic seconds."""
        self._has_refused = False
        """The last response was the edge's own."""
        self._take_frontend(connection.live.current)

    def run(self, first: bytes) -> State:
        """Serve requests until the connection closes; return its termination state. `first` was read already."""
        self._client.buffered = first
        while self._phase is not Phase.CLOSING:
            head = self._read_request()
            if head is not None:
                self._serve(head)
        return self._state

    def _close(self, state: State) -> None:
        self._phase, self._state = Phase.CLOSING, state

    # READING and KEPT

    def _read_request(self) -> RequestHead | None:
        """Wait for a request; None when there is none and the connection is CLOSING."""
        try:
            data = self._read_head()
            if data:
                return parse_request(data)
            self._close(State.NORMAL)
        except BadMessage as bad:
            self._refuse_unread(State.REQUEST_BAD, bad.status, bad.reason)
        except ConnectionEnded as ended:
            status = STATUS_OF.get(ended.state)
            if status is not None:
                self._refuse_unread(ended.state, status, ended.reason)
            else:
                self._close(ended.state)
        return None

    def _read_head(self) -> bytes:
        """Wait for a whole head; empty when the client, or the edge, ends between requests.

        What comes after the head stays in the client's buffer. Raises BadMessage (431), ConnectionEnded.
        """
        client, connection, options = self._client, self._connection, self._connection.live.current.config.http
        if client.buffered and self._has_refused:
            client.let_others_run()
        data, limit, searched = client.buffered, options.max_head_bytes, 0
        client.buffered = b""
        self._started_at = time.monotonic()
        while True:
            if data[:2] == b"\r\n":  # empty lines before a request are not part of it (RFC 9112, section 2.2)
                size = len(data)
                data = _EMPTY_LINES.sub(b"", data, count=1)
                limit -= size - len(data)
            if not data and limit >= 0:
                data = self._await_request()
                if not data:
                    return b""
                self._started_at = time.monotonic()
                continue
            if connection.late is _NO_REQUEST:
                connection.deadline = None
            connection.is_idle = False
            end = data.find(b"\r\n\r\n", searched) + 4  # 3: not found
            if 3 < end <= limit:
                break
            if len(data) > limit:
                raise BadMessage(431, "head_too_long")
            if connection.deadline is None:  # one deadline for the whole head
                connection.expect(options.head_timeout_seconds, _LATE_HEAD)
            searched = max(0, len(data) - 3)
            more = client.read()
            if not more:
                raise DownstreamError(State.CLIENT_GONE_IN_REQUEST, "client_gone")
            data += more
        connection.deadline = None
        if end < len(data):
            client.buffered, data = data[end:], data[:end]
        return data

    def _await_request(self) -> bytes:
        """Wait for a request's first bytes; empty at the end of the connection."""
        client, connection, options = self._client, self._connection, self._connection.live.current.config.http
        connection.is_idle = self._phase is Phase.KEPT
        if connection.is_idle and (connection.live.is_closing or client.has_ended):
            return b""
        seconds = options.keep_alive_timeout_seconds if connection.is_idle else options.head_timeout_seconds
        if connection.deadline is None:  # empty lines do not renew it
            connection.expect(seconds, _NO_REQUEST)
        try:
            return client.read()
        except Killed as killed:
            if killed.reason != CLOSING:
                raise
            return client.read_at_once()  # a request that has already arrived is still served

    # RESPONDING

    def _take_frontend(self, frontend: OpenFrontend) -> None:
        """Serve by this configuration from now on."""
        self._frontend = self._connection.frontend = frontend
        address = unmapped(self._connection.source[0])
        self._connection.client = frontend.service.client(address)
        self._sender = frontend.headers.sender(address)
        self._serving = [responder for responder in self._responders if responder.serves(frontend)]

    def _serve(self, head: RequestHead) -> None:
        """Serve a request, account for it, and keep the connection or close it."""
        connection, client = self._connection, self._client
        self._phase = Phase.RESPONDING
        if connection.live.current is not self._frontend:
            self._take_frontend(connection.live.current)
        connection.begin_request()
        request = Request(head, client, connection, self._frontend, self._sender)
        outcome = self._respond(request)
        keeps, own_bytes = outcome.ending is Ending.KEEP, 0
        self._has_refused = outcome.refusal is not None
        if outcome.refusal is not None:
            keeps, own_bytes = self._refuse(request, outcome, outcome.refusal)
        elif outcome.ending is Ending.RESET:
            reset_on_close(client.sock)
        self._accounts.settle(connection, head, outcome, own_bytes, self._started_at)
        if keeps:
            self._phase = Phase.KEPT
            return
        self._close(outcome.state)
        if outcome.ending is Ending.CLOSE:
            self._linger(is_request_read=outcome.is_request_read)

    def _respond(self, request: Request) -> Outcome:
        """Let the responders of the frontend serve a request; errors become its outcome."""
        for responder in self._serving:
            work = self._connection.progress = responder.begin(request)
            try:
                outcome = work.run()
            except ConnectionEnded as ended:
                outcome = work.failed(ended.state, ended.reason)
            except Exception:
                logger.exception("request from {} failed", self._connection.peer[0])
                self._frontend.service.failed("request")
                outcome = work.failed(State.INTERNAL_ERROR, "internal_error")
            if outcome is not None:
                return outcome
        return Outcome(
            State.NORMAL,
            "no_endpoint",
            None,
            Ending.CLOSE,
            is_request_read=request.head.framing is Framing.NONE,
            refusal=Refusal(404),
            request_id=self._frontend.headers.request_id(request.head, self._sender),
        )

    # The edge's own responses

    def _refuse(self, request: Request, outcome: Outcome, refusal: Refusal) -> tuple[bool, int]:
        """Send a response of the edge's own; return whether another request may follow, and the bytes sent."""
        head = request.head
        keeps = outcome.state is not State.INTERNAL_ERROR and may_keep(
            head, is_request_read=outcome.is_request_read, is_closing=request.is_last
        )
        data = edge_response(
            refusal.status,
            outcome.reason or "",
            outcome.request_id.decode(),
            self._frontend.config.http.error_bodies,
            closes=not keeps,
            has_body=head.method != b"HEAD",
            extra=refusal.headers,
        )
        sent = self._send_refusal(data)
        return keeps and sent == len(data), sent

    def _refuse_unread(self, state: State, status: int, reason: str) -> None:
        """Respond to a bad or late head, and close: the start of the next request is unknown."""
        self._connection.begin_request()
        request_id, bodies = new_request_id(), self._frontend.config.http.error_bodies
        sent = self._send_refusal(edge_response(status, reason, request_id.decode(), bodies, closes=True))
        outcome = Outcome(
            state,
            reason,
            None,
            Ending.CLOSE,
            is_request_read=False,
            refusal=Refusal(status),
            request_id=request_id,
            pool=self._frontend.service.route.pool,
        )
        self._accounts.settle(self._connection, None, outcome, sent, self._started_at)
        self._close(state)
        self._linger(is_request_read=False)

    def _send_refusal(self, data: bytes) -> int:
        """Send without waiting, because a client that does not read must not hold anything; return the bytes sent."""
        try:
            return self._client.send(data)
        except SinkError:
            return 0

    # CLOSING

    def _linger(self, *, is_request_read: bool) -> None:
        with suppress(Killed):
            self._client.linger(is_request_read=is_request_read)
