"""One request and its answer: lease a backend, send, wait, pass the answer on. Both bodies flow at once.

The greenlet sleeps in two places only, until the answer's head is there and until its body is passed on, and is woken
with whoever can move: the backend's stream, the client's, or a flow whose sink takes more.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any, Final

from gevent.hub import get_hub

from app.config import ListenAddress
from app.domain.errors import DownstreamError, ResponseError
from app.domain.outcome import State
from app.inbound.admission import proxy_header
from app.inbound.dialer import set_keepalive
from app.inbound.http.flow import Flow
from app.inbound.http.forwarding import may_upgrade
from app.inbound.http.stream import Stream
from app.inbound.tcp.direction import SinkError, SourceError
from app.inbound.upstream import dial_leased, lease_backend
from app.wire.http1 import RequestHead, ResponseHead, parse_response
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing

if TYPE_CHECKING:
    from app.inbound.http.session import HttpSession

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""
MOST_INTERIM_RESPONSES: Final = 64
"""1xx before the final answer. Without end they would hold the event loop for as long as an answer may take."""
_SWITCHING_PROTOCOLS: Final = 101
_LATE_RESPONSE: Final = (State.RESPONSE_TIMEOUT, "response_timeout")


def _authority(address: tuple[str, int]) -> bytes:
    """Return where a client connected to, as a Host header says it."""
    return str(ListenAddress(*address[:2])).encode()


class _UpstreamLostError(Exception):
    """The connection to the backend has failed or ended; the argument is a short word."""


def _let_others_get_as_far(wake: Any) -> None:
    """Go on when the others who were woken in this turn of the loop have come here too.

    Requests that leave one right after the other wake a backend once: on loopback that is 4 of 50 µs a request.
    """
    callback = get_hub().loop.run_callback(wake)
    try:
        get_hub().switch()
    except BaseException:  # thrown in: nobody may be woken for this any more
        callback.stop()
        raise


class Exchange:
    """A request on its way. The public fields say what became of it."""

    __slots__ = (
        "_down",
        "_has_heard",
        "_head",
        "_interim_responses",
        "_is_upload_broken",
        "_received",
        "_session",
        "_up",
        "_upstream",
        "failure",
        "is_answered",
        "request_id",
        "response",
        "response_bytes_sent",
        "sent",
    )

    def __init__(self, session: HttpSession, head: RequestHead) -> None:
        self._session = session
        self._head = head
        self._upstream: Stream | None = None
        self._up: Flow | None = None
        """The rest of the request, while it is not all sent."""
        self._down: Flow | None = None
        self._is_upload_broken = False
        """The request cannot be sent whole; the backend may have answered all the same."""
        self._has_heard = False
        """The backend has sent something."""
        self._interim_responses = 0
        self._received = b""
        """What has come of the answer and is not understood yet."""
        self.sent = 0
        """To the backend, but for what `_up` has moved."""
        self.response_bytes_sent = 0
        """Sent to the client, but for what `_down` has moved."""
        self.response: ResponseHead | None = None
        """The final answer's head."""
        self.is_answered = False
        """The client has got the beginning of an answer: it is too late for one of ours."""
        self.request_id = b""
        self.failure: str | None = None
        """What speaks against the backend, a short word."""

    @property
    def bytes_up(self) -> int:
        return self.sent + (self._up.bytes_moved if self._up is not None else 0)

    @property
    def bytes_down(self) -> int:
        return self.response_bytes_sent + (self._down.bytes_moved if self._down is not None else 0)

    def keep_alive(self) -> None:
        """Have the kernel probe the backend: not at once, because a short request need not pay system calls for it."""
        upstream = self._upstream
        if upstream is not None and not upstream.is_kept_alive:
            upstream.is_kept_alive = True
            set_keepalive(upstream.sock)

    @property
    def is_request_read(self) -> bool:
        """All of the request was taken from the client."""
        return self._up is None and not self._is_upload_broken

    def run(self, first: bytes) -> bool:
        """Carry the request out; returns whether the client's connection may bring another.

        `first` is what came after the head. Raises ConnectionEnded.
        """
        session = self._session
        session.client.unwatch()  # the questions to the actors park this greenlet
        data = self._take_request(first)
        is_whole = self._up is None
        upstream = self._upstream = self._reach_backend()
        try:
            try:
                self._send_request(data)
                self._await_response()
            except _UpstreamLostError:
                may_repeat = self.sent == 0 or self._head.method in _IDEMPOTENT
                if self._has_heard or not (upstream.is_reused and is_whole and may_repeat):
                    raise
                self._replace_upstream()
                self._send_request(data)
                self._await_response()
            return self._pass_on_response()
        except _UpstreamLostError as lost:
            raise self._upstream_lost(str(lost)) from None
        finally:
            self._let_go()

    # The request

    def _take_request(self, first: bytes) -> bytes:
        """Return what can be sent at once, and prepare for what has not come yet. Raises DownstreamError."""
        session, head = self._session, self._head
        authority = head.host or _authority(session.client.sock.getsockname())
        request, self.request_id = session.frontend.headers.request_head(head, session.sender, authority)
        if head.framing is Framing.NONE:
            session.buffered = first
            return request
        # Its sink is told when there is one.
        flow = self._flow(session.client, session.client, head.framing, head.content_length)
        try:
            body = bytes(flow.take(first)) if first else b""
        except BadMessage as bad:
            self._is_upload_broken = True
            raise DownstreamError(State.BODY_BAD, bad.reason) from None
        if flow.is_read:
            session.buffered = flow.after
        else:
            session.buffered = b""
            self._up = flow
        return request + body

    def _flow(self, source: Stream, sink: Stream, framing: Framing, length: int, *, is_unwrapped: bool = False) -> Flow:
        return Flow(
            source, sink, framing, length, self._session.wake, self._session.server.pipes, is_unwrapped=is_unwrapped
        )

    def _reach_backend(self) -> Stream:
        """Lease a backend; return an idle connection to it, or a fresh one to it or another."""
        session = self._session
        connection = session.connection
        lease = lease_backend(connection)
        upstream = session.server.idle.take(lease.backend) if session.shares_upstreams else None
        if upstream is None:
            return self._dial()
        assert connection.client is not None
        connection.attempts += 1
        connection.frontend.service.keep(lease, connection.client)
        return upstream

    def _dial(self) -> Stream:
        connection = self._session.connection
        assert connection.lease is not None
        sock = dial_leased(connection, connection.lease)
        backend = connection.lease.backend
        return Stream(sock, (backend.host, backend.port))

    def _replace_upstream(self) -> None:
        """The kept connection was dead: make a fresh one."""
        assert self._upstream is not None
        self._session.client.unwatch()
        if self._up is not None:
            self._up.close()
            self._up = None
        self._upstream.close()
        self._upstream = self._dial()
        self.sent = 0

    def _send_request(self, data: bytes) -> None:
        session, upstream = self._session, self._upstream
        assert upstream is not None
        if not session.shares_upstreams:
            data = proxy_header(session.connection, session.client.sock) + data
        _let_others_get_as_far(session.wake)
        try:
            self.sent = upstream.send(data)
        except SinkError:
            raise _UpstreamLostError("closed_before_answer") from None
        if self._up is not None:
            self._up.sink = upstream
        elif self.sent < len(data):
            self._up = self._flow(session.client, upstream, Framing.NONE, 0)
        upstream.watch(session.wake)
        session.client.watch(session.wake)
        if self._up is None or self._head.expects_continue:  # the client waits for the backend, too
            self._expect_response()
        if self._up is None:
            return
        if self.sent < len(data):
            self._move(self._up.send, data[self.sent :])

    def _expect_response(self) -> None:
        """It is the backend's turn."""
        session = self._session
        seconds = session.frontend.config.http.response_timeout_seconds
        session.connection.expect(seconds, _LATE_RESPONSE)

    # What may happen meanwhile

    def _step_up(self, who: object) -> None:
        """Go on with the request: its source, the client, can be read, or its sink takes more."""
        up = self._up
        if up is None:
            self._look_at_client()
        elif who is up:
            self._move(up.flush)
        else:
            self._move(up.step)

    def _move(self, move: Any, *arguments: object) -> None:
        """Move what can be moved of the request. Raises DownstreamError."""
        up = self._up
        assert up is not None
        try:
            move(*arguments)
        except SourceError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        except BadMessage as bad:
            self._is_upload_broken = True
            raise DownstreamError(State.BODY_BAD, bad.reason) from None
        except SinkError:
            self._is_upload_broken = True
            self._session.client.unwatch()
            self._finish_up(up)
            return
        if up.is_complete:
            self._session.buffered = self._session.buffered or up.after
            self._finish_up(up)
        elif self.response is None:
            self._expect_progress(up)

    def _expect_progress(self, up: Flow) -> None:
        """While the backend takes nothing of the request, the backend is late; else it is the client's time."""
        if not up.is_blocked and (up.bytes_moved or not self._head.expects_continue):
            self._session.connection.deadline = None
        elif self._session.connection.deadline is None:
            self._expect_response()

    def _finish_up(self, up: Flow) -> None:
        self.sent += up.bytes_moved
        up.close()
        self._up = None
        if self.response is None:
            self._expect_response()

    def _look_at_client(self) -> None:
        """The client sends its next request before it has this answer, or has ended its side, or is gone."""
        client = self._session.client
        try:
            if not client.sock.recv(1, socket.MSG_PEEK):
                self._session.has_client_ended = True
        except BlockingIOError:
            return
        except OSError:
            state = State.CLIENT_RESET if self.is_answered else State.CLIENT_GONE_WAITING
            raise DownstreamError(state, "client_gone") from None
        client.unwatch()  # until its turn comes

    # The answer

    def _await_response(self) -> None:
        sleep, upstream = get_hub().switch, self._upstream
        assert upstream is not None
        while self.response is None:
            who = sleep()
            if who is not upstream:
                self._step_up(who)
                continue
            try:
                data = upstream.receive()
            except SourceError:
                raise _UpstreamLostError("reset_before_answer") from None
            if data:
                self._take_response(data)
            elif data is not None:
                raise _UpstreamLostError("closed_before_answer")
        self._session.connection.deadline = None

    def _take_response(self, data: bytes) -> None:
        """Understand heads until the final one is there. Raises AnswerError."""
        self._has_heard = True
        received = self._received + data if self._received else data
        limit = self._session.frontend.config.http.max_head_bytes
        while (end := received.find(b"\r\n\r\n") + 4) > 3:
            if end > limit:
                raise ResponseError(State.RESPONSE_BAD, "head_too_long")
            try:
                head = parse_response(received[:end], self._head.method)
            except BadMessage as bad:
                raise ResponseError(State.RESPONSE_BAD, bad.reason) from None
            received = received[end:]
            if head.status >= 200 or head.status == _SWITCHING_PROTOCOLS:
                self.response = head
                break
            self._pass_on_interim(head)
        else:
            if len(received) > limit:
                raise ResponseError(State.RESPONSE_BAD, "head_too_long")
        self._received = received

    def _pass_on_interim(self, head: ResponseHead) -> None:
        """Pass a 1xx on to clients that know of them (RFC 9110, section 15.2)."""
        self._interim_responses += 1
        if self._interim_responses > MOST_INTERIM_RESPONSES:
            raise ResponseError(State.RESPONSE_BAD, "too_many_interim_answers")
        if self._head.version == b"1.0":
            return
        headers = self._session.frontend.headers
        self._send_to_client(headers.response_head(head, connection_option=b"", is_chunked=False))

    def _send_to_client(self, data: bytes) -> None:
        """Send what must go at once: it is little, and the client has had nothing yet that it could leave unread."""
        try:
            sent = self._session.client.send(data)
        except SinkError:
            sent = -1
        self.response_bytes_sent += max(sent, 0)
        if sent < len(data):
            raise DownstreamError(State.CLIENT_GONE_WAITING, "client_gone")

    def _pass_on_response(self) -> bool:
        session, response, rest = self._session, self.response, self._received
        assert response is not None and self._upstream is not None
        if response.status == _SWITCHING_PROTOCOLS:
            return self._switch_protocols(response)
        is_http_1_0 = self._head.version == b"1.0"
        is_chunked = response.framing is Framing.CHUNKED
        is_unwrapped = is_chunked and is_http_1_0
        keeps = (
            self._head.is_persistent
            and self.is_request_read
            and not session.is_closing
            and response.framing is not Framing.UNTIL_CLOSE
            and not is_unwrapped
        )
        option = (b"keep-alive" if is_http_1_0 else b"") if keeps else b"close"
        head = session.frontend.headers.response_head(
            response, connection_option=option, is_chunked=is_chunked and not is_unwrapped
        )
        if response.framing is Framing.NONE or (
            response.framing is Framing.LENGTH and len(rest) == response.content_length
        ):
            is_clean = self._send_whole(head if response.framing is Framing.NONE else head + rest)
            is_clean = is_clean and not (response.framing is Framing.NONE and rest)
        else:
            is_clean = self._send_flowing(head, rest, response, is_unwrapped=is_unwrapped)
        if is_clean and response.is_persistent and self.is_request_read and session.shares_upstreams:
            session.server.idle.give(self._upstream, time.monotonic())
            self._upstream = None
        return keeps and self.is_request_read

    def _send_whole(self, data: bytes) -> bool:
        """Send an answer that is all there; most are, and need no flow."""
        try:
            sent = self._session.client.send(data)
        except SinkError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        self.is_answered = True
        self.response_bytes_sent += sent
        if sent == len(data):
            return True
        assert self._upstream is not None
        flow = self._down = self._flow(self._upstream, self._session.client, Framing.NONE, 0)
        return self._drain(flow, data[sent:])

    def _send_flowing(self, head: bytes, rest: bytes, response: ResponseHead, *, is_unwrapped: bool) -> bool:
        """Send a head and what there is of its body, and pass on the rest as it comes."""
        assert self._upstream is not None
        flow = self._down = self._flow(
            self._upstream,
            self._session.client,
            response.framing,
            response.content_length,
            is_unwrapped=is_unwrapped,
        )
        try:
            body = bytes(flow.take(rest)) if rest else b""
        except BadMessage as bad:
            raise ResponseError(State.RESPONSE_BAD, bad.reason) from None
        return self._drain(flow, head + body)

    def _drain(self, flow: Flow, data: bytes) -> bool:
        """Send through a flow until it is complete; says whether nothing came after the answer's end."""
        sleep, upstream = get_hub().switch, self._upstream
        self.is_answered = True
        try:
            flow.send(data)
            while not flow.is_complete:
                who = sleep()
                if who is upstream:
                    flow.step()
                elif who is flow:
                    flow.flush()
                else:
                    self._step_up(who)
        except SourceError:
            raise _UpstreamLostError("closed_within_answer") from None
        except SinkError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        except BadMessage as bad:
            raise ResponseError(State.SERVER_RESET, bad.reason) from None
        return not flow.after

    def _switch_protocols(self, response: ResponseHead) -> bool:
        """Hand both sockets over to whoever speaks the protocol that was agreed upon: we only copy."""
        session = self._session
        if not may_upgrade(self._head):
            raise ResponseError(State.RESPONSE_BAD, "switching_without_upgrade")
        if not self.is_request_read:  # the new protocol begins after the request's last byte (RFC 9110, section 7.8)
            raise ResponseError(State.RESPONSE_BAD, "switching_within_request")
        head = session.frontend.headers.response_head(response, connection_option=b"upgrade", is_chunked=False)
        self._send_to_client(head)
        self.is_answered = True
        assert self._upstream is not None
        upstream, self._upstream = self._upstream, None
        session.relay(upstream, self._received)
        return False

    # Ends

    def _upstream_lost(self, word: str) -> ResponseError:
        """Say what became of a request whose backend went away."""
        assert self._upstream is not None
        # A kept connection may end at any moment, which says nothing of its backend.
        if self._has_heard or not self._upstream.is_reused:
            self.failure = word
        if self.is_answered:
            return ResponseError(State.SERVER_RESET, word)
        return ResponseError(State.RESPONSE_FAILED, word)

    def _let_go(self) -> None:
        """Let go of what was not handed on: an upstream connection that is still ours has not ended well."""
        if self._down is not None:
            self.response_bytes_sent += self._down.bytes_moved
            self._down.close()
            self._down = None
        if self._up is not None:
            self._is_upload_broken = True
            self._finish_up(self._up)
        if self._upstream is not None:
            self._upstream.close()
