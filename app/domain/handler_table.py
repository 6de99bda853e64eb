"""The table of handler versions: which one serves each endpoint, which ones drain, and their requests in flight.

A request holds a grant while its handler works: not while its body comes, nor while a finished response is sent. The
grant names one version, which handles the whole request. Looking up the serving version and counting the request are
one step. So a draining version gets no new requests, and none can arrive after it has been dropped at a count of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from app.domain.endpoints import Endpoint, MethodNotAllowed, Routes

Handler = Callable[[Any, Any], Any]
"""Takes a request and a context, returns a response."""

RETRY_AFTER_SECONDS: Final = 1
"""Sent as Retry-After when an endpoint is at its concurrency limit."""


class Version(NamedTuple):
    """A version of a handler: its number within the endpoint, the SHA-256 of its source in hex, Unix seconds."""

    number: int
    checksum: str
    deployed_at: float


class Grant(NamedTuple):
    """A request's permission to run one version of a handler. `params` are the path parameters."""

    grant_id: int
    endpoint: Endpoint
    params: Mapping[str, Any]
    version: Version
    handler: Handler


class NoEndpoint(NamedTuple):
    """No endpoint matches the request."""


class NotDeployed(NamedTuple):
    """The matching endpoint has no handler."""

    endpoint_id: str


class Busy(NamedTuple):
    """The matching endpoint is at its concurrency limit."""

    endpoint_id: str
    retry_after_seconds: int


Unserved = NoEndpoint | MethodNotAllowed | NotDeployed
Acquired = Grant | Unserved | Busy


class Dropped(NamedTuple):
    """A version that the table no longer refers to: once the caller is done with this record, it is garbage."""

    endpoint_id: str
    version: Version


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version in memory. `draining_since` is Unix seconds, None while it serves."""

    version: Version
    active: int
    served: int
    errors: int
    draining_since: float | None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint and its versions in memory. The counts cover all versions since the start.

    `served` counts finished requests, `errors` those of them in which the handler failed, `refused` the requests over
    `max_concurrency`.
    """

    endpoint: Endpoint
    serving: VersionView | None
    draining: tuple[VersionView, ...]
    active: int
    served: int
    errors: int
    refused: int


@dataclass(slots=True, eq=False)
class _LoadedVersion:
    """A version in memory."""

    version: Version
    handler: Handler
    active: int = 0
    served: int = 0
    errors: int = 0
    draining_since: float | None = None

    def view(self) -> VersionView:
        return VersionView(self.version, self.active, self.served, self.errors, self.draining_since)


@dataclass(slots=True, eq=False)
class _EndpointState:
    """An endpoint with its versions in memory."""

    endpoint: Endpoint
    serving: _LoadedVersion | None = None
    draining: list[_LoadedVersion] = field(default_factory=list)
    active: int = 0
    served: int = 0
    errors: int = 0
    refused: int = 0

    def view(self) -> EndpointView:
        return EndpointView(
            self.endpoint,
            self.serving.view() if self.serving is not None else None,
            tuple(loaded.view() for loaded in self.draining),
            self.active,
            self.served,
            self.errors,
            self.refused,
        )


class _Found(NamedTuple):
    """The endpoint of a request, the version that serves it, and the parameters in its path."""

    state: _EndpointState
    loaded: _LoadedVersion
    params: Mapping[str, Any]


class HandlerTable:
    """The versions in memory of every endpoint. `now` is always Unix seconds."""

    def __init__(self, routes: Routes) -> None:
        """`routes` must be empty: there are no endpoints yet."""
        self._routes = routes
        self._endpoints: dict[str, _EndpointState] = {}
        self._active_grants: dict[int, tuple[Grant, _Found]] = {}
        """Those that were not released, by id."""

    def replace_endpoints(self, endpoints: Iterable[Endpoint], routes: Routes, now: float) -> list[Dropped]:
        """Serve exactly these endpoints from now on. Endpoints that remain keep their versions.

        The versions of removed endpoints drain. Returns the versions dropped at once.
        """
        before, self._endpoints = self._endpoints, {}
        for endpoint in endpoints:
            state = before.pop(endpoint.id) if endpoint.id in before else _EndpointState(endpoint)
            self._endpoints[endpoint.id] = state
            state.endpoint = endpoint
        self._routes = routes
        return [dropped for state in before.values() for dropped in _drain(state, now)]

    def find(self, host: str, path: str, method: str) -> Endpoint | Unserved:
        """Return the endpoint that a request is for, or why no handler can take it. Counts nothing."""
        found = self._find(host, path, method)
        return found.state.endpoint if isinstance(found, _Found) else found

    def _find(self, host: str, path: str, method: str) -> _Found | Unserved:
        match = self._routes.match(host, path, method)
        if match is None:
            return NoEndpoint()
        if isinstance(match, MethodNotAllowed):
            return match
        state = self._endpoints[match.endpoint_id]
        if state.serving is None:
            return NotDeployed(match.endpoint_id)
        return _Found(state, state.serving, match.params)

    def acquire(self, grant_id: int, host: str, path: str, method: str) -> Acquired:
        """Grant a request the serving version, and count the request.

        Safe to repeat with the same `grant_id`, which the request chose: the existing grant is returned.
        """
        if grant_id in self._active_grants:
            return self._active_grants[grant_id][0]
        found = self._find(host, path, method)
        if not isinstance(found, _Found):
            return found
        state, loaded, params = found
        endpoint = state.endpoint
        if 0 < endpoint.max_concurrency <= state.active:
            state.refused += 1
            return Busy(endpoint.id, RETRY_AFTER_SECONDS)
        state.active += 1
        loaded.active += 1
        grant = Grant(grant_id, endpoint, params, loaded.version, loaded.handler)
        self._active_grants[grant_id] = grant, found
        return grant

    def release(self, grant_id: int, failed: bool) -> Dropped | None:
        """Release a grant; repeated releases have no effect. Return the version that was dropped, if any."""
        active = self._active_grants.pop(grant_id, None)
        if active is None:
            return None
        _, (state, loaded, _) = active
        for counts in (state, loaded):
            counts.active -= 1
            counts.served += 1
            counts.errors += failed
        if loaded.active or loaded.draining_since is None:
            return None
        state.draining.remove(loaded)
        return Dropped(state.endpoint.id, loaded.version)

    def swap(self, endpoint_id: str, version: Version, handler: Handler, now: float) -> list[Dropped]:
        """Serve this version from now on. The former one drains, or is dropped at once if it has no requests.

        Safe to repeat with the same handler. Raises KeyError if there is no such endpoint.
        """
        state = self._endpoints[endpoint_id]
        if state.serving is not None and state.serving.handler is handler:
            return []
        dropped = _drain(state, now)
        state.serving = _LoadedVersion(version, handler)
        return dropped

    def undeploy(self, endpoint_id: str, now: float) -> list[Dropped]:
        """Serve no version from now on; the present one drains. Raises KeyError if there is no such endpoint."""
        return _drain(self._endpoints[endpoint_id], now)

    def views(self) -> list[EndpointView]:
        """Return every endpoint, sorted by id."""
        return [self._endpoints[endpoint_id].view() for endpoint_id in sorted(self._endpoints)]


def _drain(state: _EndpointState, now: float) -> list[Dropped]:
    loaded, state.serving = state.serving, None
    if loaded is None:
        return []
    if not loaded.active:
        return [Dropped(state.endpoint.id, loaded.version)]
    loaded.draining_since = now
    state.draining.append(loaded)
    return []
