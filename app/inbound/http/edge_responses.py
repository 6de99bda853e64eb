"""The edge's own responses to HTTP requests: JSON that says why a request was refused or could not be served.

A frontend may have bodies of its own for them (`error_bodies`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final

import msgspec

from app.config.http_options import ErrorBody
from app.domain.outcome import State
from app.wire.http_date import date_now

STATUS_OF: Final = {
    State.BODY_BAD: 400,
    State.REQUEST_TIMEOUT: 408,
    State.BODY_TOO_LARGE: 413,
    State.NO_BACKEND: 503,
    State.OUT_OF_RESOURCES: 503,
    State.CONNECT_REFUSED: 502,
    State.RESPONSE_FAILED: 502,
    State.RESPONSE_BAD: 502,
    State.CONNECT_TIMEOUT: 504,
    State.RESPONSE_TIMEOUT: 504,
    State.INTERNAL_ERROR: 500,
}
"""The status of the edge's response to a request that ended in this state without one; other states get none."""


class _Body(msgspec.Struct):
    status: int
    error: str
    reason: str
    """As in the access log."""
    request_id: str


def edge_response(
    status: int,
    reason: str,
    request_id: str,
    bodies: Mapping[int, ErrorBody],
    *,
    closes: bool,
    has_body: bool = True,
    extra: Iterable[tuple[str, str]] = (),
) -> bytes:
    """Return a whole response (RFC 9110, section 15).

    `bodies` are those of the frontend by status, `has_body` is false for HEAD, `extra` are further headers.
    """
    phrase = HTTPStatus(status).phrase
    own = bodies.get(status)
    if own is not None:
        content_type, body = own.content_type, own.body.encode()
    else:
        content_type = "application/json"
        body = msgspec.json.encode(_Body(status, phrase, reason, request_id)) + b"\n"
    head = f"HTTP/1.1 {status} {phrase}\r\nDate: {date_now().decode()}\r\n"
    head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\nX-Request-Id: {request_id}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in extra)
    closing = "Connection: close\r\n\r\n" if closes else "\r\n"
    return (head + closing).encode() + (body if has_body else b"")
