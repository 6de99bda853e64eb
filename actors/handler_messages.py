"""The messages of the handlers actor. All are requests, so that none is lost."""

from __future__ import annotations

from actors.runtime import Request
from app.domain.endpoints import Endpoint, Routes
from app.domain.handler_table import Acquired, EndpointView, Handler, Version


class AcquireHandler(Request[Acquired], frozen=True):
    """Find and reserve the handler of a request. Safe to repeat with the same `grant_id`, which the request chose."""

    grant_id: int
    host: str
    """As in the Host header."""
    path: str
    """As in the request line, without the query."""
    method: str


class ReleaseHandler(Request[None], frozen=True):
    """Release the grant of a finished request; `failed` if the handler raised or timed out.

    A request with a reply, because a release lost with an actor's inbox would keep its version forever.
    """

    grant_id: int
    failed: bool


class DeployHandler(Request[bool], frozen=True):
    """Serve a version that the sender has loaded. The reply is False if there is no such endpoint."""

    endpoint_id: str
    version: Version
    handler: Handler


class UndeployHandler(Request[bool], frozen=True):
    """Serve no version, and drain the present one. The reply is False if there is no such endpoint."""

    endpoint_id: str


class ReplaceEndpoints(Request[None], frozen=True):
    """Serve exactly these endpoints. `routes` were built from them outside the actor."""

    endpoints: tuple[Endpoint, ...]
    routes: Routes


class DescribeEndpoints(Request[list[EndpointView]], frozen=True):
    """Describe every endpoint, sorted by id."""
