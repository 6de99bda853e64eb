"""The messages of the handlers actor. Every message is a request with a reply, so that none is lost."""

from __future__ import annotations

from actors.runtime import Request
from app.domain.endpoints import Endpoint, Routes
from app.domain.handler_table import Acquired, EndpointView, Handler, Unserved, Version


class FindEndpoint(Request[Endpoint | Unserved], frozen=True):
    """Find the endpoint of a request whose body has still to come. The fields are those of AcquireHandler."""

    host: str
    path: str
    method: str


class AcquireHandler(Request[Acquired], frozen=True):
    """Find and reserve the handler of a request. Safe to repeat with the same `grant_id`, which the sender chooses."""

    grant_id: int
    host: str
    """The Host header."""
    path: str
    """The path in the request line, without the query."""
    method: str


class ReleaseHandler(Request[None], frozen=True):
    """Release a grant once the handler has done its work; `failed` if the handler raised or timed out.

    It has a reply, because a release lost with a crashed actor's inbox would keep its version for ever.
    """

    grant_id: int
    failed: bool


class DeployHandler(Request[bool], frozen=True):
    """Serve requests with a loaded version. Replies False if there is no such endpoint."""

    endpoint_id: str
    version: Version
    handler: Handler


class UndeployHandler(Request[bool], frozen=True):
    """Stop serving and drain the current version. Replies False if there is no such endpoint."""

    endpoint_id: str


class ReplaceEndpoints(Request[None], frozen=True):
    """Serve exactly these endpoints. `routes` were built from them, outside the actor."""

    endpoints: tuple[Endpoint, ...]
    routes: Routes


class DescribeEndpoints(Request[list[EndpointView]], frozen=True):
    """Return the state of every endpoint, by id."""
