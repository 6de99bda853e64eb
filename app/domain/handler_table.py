"""Which version of which handler serves, which ones drain, and how many requests each has: acquire, release, swap.

A request holds a grant from its match to the last byte of its answer. The grant names one version, so a request is
answered wholly by it. Granting counts in the same step as it looks who serves: a version that has begun to drain is not
found any more, and one that drains is dropped when its count is nought, so no request slips in after that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from app.domain.endpoints import Endpoint, MethodNotAllowed, Routes

Handler = Callable[[Any, Any], Any]
"""Takes a request and a context, returns an answer."""

RETRY_AFTER_SECONDS: Final = 1
"""What a client that met the limit of an endpoint is told to wait."""


class Version(NamedTuple):
    """A version of a handler's source: its number within the endpoint, SHA-256 in hex, Unix seconds of its swap."""

    number: int
    checksum: str
    deployed_at: float


class Grant(NamedTuple):
    """A request's permission to run one version of a handler. `params` are those of the path."""

    grant_id: int
    endpoint: Endpoint
    params: Mapping[str, Any]
    version: Version
    handler: Handler


class NoEndpoint(NamedTuple):
    """No endpoint takes such a request."""


class NotDeployed(NamedTuple):
    """The endpoint takes such a request and has no handler."""

    endpoint_id: str


class Busy(NamedTuple):
    """The endpoint has as many requests as it may have at once."""

    endpoint_id: str
    retry_after_seconds: int


Acquired = Grant | NoEndpoint | MethodNotAllowed | NotDeployed | Busy


class Dropped(NamedTuple):
    """A version that nobody refers to any more but, until they go on, those who read this."""

    endpoint_id: str
    version: Version


@dataclass(frozen=True, slots=True)
class VersionView:
    """A version in memory. `draining_since` in Unix seconds, None when it serves."""

    version: Version
    active: int
    served: int
    errors: int
    draining_since: float | None


@dataclass(frozen=True, slots=True)
class EndpointView:
    """An endpoint and what its versions in memory do. The counts are over all versions since the start.

    `served` counts requests that have ended, `errors` those of them that the handler failed, `refused` those over
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
class _Loaded:
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
class _Desk:
    """An endpoint with its versions in memory."""

    endpoint: Endpoint
    serving: _Loaded | None = None
    draining: list[_Loaded] = field(default_factory=list)
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


class _Held(NamedTuple):
    """A grant that was not released yet."""

    grant: Grant
    desk: _Desk
    loaded: _Loaded


class HandlerTable:
    """The versions in memory of every endpoint. `now` is Unix seconds throughout."""

    def __init__(self, routes: Routes) -> None:
        """`routes` are those of no endpoints."""
        self._routes = routes
        self._desks: dict[str, _Desk] = {}
        self._held: dict[int, _Held] = {}

    def replace_endpoints(self, endpoints: Iterable[Endpoint], routes: Routes, now: float) -> list[Dropped]:
        """Take requests for these endpoints and no others from now on; versions of those that stay stay.

        Those of an endpoint that is gone drain.
        """
        before, self._desks = self._desks, {}
        for endpoint in endpoints:
            desk = before.pop(endpoint.id) if endpoint.id in before else _Desk(endpoint)
            self._desks[endpoint.id] = desk
            desk.endpoint = endpoint
        self._routes = routes
        return [dropped for desk in before.values() for dropped in _drain(desk, now)]

    def acquire(self, grant_id: int, host: str, path: str, method: str) -> Acquired:
        """Grant a request the version that serves, and count it.

        Safe to repeat under the same `grant_id`, which the request chose: it gets what it has.
        """
        if grant_id in self._held:
            return self._held[grant_id].grant
        match = self._routes.match(host, path, method)
        if match is None:
            return NoEndpoint()
        if isinstance(match, MethodNotAllowed):
            return match
        desk = self._desks[match.endpoint_id]
        loaded, endpoint = desk.serving, desk.endpoint
        if loaded is None:
            return NotDeployed(endpoint.id)
        if 0 < endpoint.max_concurrency <= desk.active:
            desk.refused += 1
            return Busy(endpoint.id, RETRY_AFTER_SECONDS)
        desk.active += 1
        loaded.active += 1
        grant = Grant(grant_id, endpoint, match.params, loaded.version, loaded.handler)
        self._held[grant_id] = _Held(grant, desk, loaded)
        return grant

    def release(self, grant_id: int, failed: bool) -> Dropped | None:
        """Take a grant back, once however often it is told; returns the version that was waiting for that."""
        held = self._held.pop(grant_id, None)
        if held is None:
            return None
        _, desk, loaded = held
        for counts in (desk, loaded):
            counts.active -= 1
            counts.served += 1
            counts.errors += failed
        if loaded.active or loaded.draining_since is None:
            return None
        desk.draining.remove(loaded)
        return Dropped(desk.endpoint.id, loaded.version)

    def swap(self, endpoint_id: str, version: Version, handler: Handler, now: float) -> list[Dropped]:
        """Let a version serve from now on; the former one drains, and is dropped at once when it has no requests.

        Safe to repeat with the same handler. Raises KeyError: there is no such endpoint.
        """
        desk = self._desks[endpoint_id]
        if desk.serving is not None and desk.serving.handler is handler:
            return []
        dropped = _drain(desk, now)
        desk.serving = _Loaded(version, handler)
        return dropped

    def undeploy(self, endpoint_id: str, now: float) -> list[Dropped]:
        """Let no version serve from now on; the one that did drains. Raises KeyError: there is no such endpoint."""
        return _drain(self._desks[endpoint_id], now)

    def views(self) -> list[EndpointView]:
        """Return every endpoint, by id."""
        return [self._desks[endpoint_id].view() for endpoint_id in sorted(self._desks)]


def _drain(desk: _Desk, now: float) -> list[Dropped]:
    loaded, desk.serving = desk.serving, None
    if loaded is None:
        return []
    if not loaded.active:
        return [Dropped(desk.endpoint.id, loaded.version)]
    loaded.draining_since = now
    desk.draining.append(loaded)
    return []
