"""Passes interim responses (1xx) on to the client, and other heads that must go whole."""

from __future__ import annotations

from typing import Final

from app.domain.errors import DownstreamError
from app.domain.outcome import State
from app.inbound.http.responder import Request
from app.inbound.http.stream import ClientStream
from app.inbound.http.upload import Upload, expect_response
from app.inbound.tcp.direction import SinkError
from app.wire.http1 import ResponseHead

MOST_INTERIM_BYTES: Final = 256 * 1024
"""Of 1xx responses before the final one. Each gives the backend its time again, so they need another bound."""
_CONTINUE: Final = 100


def pass_on_interim(request: Request, head: ResponseHead, upload: Upload | None) -> None:
    """Pass a 1xx on to clients that know of them (RFC 9110, section 15.2). Raises DownstreamError."""
    if request.head.version != b"1.0":
        headers = request.frontend.headers
        send_at_once(request.client, headers.response_head(head, connection_option=b"", is_chunked=False))
    if upload is None or upload.is_over:
        expect_response(request)
    elif head.status == _CONTINUE:
        upload.invite()


def send_at_once(client: ClientStream, data: bytes) -> None:
    """Send a head that must go whole: it is short, and the client has nothing else to read yet.

    Raises DownstreamError.
    """
    try:
        is_sent = client.send(data) == len(data)
    except SinkError:
        is_sent = False
    if not is_sent:
        raise DownstreamError(State.CLIENT_GONE_WAITING, "client_gone")
