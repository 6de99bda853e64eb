"""The responder for pools: lease a backend, send the request, wait, pass the response on. Both bodies flow at once.

The greenlet sleeps in two places only, until the response's head is there and until its body is passed on. Each wake-up
brings what can move: the backend's stream, the client's stream, or a flow whose sink takes more.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from app.config import ListenAddress
from app.domain.errors import DownstreamError, ResponseError
from app.domain.outcome import State
from app.inbound.admission import proxy_header
from app.inbound.event_loop import let_others_catch_up
from app.inbound.frontend import OpenFrontend
from app.inbound.http.backend import dial_backend, reach_backend
from app.inbound.http.body import read_body
from app.inbound.http.flow import Flow
from app.inbound.http.interim import MOST_INTERIM_BYTES, pass_on_interim, send_at_once
from app.inbound.http.progress import ExchangeProgress
from app.inbound.http.responder import Ending, Outcome, Refusal, Request, Work, ending_of
from app.inbound.http.stream import UpstreamStream
from app.inbound.http.tunnel import Tunnel
from app.inbound.http.upload import Upload, begin_body, expect_response
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.pipes import PipePool
from app.inbound.tcp.direction import SinkError, SourceError
from app.inbound.tcp.relay import Relay
from app.wire.http1 import ResponseHead, next_response
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing
from app.wire.http1_lenient import PADDED_CHUNK_SIZES
from app.wire.http1_rules import (
    COUNTED_METHODS,
    SWITCHING_PROTOCOLS,
    Delivery,
    delivery_of,
    hops_left,
    is_final,
    may_send_again,
    switch_fault,
)

COLLECTED_BYTES: Final = 16 * 1024
"""A body up to this size is read before a backend is leased, so that a slow client does not hold the lease."""


class _UpstreamLostError(Exception):
    """The connection to the backend failed or ended; the argument is a short word."""


class Proxying:
    """Serves requests by the backends of their frontend's pool; `idle` keeps connections to backends between them."""

    def __init__(self, pipes: PipePool, idle: UpstreamPool) -> None:
        self._pipes = pipes
        self._idle = idle

    def serves(self, frontend: OpenFrontend) -> bool:
        """Say whether a frontend has a pool."""
        return frontend.has_pool

    def begin(self, request: Request) -> Work:
        return _Exchange(request, self._pipes, self._idle)


class _Exchange(ExchangeProgress):
    """A request on its way to a backend and its response on the way back."""

    __slots__ = (
        "_body_to_come",
        "_down",
        "_failure",
        "_has_heard",
        "_idle",
        "_interim_bytes",
        "_is_taken",
        "_pipes",
        "_received",
        "_request_id",
        "_response",
        "_shares_upstreams",
        "_tunnel",
        "_upload",
    )

    def __init__(self, request: Request, pipes: PipePool, idle: UpstreamPool) -> None:
        self._request = request
        self._pipes = pipes
        self._idle = idle
        self._shares_upstreams = request.frontend.config.tcp.send_proxy == "off"
        """Whether kept connections may serve other clients: not with a PROXY header, which names one client."""
        self._upstream: UpstreamStream | None = None
        self._bytes_up = 0
        self._bytes_down_before = request.client.bytes_sent
        self._body_to_come: Flow | None = None
        """The part of the request's body that has not come with its head."""
        self._is_taken = request.head.framing is Framing.NONE
        """The body, as far as it had come, was taken from the client's stream."""
        self._upload: Upload | None = None
        self._down: Flow | None = None
        self._tunnel: Tunnel | None = None
        self._has_heard = False
        """The backend has sent something."""
        self._interim_bytes = 0
        self._received = b""
        """Received of the response and not used yet."""
        self._response: ResponseHead | None = None
        """The final response's head."""
        self._has_begun = False
        self._request_id = b""
        self._failure: str | None = None

    # The exchange

    def run(self) -> Outcome:
        """Serve the request. Raises ConnectionEnded."""
        request = self._request
        if request.head.method in COUNTED_METHODS and hops_left(request.head) == 0:
            # The edge is the last recipient; TRACE is not offered.
            self._request_id = request.frontend.headers.request_id(request.head, request.sender)
            refusal = Refusal(200) if request.head.method == b"OPTIONS" else Refusal(405, (("Allow", "OPTIONS"),))
            return self._outcome(State.NORMAL, "max_forwards", Ending.CLOSE, refusal)
        request.client.unwatch()  # asking actors parks the greenlet; the watcher must not wake it
        data = self._take_request()
        self._is_taken = True
        has_all = self._body_to_come is None
        self._upstream = reach_backend(request.connection, self._idle if self._shares_upstreams else None)
        try:
            try:
                self._send_request(data)
                response = self._await_response()
            except _UpstreamLostError:
                if not may_send_again(
                    request.head.method,
                    bytes_sent=self._upstream.bytes_sent,
                    is_whole=has_all,
                    is_reused=self._upstream.is_reused,
                    has_heard=self._has_heard,
                ):
                    raise
                self._replace_upstream()
                self._send_request(data)
                response = self._await_response()
            if response.status == SWITCHING_PROTOCOLS:
                return self._switch_protocols(response)
            return self._pass_on(response)
        except _UpstreamLostError as lost:
            raise self._upstream_lost(str(lost)) from None
        finally:
            self._let_go()

    # The request

    @property
    def _is_request_read(self) -> bool:
        """All of the request was read from the client."""
        if self._upload is not None:
            return self._upload.is_read
        return self._body_to_come is None and self._is_taken

    def _take_request(self) -> bytes:
        """Return what can be sent at once, and prepare for what has not come yet. Raises DownstreamError."""
        request, client, head = self._request, self._request.client, self._request.head
        authority = head.host or str(ListenAddress(*client.sock.getsockname()[:2])).encode()
        data, self._request_id = request.frontend.headers.request_head(head, request.sender, authority)
        if head.framing is Framing.NONE:
            return data
        most = request.frontend.config.http.max_body_bytes
        if 0 < most < head.content_length:
            raise DownstreamError(State.BODY_TOO_LARGE, "body_too_large")
        if head.framing is Framing.LENGTH and head.content_length <= COLLECTED_BYTES and not head.expects_continue:
            return data + read_body(request, COLLECTED_BYTES)
        first, self._body_to_come = begin_body(request, self._pipes)
        return data + first

    def _replace_upstream(self) -> UpstreamStream:
        """Return a fresh connection, taken in place of a reused one that was dead."""
        assert self._upstream is not None
        self._request.client.unwatch()
        if self._upload is not None:
            self._upload.close()
            self._upload = None
        self._upstream.close()
        self._upstream = dial_backend(self._request.connection)
        return self._upstream

    def _send_request(self, data: bytes) -> None:
        request, client, upstream, rest = self._request, self._request.client, self._upstream, self._body_to_come
        assert upstream is not None
        if not self._shares_upstreams:
            data = proxy_header(request.connection, client.sock) + data
        let_others_catch_up(client.wake)
        if upstream.is_reused and not upstream.is_silent():
            # Nothing was sent: the request may go elsewhere whatever its method (RFC 9112, section 9.3.1). What came
            # unasked must not be taken for its response.
            upstream = self._replace_upstream()
        try:
            sent = upstream.send(data)
        except SinkError:
            raise _UpstreamLostError("closed_before_response") from None
        upstream.watch(client.wake)
        client.watch(client.wake)
        if rest is not None:
            rest.sink = upstream
        elif sent < len(data):
            rest = Flow(client, upstream, Framing.NONE, 0, client.wake, self._pipes)
        if rest is None:
            expect_response(request)
            return
        self._upload = Upload(rest, request)
        if sent < len(data):
            self._upload.start(data[sent:])
        else:
            self._upload.expect_progress(awaits_response=True)

    def _step_up(self, who: object) -> None:
        """Go on with the request. Raises DownstreamError."""
        upload, request = self._upload, self._request
        if upload is not None and not upload.is_over:
            upload.step(who, awaits_response=self._response is None)
            return
        try:  # the next request comes before this response, or the client has ended its side, or is gone
            if request.client.notice_end():
                request.client.unwatch()  # until its turn comes
        except SourceError:
            state = State.CLIENT_RESET if self._has_begun else State.CLIENT_GONE_WAITING
            raise DownstreamError(state, "client_gone") from None

    # The response

    def _await_response(self) -> ResponseHead:
        sleep, upstream = self._request.client.sleep, self._upstream
        assert upstream is not None
        while self._response is None:
            who = sleep()
            if who is not upstream:
                self._step_up(who)
                continue
            try:
                data = upstream.receive()
            except SourceError:
                raise _UpstreamLostError("reset_before_response") from None
            if data:
                self._take_heads(data)
            elif data is not None:
                raise _UpstreamLostError("closed_before_response")
        self._request.connection.deadline = None
        return self._response

    def _take_heads(self, data: bytes) -> None:
        """Read heads until the final one is there. Raises ResponseError."""
        request, self._has_heard = self._request, True
        received, searched = data, 0
        if self._received:
            received, searched = self._received + data, len(self._received)
        method, frontend = request.head.method, request.frontend
        limit, lenient = frontend.config.http.max_head_bytes, frontend.pool.lenient
        try:
            while found := next_response(received, method, limit, lenient, searched):
                head, rest = found
                if is_final(head.status):
                    self._response, received = head, rest
                    break
                self._interim_bytes += len(received) - len(rest)
                if self._interim_bytes > MOST_INTERIM_BYTES:
                    raise ResponseError(State.RESPONSE_BAD, "too_many_interim_responses")
                pass_on_interim(request, head, self._upload)
                received, searched = rest, 0
        except BadMessage as bad:
            raise ResponseError(State.RESPONSE_BAD, bad.reason) from None
        self._received = received

    def _pass_on(self, response: ResponseHead) -> Outcome:
        """Send the response to the client as it comes."""
        request = self._request
        delivery = delivery_of(
            request.head, response, is_request_read=self._is_request_read, is_closing=request.is_last
        )
        head = request.frontend.headers.response_head(
            response, connection_option=delivery.connection_option, is_chunked=delivery.is_chunked
        )
        is_clean = self._send(head, response, delivery)
        is_request_read = self._is_request_read
        if is_clean and response.is_persistent and is_request_read and self._shares_upstreams:
            self._keep_upstream()
        keeps = delivery.keeps and is_request_read
        return self._outcome(State.NORMAL, None, Ending.KEEP if keeps else Ending.CLOSE)

    def _keep_upstream(self) -> None:
        upstream, options = self._upstream, self._request.frontend.config.http
        assert upstream is not None
        self._bytes_up, self._upstream = upstream.bytes_sent, None
        self._idle.give(upstream, time.monotonic() + options.backend_idle_timeout_seconds, options.max_idle_per_backend)

    def _send(self, head: bytes, response: ResponseHead, delivery: Delivery) -> bool:
        """Send a response as it comes; say whether nothing came after its end."""
        client, upstream, rest, framing = self._request.client, self._upstream, self._received, response.framing
        assert upstream is not None
        is_whole = framing is Framing.NONE or (framing is Framing.LENGTH and len(rest) == response.content_length)
        try:
            if is_whole:  # most are, and need no flow
                data, after = (head, rest) if framing is Framing.NONE else (head + rest, b"")
                sent = client.send(data)
                self._has_begun = True
                if sent == len(data):
                    return not after
                flow = self._down = Flow(upstream, client, Framing.NONE, 0, client.wake, self._pipes)
                flow.run(data[sent:], self._step_up)
                return not after and not flow.after
            flow = self._down = Flow(
                upstream, client, framing, response.content_length, client.wake, self._pipes,
                is_unwrapped=delivery.is_unwrapped,
                takes_padding=PADDED_CHUNK_SIZES in self._request.frontend.pool.lenient,
            )  # fmt: skip
            body = bytes(flow.take(rest)) if rest else b""
            self._has_begun = True
            flow.run(head + body, self._step_up)
            return not flow.after
        except SourceError:
            raise _UpstreamLostError("closed_within_response") from None
        except SinkError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        except BadMessage as bad:
            state = State.SERVER_RESET if self._has_begun else State.RESPONSE_BAD
            raise ResponseError(state, bad.reason) from None

    def _switch_protocols(self, response: ResponseHead) -> Outcome:
        """Copy both ways from now on: client and backend have agreed on another protocol. Raises Killed."""
        request, client, upstream = self._request, self._request.client, self._upstream
        assert upstream is not None
        fault = switch_fault(request.head, response, is_request_read=self._is_request_read)
        if fault is not None:
            raise ResponseError(State.RESPONSE_BAD, fault)
        head = request.frontend.headers.response_head(response, connection_option=b"upgrade", is_chunked=False)
        send_at_once(client, head)
        self._has_begun = True
        release = partial(request.frontend.service.release, request.connection.lease_id)
        relay = Relay(client.release(), upstream.release(), self._pipes, release)
        tunnel = Tunnel(relay, self.bytes_up, self.bytes_down)
        self._tunnel = request.connection.progress = tunnel
        state = tunnel.relay.run(b"", client.take_buffered(), self._received)
        return self._outcome(state, None, Ending.HANDED_OVER)

    # Ends

    def _outcome(self, state: State, reason: str | None, ending: Ending, refusal: Refusal | None = None) -> Outcome:
        response, progress = self._response, self._tunnel or self
        return Outcome(
            state,
            reason,
            response.status if response is not None and refusal is None else None,
            ending,
            self._is_request_read,
            refusal,
            progress.bytes_up,
            progress.bytes_down,
            self._failure,
            self._request_id,
            self._request.frontend.service.route.pool,
        )

    def failed(self, state: State, reason: str) -> Outcome:
        """Return the outcome after an error."""
        return self._outcome(state, reason, *ending_of(state, has_begun=self._has_begun))

    def _upstream_lost(self, word: str) -> ResponseError:
        """Return the error for a lost backend; record a failure, unless a kept connection simply ended."""
        assert self._upstream is not None
        # A kept connection may end at any moment, which says nothing about its backend.
        if self._has_heard or not self._upstream.is_reused:
            self._failure = word
        return ResponseError(State.SERVER_RESET if self._has_begun else State.RESPONSE_FAILED, word)

    def _let_go(self) -> None:
        """Close what is left: an upstream connection that was not given back did not end cleanly."""
        if self._down is not None:
            self._down.close()
        if self._upload is not None:
            self._upload.close()
        if self._upstream is not None:
            self._bytes_up, upstream, self._upstream = self._upstream.bytes_sent, self._upstream, None
            upstream.close()
