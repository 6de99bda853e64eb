"""Calls a handler and makes an answer of whatever comes of it: what it returned, 500 when it failed, 504 when late.

A handler that lets a service's word pass through answers with that: 503 for busy or down, 504 for late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Final, NamedTuple

import gevent
import msgspec
from loguru import logger
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Request

from app.domain.errors import ConnectionEnded
from app.domain.handler_table import Grant
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceTimeout
from app.gateway.context import Context
from app.gateway.handler_module import words_of
from app.gateway.responses import JSON, BadHandlerResponse, HandlerResponse, response_of

HANDLER_FAILED: Final = "handler_failed"
HANDLER_TIMEOUT: Final = "handler_timeout"
SERVICE_BUSY: Final = "service_busy"
SERVICE_DOWN: Final = "service_down"
SERVICE_TIMEOUT: Final = "service_timeout"
_FAULTS: Final = {
    # reason: status and phrase of the answer
    HANDLER_FAILED: (500, "Internal Server Error"),
    HANDLER_TIMEOUT: (504, "Gateway Timeout"),
    SERVICE_BUSY: (503, "Service Unavailable"),
    SERVICE_DOWN: (503, "Service Unavailable"),
    SERVICE_TIMEOUT: (504, "Gateway Timeout"),
}
_SERVICE_RETRY_SECONDS: Final = "1"
"""For Retry-After: a busy or lost service may be back by then."""


class Called(NamedTuple):
    """What came of a call. `reason` is a short word, None when the handler answered; then nothing has failed.

    The grant is to be released when the body has been sent, and as failed when there is a reason or the body raised.
    """

    response: HandlerResponse
    reason: str | None


class BodyFailed(Exception):
    """A streamed body broke off: its handler failed, which was logged. What was sent must not look whole."""


def call_handler(grant: Grant, request: Request, context: Context) -> Called:
    """Run the granted handler within its endpoint's time.

    Never raises for what the handler does, whatever it raises: a SystemExit that left the greenlet would end the edge.
    What ends a connection from outside passes through: Killed (and any ConnectionEnded, which no handler can know). A
    gevent.Timeout is always taken for the handler's: the caller has none pending. The time is until the handler
    returns; a streamed body takes what the client takes.
    """
    timeout = gevent.Timeout(grant.endpoint.timeout_seconds)
    timeout.start()
    try:
        response = response_of(_returned(grant, request, context), request)
    except ConnectionEnded:
        raise
    except BaseException as error:
        return _failure(HANDLER_TIMEOUT if error is timeout else _reason(error), error, grant, context)
    finally:
        timeout.close()
    if response.on_close is not None:
        response = response._replace(on_close=_closing(response.on_close, grant, context))
    if not isinstance(response.body, bytes):
        response = response._replace(body=_watched(response.body, grant, context))
    return Called(response, None)


def _returned(grant: Grant, request: Request, context: Context) -> object:
    """Call the handler; one that aborts has returned that."""
    try:
        return grant.handler(request, context)
    except HTTPException as raised:
        return raised


def _reason(error: BaseException) -> str:
    match error:
        case ServiceBusy():
            return SERVICE_BUSY
        case ServiceDown():
            return SERVICE_DOWN
        case ServiceTimeout():
            return SERVICE_TIMEOUT
        case _:
            return HANDLER_FAILED


def _failure(reason: str, error: BaseException, grant: Grant, context: Context) -> Called:
    """Log what the handler did, with its traceback, and answer with the request id to find it by."""
    status, phrase = _FAULTS[reason]
    _log(reason, error, grant, context)
    body = msgspec.json.encode({"status": status, "error": phrase, "reason": reason, "request_id": context.request_id})
    headers = [("Content-Type", JSON)]
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers.append(("Retry-After", _SERVICE_RETRY_SECONDS))
    return Called(HandlerResponse(status, headers, body + b"\n"), reason)


def _log(reason: str, error: BaseException, grant: Grant, context: Context) -> None:
    name, number = grant.endpoint.id, grant.version.number
    bound = logger.bind(endpoint=name, version=number, request_id=context.request_id, reason=reason)
    if reason == HANDLER_TIMEOUT:
        bound.opt(exception=error).error(
            "endpoint {}: version {} took longer than {:g} s", name, number, grant.endpoint.timeout_seconds
        )
    elif reason != HANDLER_FAILED:
        bound.error("endpoint {}: version {} was let down: {}", name, number, error)
    elif isinstance(error, BadHandlerResponse):
        bound.error("endpoint {}: version {} gave no answer: {}", name, number, error)
    else:
        bound.opt(exception=error).error("endpoint {}: version {} failed: {}", name, number, words_of(error))


def _watched(parts: Iterator[bytes], grant: Grant, context: Context) -> Iterator[bytes]:
    """Pass a streamed body on; raises BodyFailed, once logged, where the handler fails in it."""
    while True:
        try:
            part = next(parts)
        except StopIteration:
            return
        except ConnectionEnded:
            raise
        except BaseException as error:
            _log(HANDLER_FAILED, error, grant, context)
            raise BodyFailed from None
        yield part


def _closing(close: Callable[[], object], grant: Grant, context: Context) -> Callable[[], None]:
    """Return what closes an answer, which is the handler's code again: what it raises is logged and no more."""

    def closed() -> None:
        try:
            close()
        except ConnectionEnded:
            raise
        except BaseException as error:
            _log(HANDLER_FAILED, error, grant, context)

    return closed
