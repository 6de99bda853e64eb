"""The part of a request that did not come with its head, or could not be sent at once, on its way to the backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from app.domain.errors import DownstreamError
from app.domain.outcome import State
from app.inbound.http.flow import Flow
from app.inbound.http.pace import Pace
from app.inbound.http.responder import Request
from app.inbound.pipes import PipePool
from app.inbound.tcp.direction import SinkError, SourceError
from app.wire.http1_faults import BadMessage

_LATE_RESPONSE: Final = (State.RESPONSE_TIMEOUT, "response_timeout")


def expect_response(request: Request) -> None:
    """Give the backend its time for the response's head, from now on."""
    request.connection.expect(request.frontend.config.http.response_timeout_seconds, _LATE_RESPONSE)


def begin_body(request: Request, pipes: PipePool) -> tuple[bytes, Flow | None]:
    """Return what has come of a body, and a flow for the rest, None without one. Raises DownstreamError.

    The sink of the flow must be set to the backend, as soon as there is one.
    """
    client, head, most = request.client, request.head, request.frontend.config.http.max_body_bytes
    first = client.take_buffered()
    flow = Flow(client, client, head.framing, head.content_length, client.wake, pipes)
    try:
        body = bytes(flow.take(first)) if first else b""
    except BadMessage as bad:
        raise DownstreamError(State.BODY_BAD, bad.reason) from None
    if 0 < most < flow.taken:
        raise DownstreamError(State.BODY_TOO_LARGE, "body_too_large")
    if flow.is_read:
        client.buffered = flow.after
        return body, None
    return body, flow


class Upload:
    """Moves the rest of a request. Over when all of it was sent, or when the backend takes no more."""

    __slots__ = (
        "_bytes_before",
        "_flow",
        "_has_waited",
        "_is_invited",
        "_most",
        "_pace",
        "_request",
        "is_over",
        "is_read",
    )

    def __init__(self, flow: Flow, request: Request) -> None:
        self._flow = flow
        self._request = request
        self._pace = Pace(request.connection, request.frontend.config.http)
        self._most = request.frontend.config.http.max_body_bytes
        self._bytes_before = flow.sink.bytes_sent
        self._has_waited = False
        """For the backend, since the pace began."""
        self._is_invited = not request.head.expects_continue
        """The client sends without being told to, or was told."""
        self.is_over = False
        self.is_read = False
        """All of the request was read from the client and sent."""

    def start(self, unsent: bytes) -> None:
        """Send what the backend did not take at once. Raises DownstreamError."""
        self._move(lambda: self._flow.send(unsent), awaits_response=True)

    def step(self, who: object, *, awaits_response: bool) -> None:
        """Go on after a wake-up: the client can be read, or the backend takes more. Raises DownstreamError."""
        flow = self._flow
        self._move(flow.flush if who is flow else flow.step, awaits_response=awaits_response)

    def _move(self, move: Callable[[], None], *, awaits_response: bool) -> None:
        flow, client = self._flow, self._request.client
        try:
            move()
        except SourceError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        except BadMessage as bad:
            raise DownstreamError(State.BODY_BAD, bad.reason) from None
        except SinkError:  # the backend may have sent a response before it stopped reading
            client.unwatch()
            self.close()
        else:
            if 0 < self._most < flow.taken:
                raise DownstreamError(State.BODY_TOO_LARGE, "body_too_large")
            if flow.is_complete:
                client.buffered = client.buffered or flow.after
                self.is_read = True
                self.close()
        if not self.is_over:
            self.expect_progress(awaits_response=awaits_response)
        elif awaits_response:
            expect_response(self._request)
        else:
            self._request.connection.deadline = None

    def expect_progress(self, *, awaits_response: bool) -> None:
        """While the backend takes nothing of the request, it is late; otherwise the client is, below its pace."""
        flow, connection = self._flow, self._request.connection
        moved = flow.sink.bytes_sent - self._bytes_before
        if not flow.is_blocked and (moved or self._is_invited):
            if self._has_waited:
                self._has_waited, self._bytes_before = False, flow.sink.bytes_sent
                self._pace.restart()
            self._pace.expect(flow.sink.bytes_sent - self._bytes_before)
        elif not awaits_response:
            self._has_waited, connection.deadline = True, None
        elif not self._has_waited:
            self._has_waited = True
            expect_response(self._request)

    def invite(self) -> None:
        """The client was told to send: from now on it is late, and the backend is not."""
        self._is_invited = True
        self.expect_progress(awaits_response=True)

    def close(self) -> None:
        """Move nothing more."""
        if not self.is_over:
            self.is_over = True
            self._flow.close()
