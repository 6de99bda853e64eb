"""The vocabulary of the handlers actor. Commands are imperative; every message is a request, so that none is lost."""

from __future__ import annotations

from actors.runtime import Request
from app.domain.endpoints import Endpoint, Routes
from app.domain.handler_table import Acquired, EndpointView, Handler, Version


class AcquireHandler(Request[Acquired], frozen=True):
    """Find and reserve what answers a request. Safe to repeat under the same `grant_id`, which the request chose."""

    grant_id: int
    host: str
    """As in the Host header."""
    path: str
    """As in the request line, without the query."""
    method: str


class ReleaseHandler(Request[None], frozen=True):
    """The request that holds this grant has been answered; `failed` when the handler raised or took too long.

    Answered, because a release that went down with an actor's inbox would keep its version for ever.
    """

    grant_id: int
    failed: bool


class DeployHandler(Request[bool], frozen=True):
    """Let a version serve that its sender has loaded; False when there is no such endpoint."""

    endpoint_id: str
    version: Version
    handler: Handler


class UndeployHandler(Request[bool], frozen=True):
    """Let no version serve, and the one that did drain; False when there is no such endpoint."""

    endpoint_id: str


class ReplaceEndpoints(Request[None], frozen=True):
    """Take requests for these endpoints and no others. `routes` were made of them, off the actor."""

    endpoints: tuple[Endpoint, ...]
    routes: Routes


class DescribeEndpoints(Request[list[EndpointView]], frozen=True):
    """Describe every endpoint, by id."""
