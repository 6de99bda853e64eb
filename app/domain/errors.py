"""The one error tree of a connection's life: which side failed and how it ended."""

from __future__ import annotations

from app.domain.outcome import State


class ConnectionEnded(Exception):
    """A connection ended otherwise than by both sides closing it.

    `state` is the termination state of the access log; `reason` a short stable word for it.
    """

    def __init__(self, state: State, reason: str) -> None:
        super().__init__(f"{state} {reason}")
        self.state = state
        self.reason = reason


class DownstreamError(ConnectionEnded):
    """The client's side failed: its PROXY header, its limits, or it went away."""


class UpstreamError(ConnectionEnded):
    """The backend's side failed."""


class ResponseError(UpstreamError):
    """The backend gave no proper answer to an HTTP request."""


class DialError(UpstreamError):
    """No connection to the backend came about. No byte was sent, so another backend may be tried."""


class NoBackendError(UpstreamError):
    """The registry leased nobody."""


class Killed(ConnectionEnded):
    """We ended it: a timeout of ours, a drain, an operator. Thrown into the connection's greenlet."""
