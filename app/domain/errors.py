"""The exceptions that end a connection: which side failed, and how."""

from __future__ import annotations

from app.domain.outcome import State


class ConnectionEnded(Exception):
    """A connection ended in another way than both sides closing it.

    `state` is the termination state in the access log; `reason` is a short, stable word for it.
    """

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(f"{state} {reason}")
        self.state = state
        self.reason = reason


class DownstreamError(ConnectionEnded):
    """The client side failed: a bad PROXY header, a limit, or a client that disconnected."""


class UpstreamError(ConnectionEnded):
    """The backend side failed."""


class ResponseError(UpstreamError):
    """The backend gave no valid response to an HTTP request."""


class DialError(UpstreamError):
    """Connecting to the backend failed. No byte was sent, so another backend may be tried."""


class NoBackendError(UpstreamError):
    """The registry had no backend to lease."""


class Killed(ConnectionEnded):
    """The edge ended the connection: a timeout, a drain or an operator. Thrown into the connection's greenlet."""
