"""The responder for endpoints: read the request's body, call the handler, send what it returned."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from math import inf
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from app.domain.endpoints import Endpoint, MethodNotAllowed
from app.domain.errors import DownstreamError
from app.domain.handler_table import Busy, Grant, NoEndpoint, NotDeployed, Unserved
from app.domain.outcome import State
from app.gateway.call import HANDLER_FAILED, BodyFailed, call_handler
from app.gateway.context import Context, Services
from app.gateway.dispatch import Dispatch
from app.gateway.lazy_request import LazyRequest
from app.gateway.responses import HandlerResponse
from app.gateway.workers import Workers
from app.inbound.frontend import OpenFrontend
from app.inbound.http.body import BodyTooLarge, is_at_hand, read_body
from app.inbound.http.responder import Ending, Outcome, Refusal, Request, Work, ending_of
from app.inbound.tcp.direction import SinkError
from app.inbound.tcp.relay import is_reset, unacknowledged
from app.wire.http1 import response_bytes
from app.wire.http1_framing import Framing
from app.wire.http1_rules import may_keep
from app.wire.http_date import date_now

_TURN_SECONDS: Final = 0.005
"""Of a streamed body, before the event loop gets its turn."""
_PHRASES: Final = {int(code): code.phrase.encode() for code in HTTPStatus}
_WITHOUT_BODY: Final = (204, 304)


class Handling:
    """Serves the requests that an endpoint takes, on frontends with `gateway: on`."""

    def __init__(self, dispatch: Dispatch, services: Services, workers: Workers) -> None:
        self._dispatch = dispatch
        self._services = services
        self._workers = workers

    def serves(self, frontend: OpenFrontend) -> bool:
        """Say whether requests of a frontend go to endpoints."""
        return frontend.config.gateway

    def begin(self, request: Request) -> Work:
        return _Call(request, self._dispatch, self._services, self._workers)


class _Call:
    """A request on its way through a handler."""

    def __init__(self, request: Request, dispatch: Dispatch, services: Services, workers: Workers) -> None:
        self._request = request
        self._dispatch = dispatch
        self._services = services
        self._workers = workers
        self._request_id = request.frontend.headers.request_id(request.head, request.sender)
        self._is_request_read = request.head.framing is Framing.NONE
        self._endpoint: str | None = None
        self._status: int | None = None
        self._bytes_down_before = request.client.bytes_sent
        self.bytes_up = 0

    # What the table of connections reads

    is_half_closed = False

    @property
    def awaits_client(self) -> bool:
        return self._request.client.is_blocked

    def unacknowledged(self) -> int:
        return unacknowledged(self._request.client.sock)

    @property
    def bytes_down(self) -> int:
        return self._request.client.bytes_sent - self._bytes_down_before

    def keep_alive(self) -> None:
        """Do nothing: the client's socket is probed already, and there is no other."""

    def notice_reset(self) -> None:
        """End the connection if its client has reset it while a response is streamed: it holds a slot."""
        if self._status is not None and is_reset(self._request.client.sock):
            self._request.connection.end(State.CLIENT_RESET, "client_gone")

    def run(self) -> Outcome | None:
        """Serve the request; None when no endpoint takes it. Raises ConnectionEnded."""
        request, head = self._request, self._request.head
        request.client.unwatch()  # the ask to the actor parks this greenlet
        address = (head.host.decode(), head.target.partition(b"?")[0].decode(), head.method.decode())
        body = b"" if head.framing is Framing.NONE else None
        if body is None and not is_at_hand(request):  # nothing is held while the client sends
            found = self._dispatch.find(*address)
            if not isinstance(found, Endpoint):
                return self._unserved(found)
            self._endpoint = found.id
            try:
                body = self._read_body(found.max_body_bytes)
            except BodyTooLarge:
                return self._refused("body_too_large", Refusal(413))
        acquired = self._dispatch.acquire(*address)
        if isinstance(acquired, Grant):
            return self._call(acquired, body)
        if isinstance(acquired, NoEndpoint) and body:  # it was removed meanwhile
            return self._refused("no_endpoint", Refusal(404))
        return self._unserved(acquired)

    def _unserved(self, why: Unserved | Busy) -> Outcome | None:
        match why:
            case MethodNotAllowed(allowed):
                return self._refused("method_not_allowed", Refusal(405, (("Allow", ", ".join(allowed)),)))
            case Busy(endpoint_id, seconds):
                self._endpoint = endpoint_id
                return self._refused("endpoint_busy", Refusal(503, (("Retry-After", str(seconds)),)))
            case NotDeployed(endpoint_id):
                self._endpoint = endpoint_id
                return self._refused("not_deployed", Refusal(503))
            case NoEndpoint():
                return None

    def _read_body(self, most: int) -> bytes:
        body = read_body(self._request, most)
        self._is_request_read, self.bytes_up = True, len(body)
        return body

    def _call(self, grant: Grant, body: bytes | None) -> Outcome:
        """Call the handler that was granted, and send its response. A `body` of None is at hand."""
        request, endpoint, is_held, has_failed = self._request, grant.endpoint, True, False
        self._endpoint = endpoint.id
        version = (endpoint.id, grant.version.number)
        if version in self._workers.condemned:  # after the grant, by a call before this one
            self._dispatch.release(grant.grant_id, failed=False)
            return self._refused("not_deployed", Refusal(503))
        worker = self._workers.take(version, endpoint.timeout_seconds)
        try:
            if body is None:
                body = self._read_body(endpoint.max_body_bytes)
            environ = partial(_environ, request, body)
            context = Context(
                self._request_id.decode(), endpoint.id, grant.version.number, grant.params, self._services
            )
            request.connection.deadline = inf  # the call has a time of its own, and is no idle connection
            called = call_handler(worker, grant, LazyRequest(environ), context)
            request.connection.deadline = None
            has_failed = called.reason is not None
            if isinstance(called.response.body, bytes):  # the handler's work is done: a slow client holds nothing
                is_held = False
                self._dispatch.release(grant.grant_id, failed=has_failed)
            response = called.response if called.reason is None else self._own(called.response)
            return self._send(response, called.reason)
        except BodyTooLarge:
            return self._refused("body_too_large", Refusal(413))
        except BodyFailed:
            has_failed = True
            return self._outcome(State.NORMAL, HANDLER_FAILED, Ending.RESET)
        finally:
            self._workers.give_back(version, worker)
            if is_held:
                self._dispatch.release(grant.grant_id, failed=has_failed)

    # The response

    def _own(self, failure: HandlerResponse) -> HandlerResponse:
        """Return the edge's response to a failure with the body that the frontend has for its status, if any."""
        own = self._request.frontend.config.http.error_bodies.get(failure.status)
        if own is None:
            return failure
        headers = [(name, value) for name, value in failure.headers if name != "Content-Type"]
        return failure._replace(headers=[("Content-Type", own.content_type), *headers], body=own.body.encode())

    def _send(self, made: HandlerResponse, reason: str | None) -> Outcome:
        """Send what a handler made, streamed bodies as they come. Raises DownstreamError, BodyFailed."""
        try:
            keeps = self._send_parts(made)
        finally:
            if made.on_close is not None:
                made.on_close()
        return self._outcome(State.NORMAL, reason, Ending.KEEP if keeps else Ending.CLOSE)

    def _send_parts(self, made: HandlerResponse) -> bool:
        request, self._status = self._request, made.status
        keeps = may_keep(request.head, is_request_read=self._is_request_read, is_closing=request.is_last)
        has_body = request.head.method != b"HEAD" and made.status not in _WITHOUT_BODY
        if isinstance(made.body, bytes):
            framing = (b"Content-Length", b"%d" % len(made.body)) if made.status not in _WITHOUT_BODY else None
            head = _head(made, framing, self._request_id, keeps=keeps)
            self._send_all(head + made.body if has_body else head)
            return keeps
        has_length = any(name.lower() == "content-length" for name, _ in made.headers)
        is_chunked = request.head.version == b"1.1" and not has_length
        framing = (b"Transfer-Encoding", b"chunked") if is_chunked else None
        self._send_all(_head(made, framing, self._request_id, keeps=keeps))
        if has_body:
            self._stream(made.body, is_chunked=is_chunked)
        return keeps

    def _stream(self, parts: Iterator[bytes], *, is_chunked: bool) -> None:
        turn_at = time.monotonic()
        for part in parts:
            if part:
                self._send_all(b"%x\r\n%b\r\n" % (len(part), part) if is_chunked else part)
            if time.monotonic() - turn_at > _TURN_SECONDS:  # neither the handler nor the client need ever wait
                self._request.client.let_others_run()
                turn_at = time.monotonic()
        if is_chunked:
            self._send_all(b"0\r\n\r\n")

    def _send_all(self, data: bytes) -> None:
        try:
            self._request.client.send_all(data)
        except SinkError:
            raise DownstreamError(State.CLIENT_RESET, "client_gone") from None

    # Ends

    def _refused(self, reason: str, refusal: Refusal) -> Outcome:
        return self._outcome(State.NORMAL, reason, Ending.CLOSE, refusal)

    def failed(self, state: State, reason: str) -> Outcome:
        """Return the outcome after an error."""
        return self._outcome(state, reason, *ending_of(state, has_begun=self._status is not None))

    def _outcome(self, state: State, reason: str | None, ending: Ending, refusal: Refusal | None = None) -> Outcome:
        return Outcome(
            state,
            reason,
            self._status,
            ending,
            self._is_request_read,
            refusal,
            self.bytes_up,
            self.bytes_down,
            request_id=self._request_id,
            endpoint=self._endpoint,
        )


def _head(made: HandlerResponse, framing: tuple[bytes, bytes] | None, request_id: bytes, *, keeps: bool) -> bytes:
    headers, has_date, has_id = [], False, False
    for name, value in made.headers:
        lower = name.lower()
        has_date = has_date or lower == "date"
        has_id = has_id or lower == "x-request-id"
        headers.append((name.encode(), value.encode("latin-1")))
    if framing is not None:
        headers.append(framing)
    if not has_date:
        headers.append((b"Date", date_now()))
    if not has_id:
        headers.append((b"X-Request-Id", request_id))
    if not keeps:
        headers.append((b"Connection", b"close"))
    return response_bytes(made.status, _PHRASES.get(made.status, b""), headers)


def _environ(request: Request, body: bytes) -> dict[str, Any]:
    """Return the WSGI environment (PEP 3333) of a request whose body has come."""
    head, headers, client = request.head, request.frontend.headers, request.connection.client
    path, _, query = head.target.partition(b"?")
    # HTTP/1.0 has no Host, and PEP 3333 wants a SERVER_NAME.
    authority = head.host.decode() or str(request.connection.listener)
    host, _, port = authority.rpartition(":")
    if not port.isdecimal():  # there is none, or these are the last digits of an IPv6 address
        host, port = authority, "80"
    environ: dict[str, Any] = {
        "REQUEST_METHOD": head.method.decode(),
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
        "QUERY_STRING": query.decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{head.version.decode()}",
        "REMOTE_ADDR": client.address if client is not None else "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": False,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in headers.handler_fields(head, request.sender):
        key = name.decode().upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        comma = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{comma}{text}" if key in environ else text
    if body:
        environ["CONTENT_LENGTH"] = str(len(body))
    return environ
