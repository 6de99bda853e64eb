"""What serves a request, as its connection sees it: a request and the client's stream go in, one outcome comes out.

There are two responders: app.inbound.http.proxying (a backend) and app.inbound.http.handling (an endpoint's handler).
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Protocol

import msgspec

from app.domain.outcome import State
from app.inbound.connections import Connection, Progress
from app.inbound.frontend import OpenFrontend
from app.inbound.http.edge_responses import STATUS_OF
from app.inbound.http.stream import ClientStream
from app.wire.http1 import RequestHead
from app.wire.http1_forwarding import Sender


class Request(msgspec.Struct, frozen=True):
    """One request: its head, and the connection that it came by. Its body is still to be read from `client`."""

    head: RequestHead
    client: ClientStream
    connection: Connection
    frontend: OpenFrontend
    sender: Sender

    @property
    def is_last(self) -> bool:
        """No further request is wanted, or none will come."""
        client = self.client
        return self.connection.live.is_closing or (client.has_ended and not client.buffered)


class Ending(Enum):
    """What becomes of the client's connection after a request."""

    KEEP = auto()
    """It may bring another request."""
    CLOSE = auto()
    RESET = auto()
    """A response was begun and is incomplete: the client must not take it for a complete one."""
    HANDED_OVER = auto()
    """It has served another protocol until its end."""


class Refusal(msgspec.Struct, frozen=True):
    """A response of the edge's own, instead of a backend's or a handler's. `headers` are added to it."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


class Outcome(msgspec.Struct, frozen=True):
    """What became of a request."""

    state: State
    """How the request ended: the termination state of the access log."""
    reason: str | None
    """A short word for that, or why the edge refused it."""
    status: int | None
    """Of the response that the client got from a backend or a handler."""
    ending: Ending
    """Not used with a `refusal`: then the connection decides by may_keep."""
    is_request_read: bool = True
    """All of the request was read from the client."""
    refusal: Refusal | None = None
    """What the connection is to respond itself; then `status` is None."""
    bytes_up: int = 0
    """Sent to the backend, or the size of the body that the handler got."""
    bytes_down: int = 0
    """Sent to the client, without `refusal`."""
    backend_failure: str | None = None
    """What speaks against the backend, a short word."""
    request_id: bytes = b""
    pool: str = ""
    """The pool that the request was for; empty for endpoints."""
    endpoint: str | None = None
    """The endpoint that took it."""


class Work(Progress, Protocol):
    """A responder's work on one request."""

    def run(self) -> Outcome | None:
        """Serve the request; None, and nothing was touched, when it is for the next responder.

        Raises ConnectionEnded, and whatever a bug raises.
        """

    def failed(self, state: State, reason: str) -> Outcome:
        """Return the outcome as it stands after an error."""


class Responder(Protocol):
    """Serves requests."""

    def serves(self, frontend: OpenFrontend) -> bool:
        """Say whether requests of this frontend may be for it."""

    def begin(self, request: Request) -> Work:
        """Return the work on a request, not begun."""


def ending_of(state: State, *, has_begun: bool) -> tuple[Ending, Refusal | None]:
    """Decide what follows a failed request.

    A reset once its response has begun; else the edge's own response if the state has a status; else a plain close.
    """
    if has_begun:
        return Ending.RESET, None
    status = STATUS_OF.get(state)
    return Ending.CLOSE, Refusal(status) if status is not None else None
