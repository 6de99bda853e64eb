"""Calls a handler and makes a response of the result: what it returned, 500 if it failed, 504 if it timed out.

A service error that the handler does not catch becomes 503 (service busy or down) or 504 (service timeout).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

import msgspec
from loguru import logger
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from app.domain.handler_table import Grant
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceTimeout
from app.gateway.context import Context
from app.gateway.description import describe_in
from app.gateway.responses import JSON, BadHandlerResponse, HandlerResponse, error_of, response_of
from app.gateway.workers import CodeRaised, Overrun, TookTooLong, Worker

HANDLER_FAILED: Final = "handler_failed"
HANDLER_TIMEOUT: Final = "handler_timeout"
SERVICE_BUSY: Final = "service_busy"
SERVICE_DOWN: Final = "service_down"
SERVICE_TIMEOUT: Final = "service_timeout"
_FAULTS: Final = {
    # reason: status and phrase of the response
    HANDLER_FAILED: (500, "Internal Server Error"),
    HANDLER_TIMEOUT: (504, "Gateway Timeout"),
    SERVICE_BUSY: (503, "Service Unavailable"),
    SERVICE_DOWN: (503, "Service Unavailable"),
    SERVICE_TIMEOUT: (504, "Gateway Timeout"),
}
_SERVICE_RETRY_SECONDS: Final = "1"
"""Retry-After for a service that is busy or down."""


class Called(NamedTuple):
    """The result of a call. `reason` is a short word for the failure, None if the handler succeeded.

    Release the grant after the body was sent; as failed if there is a reason or the body raised.
    """

    response: HandlerResponse
    reason: str | None


class BodyFailed(Exception):
    """A handler failed, and was logged, while streaming its body. The response must not look complete to the client."""


def call_handler(worker: Worker, grant: Grant, request: Request, context: Context) -> Called:
    """Run the granted handler in the worker, within its endpoint's timeout.

    No exception of the handler propagates: a SystemExit that left the greenlet would end the edge. What is thrown into
    the waiting greenlet from outside does, such as Killed; the handler's code is then abandoned, as after the timeout.
    The timeout applies until the handler returns, not to a streamed body. If another handler held the event loop when
    it was due, it applies only to a handler that still waits afterwards, because gevent runs timeouts after everything
    else that is due. A handler that computes for too long is ended by app.gateway.blocking instead.
    """
    try:
        response = worker.run_within(grant.endpoint.timeout_seconds, _respond, grant, request, context)
    except CodeRaised as raised:
        return _failure(worker, _reason(raised.error), raised.error, grant, context)
    except TookTooLong:
        return _failure(worker, HANDLER_TIMEOUT, worker.stack(), grant, context)
    if response.on_close is not None:
        response = response._replace(on_close=_closing(worker, response.on_close, grant, context))
    if not isinstance(response.body, bytes):
        response = response._replace(body=_watched(worker, response.body, grant, context))
    return Called(response, None)


def _respond(grant: Grant, request: Request, context: Context) -> HandlerResponse:
    """Call the handler; an HTTPException it raises (`abort`) counts as returned."""
    try:
        returned = grant.handler(request, context)
    except HTTPException as raised:
        returned = raised
    error = error_of(returned, request, context.request_id) if isinstance(returned, HTTPException) else None
    return error or response_of(returned, request)


def _reason(error: BaseException) -> str:
    match error:
        case ServiceBusy():
            return SERVICE_BUSY
        case ServiceDown():
            return SERVICE_DOWN
        case ServiceTimeout():
            return SERVICE_TIMEOUT
        case Overrun():
            return HANDLER_TIMEOUT
        case _:
            return HANDLER_FAILED


def _failure(worker: Worker, reason: str, error: BaseException | str, grant: Grant, context: Context) -> Called:
    """Log the failure with its traceback or stack; the response carries the request id to find it in the log."""
    status, phrase = _FAULTS[reason]
    _log(worker, reason, error, grant, context)
    body = msgspec.json.encode({"status": status, "error": phrase, "reason": reason, "request_id": context.request_id})
    headers = [("Content-Type", JSON)]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", _SERVICE_RETRY_SECONDS))
    return Called(HandlerResponse(status, headers, body + b"\n"), reason)


def _log(worker: Worker, reason: str, error: BaseException | str, grant: Grant, context: Context) -> None:
    """Log an exception, or the stack of code that took too long."""
    name, number, seconds = grant.endpoint.id, grant.version.number, grant.endpoint.timeout_seconds
    bound = logger.bind(endpoint=name, version=number, request_id=context.request_id, reason=reason)
    if isinstance(error, str):
        bound.error("endpoint {}: version {} took longer than {:g} s:\n{}", name, number, seconds, error)
        return
    text, line, traceback = describe_in(worker, error)
    if reason == HANDLER_TIMEOUT:
        bound.bind(traceback=traceback).error("endpoint {}: version {} took longer than {:g} s", name, number, seconds)
    elif reason != HANDLER_FAILED:
        bound.error("endpoint {}: version {} failed because of a service: {}", name, number, text)
    elif isinstance(error, BadHandlerResponse):
        bound.error("endpoint {}: version {} returned no valid response: {}", name, number, text)
    else:
        bound.bind(traceback=traceback).error("endpoint {}: version {} failed: {}", name, number, line)


def _watched(worker: Worker, parts: Iterator[bytes], grant: Grant, context: Context) -> Iterator[bytes]:
    """Yield the parts of a streamed body. Logs a failure of the handler and raises BodyFailed."""
    while True:
        try:
            part = worker.run(next, parts, None)
        except CodeRaised as raised:
            _log(worker, HANDLER_FAILED, raised.error, grant, context)
            raise BodyFailed from None
        if part is None:
            return
        yield part


def _closing(worker: Worker, close: Callable[[], object], grant: Grant, context: Context) -> Callable[[], None]:
    """Wrap a response's `close`, which is code of the handler, in the endpoint's timeout. Failures are only logged."""

    def closed() -> None:
        if worker.is_abandoned:
            return
        try:
            worker.run_within(grant.endpoint.timeout_seconds, close)
        except CodeRaised as raised:
            _log(worker, HANDLER_FAILED, raised.error, grant, context)
        except TookTooLong:
            _log(worker, HANDLER_TIMEOUT, worker.stack(), grant, context)

    return closed
