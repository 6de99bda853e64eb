"""Answers a request by a handler of the gateway instead of a backend: read the body, call, send what it returned."""

from __future__ import annotations

import io
import sys
import time
from functools import partial
from http import HTTPStatus
from math import inf
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_to_bytes

from gevent.hub import get_hub

from app.domain.endpoints import MethodNotAllowed
from app.domain.errors import DownstreamError
from app.domain.handler_table import Busy, Grant, NoEndpoint, NotDeployed
from app.domain.outcome import State
from app.gateway.call import HANDLER_FAILED, BodyFailed, call_handler
from app.gateway.context import Context, Services
from app.gateway.dispatch import Dispatch
from app.gateway.lazy_request import LazyRequest
from app.gateway.responses import HandlerResponse
from app.inbound.http.edge_responses import edge_response
from app.inbound.http.forwarding import FORWARDING, Sender
from app.inbound.tcp.direction import SinkError
from app.wire.http1 import RequestHead, response_bytes
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing

if TYPE_CHECKING:
    from app.inbound.http.session import HttpSession

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_LATE_BODY: Final = (State.REQUEST_TIMEOUT, "body_timeout")
_TURN_SECONDS: Final = 0.005
"""Of a streamed body, before the event loop gets its turn."""


class _TooLargeError(Exception):
    """The body is longer than the endpoint takes."""


class Gateway:
    """The handlers' side of HTTP frontends that have `gateway: on`."""

    def __init__(self, dispatch: Dispatch, services: Services) -> None:
        self._dispatch = dispatch
        self._services = services

    def handle(self, handled: Handled, request_id: str) -> bool:
        """Answer a request, if an endpoint takes it; says whether one did. Raises ConnectionEnded."""
        head = handled.head
        handled.session.client.unwatch()  # the question to the actor parks this greenlet
        path = head.target.partition(b"?")[0]
        acquired = self._dispatch.acquire(head.host.decode(), path.decode(), head.method.decode())
        match acquired:
            case Grant():
                self._run(handled, acquired, request_id)
            case MethodNotAllowed(allowed):
                handled.refuse(405, "method_not_allowed", request_id, ("Allow", ", ".join(allowed)))
            case Busy(endpoint_id, seconds):
                handled.endpoint_id = endpoint_id
                handled.refuse(503, "endpoint_busy", request_id, ("Retry-After", str(seconds)))
            case NotDeployed(endpoint_id):
                handled.endpoint_id = endpoint_id
                handled.refuse(503, "not_deployed", request_id)
            case NoEndpoint():
                return False
        return True

    def _run(self, handled: Handled, grant: Grant, request_id: str) -> None:
        """Call the handler that was granted, and give the grant back when its answer has been sent."""
        handled.endpoint_id = grant.endpoint.id
        try:
            body = handled.read_body(grant.endpoint.max_body_bytes)
            request = LazyRequest(partial(_environ, handled.head, body, handled.session.sender, handled.client_address))
            context = Context(request_id, grant.endpoint.id, grant.version.number, grant.params, self._services)
            handled.session.connection.deadline = inf  # the call has a time of its own, and is no idle connection
            called = call_handler(grant, request, context)
            handled.session.connection.deadline = None
            handled.reason, handled.has_failed = called.reason, called.reason is not None
            handled.send(called.response)
        except _TooLargeError:
            handled.refuse(413, "body_too_large", request_id)
        finally:
            self._dispatch.release(grant.grant_id, failed=handled.has_failed)


class Handled:
    """A request on its way through a handler; after it the fields say what became of it."""

    def __init__(self, session: HttpSession, head: RequestHead) -> None:
        self.session = session
        self.head = head
        self.is_request_read = head.framing is Framing.NONE
        self.endpoint_id = ""
        self.status: int | None = None
        self.reason: str | None = None
        self.has_failed = False  # the handler, that is: not a client that went away
        self.bytes_up = 0
        self.bytes_down = 0
        self.goes_on = False

    # The request

    @property
    def client_address(self) -> str:
        client = self.session.connection.client
        return client.address if client is not None else ""

    def read_body(self, limit: int) -> bytes:
        """Return the body. Raises _TooLargeError, DownstreamError."""
        session, head = self.session, self.head
        if head.framing is Framing.NONE:
            return b""
        if head.content_length > limit:
            raise _TooLargeError
        seconds = session.frontend.config.http.response_timeout_seconds
        session.connection.expect(seconds, _LATE_BODY)
        if head.expects_continue and not session.buffered:
            self._send_all(_CONTINUE)
        try:
            body = self._length(head.content_length) if head.framing is Framing.LENGTH else self._chunks(limit)
        except BadMessage as bad:
            raise DownstreamError(State.BODY_BAD, bad.reason) from None
        session.connection.deadline = None
        session.client.unwatch()
        self.is_request_read = True
        self.bytes_up = len(body)
        return body

    def _length(self, length: int) -> bytes:
        session = self.session
        parts, left = [session.buffered[:length]], length - len(session.buffered[:length])
        session.buffered = session.buffered[length:]
        while left > 0:
            data = self._more()
            parts.append(data[:left])
            session.buffered = data[left:]
            left -= len(parts[-1])
        return b"".join(parts)

    def _chunks(self, limit: int) -> bytes:
        session = self.session
        scanner, payload, size = ChunkScanner(), [], 0
        data, session.buffered = session.buffered, b""
        while True:
            pieces: list[bytes | memoryview] = []
            count = scanner.scan(data, pieces)
            size += sum(map(len, pieces))
            if size > limit:
                raise _TooLargeError
            payload += pieces
            if scanner.is_complete:
                session.buffered = data[count:]
                return b"".join(payload)
            data = self._more()

    def _more(self) -> bytes:
        data = self.session.receive()
        if not data:
            raise DownstreamError(State.CLIENT_GONE_IN_REQUEST, "client_gone")
        return data

    # The answer

    def refuse(self, status: int, reason: str, request_id: str, *extra: tuple[str, str]) -> None:
        """Send an answer of the edge's own."""
        self.status, self.reason = status, reason
        self.goes_on = self._may_go_on()
        data = edge_response(
            status,
            reason,
            request_id,
            closes=not self.goes_on,
            has_body=self.head.method != b"HEAD",
            extra=extra,
        )
        self._send_all(data)

    def _may_go_on(self) -> bool:
        head = self.head
        return head.is_persistent and head.version == b"1.1" and self.is_request_read and not self.session.is_closing

    def send(self, made: HandlerResponse) -> None:
        """Send what a handler made, streamed bodies as they come. Raises DownstreamError."""
        try:
            self._send(made)
        finally:
            if made.on_close is not None:
                made.on_close()

    def _send(self, made: HandlerResponse) -> None:
        self.status, self.goes_on = made.status, self._may_go_on()
        headers = [(name.encode(), value.encode("latin-1")) for name, value in made.headers]
        has_body = self.head.method != b"HEAD" and made.status not in (204, 304)
        if isinstance(made.body, bytes):
            if made.status not in (204, 304):
                headers.append((b"Content-Length", b"%d" % len(made.body)))
            self._send_all(self._head_of(made.status, headers) + (made.body if has_body else b""))
            return
        is_chunked = self.head.version == b"1.1" and not any(name.lower() == b"content-length" for name, _ in headers)
        if is_chunked:
            headers.append((b"Transfer-Encoding", b"chunked"))
        elif self.head.version == b"1.0":
            self.goes_on = False
        self._send_all(self._head_of(made.status, headers))
        if has_body:
            self._stream(made.body, is_chunked)

    def _head_of(self, status: int, headers: list[tuple[bytes, bytes]]) -> bytes:
        if not self.goes_on:
            headers = [*headers, (b"Connection", b"close")]
        return response_bytes(status, _PHRASES.get(status, b""), headers)

    def _stream(self, parts: Any, is_chunked: bool) -> None:
        turn_at = time.monotonic()
        try:
            for part in parts:
                if part:
                    self._send_all(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
                if time.monotonic() - turn_at > _TURN_SECONDS:  # neither the handler nor the client need ever wait
                    self.session.give_others_a_turn()
                    turn_at = time.monotonic()
        except BodyFailed:
            self.goes_on, self.reason, self.has_failed = False, HANDLER_FAILED, True
            self.session.reset()  # half an answer must not look like a whole one
            return
        if is_chunked:
            self._send_all(b"0\r\n\r\n")

    def _send_all(self, data: bytes) -> None:
        """Send, and wait for a client that does not read. Raises DownstreamError."""
        session, client = self.session, self.session.client
        session.connection.quiet_since = time.monotonic()
        rest = memoryview(data)
        try:
            while rest:
                sent = client.send(rest)
                self.bytes_down += sent
                rest = rest[sent:]
                if rest:
                    client.watch_writable(session.wake, self)
                    get_hub().switch()
        except SinkError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None
        finally:
            client.unwatch_writable()


_PHRASES: Final = {int(code): code.phrase.encode() for code in HTTPStatus}


def _environ(head: RequestHead, body: bytes, sender: Sender, client_address: str) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request whose body has come."""
    path, _, query = head.target.partition(b"?")
    host, _, port = head.host.decode().rpartition(":")
    if not port.isdecimal():  # there is none, or these are the last digits of an IPv6 address
        host, port = head.host.decode(), "80"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method.decode(),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{head.version.decode()}",
        "REMOTE_ADDR": client_address,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in head.headers:
        if b"_" in name:  # would be taken for the name with a hyphen
            continue
        if not sender.is_trusted and name.lower() in FORWARDING:  # who it was, anyone could say
            continue
        key = name.decode().upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        comma = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{comma}{text}" if key in environ else text
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ
