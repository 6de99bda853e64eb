"""Reads the whole body of a request into memory: for a handler, or a small one before a backend is leased for it."""

from __future__ import annotations

from typing import Final

from app.domain.errors import DownstreamError
from app.domain.outcome import State
from app.inbound.http.pace import Pace
from app.inbound.http.responder import Request
from app.inbound.http.stream import ClientStream
from app.inbound.tcp.direction import SinkError
from app.wire.http1_chunks import ChunkScanner
from app.wire.http1_faults import BadMessage
from app.wire.http1_framing import Framing

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class BodyTooLarge(Exception):
    """The body has more bytes than the endpoint takes."""


def is_at_hand(request: Request) -> bool:
    """Say whether the body of a request was received with its head, or there is none."""
    head = request.head
    if head.framing is Framing.LENGTH:
        return len(request.client.buffered) >= head.content_length
    return head.framing is Framing.NONE


def read_body(request: Request, limit: int) -> bytes:
    """Return the body, chunks joined, of at most `limit` bytes. Raises BodyTooLarge, DownstreamError."""
    head, client, connection = request.head, request.client, request.connection
    if head.framing is Framing.NONE:
        return b""
    if head.content_length > limit:
        raise BodyTooLarge
    if is_at_hand(request):  # most are short
        body, client.buffered = client.buffered[: head.content_length], client.buffered[head.content_length :]
        return body
    pace = Pace(connection, request.frontend.config.http)
    pace.expect(0)
    if head.expects_continue and not client.buffered:
        _send_continue(client)
    has_length = head.framing is Framing.LENGTH
    body = _read_length(client, pace, head.content_length) if has_length else _read_chunks(client, pace, limit)
    connection.deadline = None
    client.unwatch()
    return body


def _send_continue(client: ClientStream) -> None:
    try:
        client.send_all(_CONTINUE)
    except SinkError:
        raise DownstreamError(State.CLIENT_GONE_IN_REQUEST, "client_gone") from None


def _read_length(client: ClientStream, pace: Pace, length: int) -> bytes:
    data = client.take_buffered()
    parts, left = [], length
    while True:
        parts.append(data[:left])
        client.buffered = data[left:]
        left -= len(parts[-1])
        if left == 0:
            return b"".join(parts)
        data = _more(client)
        pace.expect(length - left + len(data))


def _read_chunks(client: ClientStream, pace: Pace, limit: int) -> bytes:
    scanner, payload, size = ChunkScanner(), [], 0
    data = client.take_buffered()
    while True:
        pieces: list[bytes | memoryview] = []
        try:
            count = scanner.scan(data, pieces)
        except BadMessage as bad:
            raise DownstreamError(State.BODY_BAD, bad.reason) from None
        size += sum(map(len, pieces))
        if size > limit:
            raise BodyTooLarge
        payload += pieces
        if scanner.is_complete:
            client.buffered = data[count:]
            return b"".join(payload)
        data = _more(client)
        pace.expect(size + len(data))


def _more(client: ClientStream) -> bytes:
    data = client.read()
    if not data:
        raise DownstreamError(State.CLIENT_GONE_IN_REQUEST, "client_gone")
    return data
