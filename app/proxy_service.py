"""The use case: lease a backend to a client. Asks the actors through futures and uses no sockets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from actors.messages import (
    AdmitClient,
    BackendConnected,
    Bound,
    ClientLeft,
    ConfirmBinding,
    ConnectionClosed,
    Count,
    FindBinding,
    LeaseBackend,
    ReleaseLease,
    RestoreLease,
    Select,
    Selected,
    TrafficFailed,
    TrafficSucceeded,
    Unbind,
)
from actors.runtime import Address, ask, tell
from app.domain import metric_names
from app.domain.client import Client, client_key
from app.domain.errors import DownstreamError, NoBackendError
from app.domain.model import Backend, Lease, Unleased
from app.domain.outcome import Affinity, NoLease, Refusal, State
from app.ports import GeoResolver

ASK_TIMEOUT_SECONDS: Final = 5.0

_MAX_BROKEN_BINDINGS: Final = 3
"""How often one connection asks again because the backend that it was bound to is gone."""


@dataclass(frozen=True, slots=True)
class Actors:
    """The addresses of the actors."""

    registry: Address
    bindings: Address
    metrics: Address
    health: Address


@dataclass(frozen=True, slots=True)
class Route:
    """The route of a frontend: its pool, and whether its clients are bound to backends and limited."""

    frontend: str
    pool: str
    has_affinity: bool
    has_client_limits: bool


class ProxyService:
    """Leases backends to the clients of one frontend, and reports the outcome of leases to the actors.

    `lease_ids` are unique in the process. `ipv6_prefix` is that of app.domain.client.client_key.
    """

    def __init__(
        self, actors: Actors, geo: GeoResolver | None, route: Route, ipv6_prefix: int, lease_ids: Iterator[int]
    ) -> None:
        self._actors = actors
        self._geo = geo
        self.route = route
        self._ipv6_prefix = ipv6_prefix
        self._lease_ids = lease_ids

    def client(self, address: str) -> Client:
        """Return the client for an address, with its key and location."""
        return Client(
            address,
            client_key(self.route.pool, address, self._ipv6_prefix),
            self._geo.resolve(address) if self._geo is not None else None,
        )

    def next_lease_id(self) -> int:
        """Return an id for the next lease. The caller records it before it asks for the lease."""
        return next(self._lease_ids)

    def admit(self, client: Client, admission: int) -> None:
        """Count a connection against its client's limits. `admission` is a unique number for the connection.

        Raises DownstreamError (a limit is exceeded), AskTimeoutError.
        """
        message = AdmitClient(self.route.frontend, client.key, admission)
        refusal = ask(self._actors.bindings, message, timeout_s=ASK_TIMEOUT_SECONDS)
        if refusal is not None:
            self.refused(refusal)
            raise DownstreamError(State.CLIENT_LIMIT, refusal)

    def lease(self, lease_id: int, client: Client, tried: tuple[str, ...]) -> Lease:
        """Lease the backend that the client is bound to, or the best one for it.

        `tried` are ids of backends that this connection could not reach. Raises NoBackendError, AskTimeoutError.
        """
        if not self.route.has_affinity:
            return self._settle(self._ask_registry(lease_id, client, None, tried), was_bound=False)
        excluded = tried
        for _ in range(_MAX_BROKEN_BINDINGS):
            found = self._find_binding(client, excluded)
            if not isinstance(found, Bound) or found.backend_id in excluded:
                return self._settle(self._select(lease_id, client, excluded), was_bound=bool(excluded))
            response = self._ask_registry(lease_id, client, found.backend_id, excluded)
            if isinstance(response, Lease) or response.reason is not NoLease.BINDING_BROKEN:
                return self._settle(response, was_bound=bool(excluded))
            excluded = (*excluded, found.backend_id)
        return self._settle(self._ask_registry(lease_id, client, None, excluded), was_bound=True)

    def _find_binding(self, client: Client, excluded: tuple[str, ...]) -> Bound | Select:
        return ask(self._actors.bindings, FindBinding(client.key, excluded), timeout_s=ASK_TIMEOUT_SECONDS)

    def _select(self, lease_id: int, client: Client, excluded: tuple[str, ...]) -> Lease | Unleased:
        """Select a backend as the leader: other connections of the client may be waiting for the result."""
        backend_id = None
        try:
            response = self._ask_registry(lease_id, client, None, excluded)
            backend_id = response.backend.id if isinstance(response, Lease) else None
            return response
        finally:
            tell(self._actors.bindings, Selected(client.key, backend_id))

    def _ask_registry(
        self, lease_id: int, client: Client, preferred: str | None, excluded: tuple[str, ...]
    ) -> Lease | Unleased:
        registry = self._actors.registry
        epoch = registry.epoch
        try:
            response = ask(
                registry,
                LeaseBackend(lease_id, self.route.pool, self.route.frontend, client, preferred, excluded),
                timeout_s=ASK_TIMEOUT_SECONDS,
            )
        except BaseException:  # including one thrown into the greenlet: the request may still be carried out
            self.release(lease_id)
            raise
        if registry.epoch != epoch and isinstance(response, Lease):
            # The actor that granted the lease may have died, and its successor may not know of it.
            tell(registry, RestoreLease(self.route.pool, lease_id, response.backend))
        return response

    def _settle(self, response: Lease | Unleased, *, was_bound: bool) -> Lease:
        if isinstance(response, Unleased):
            self._count(metric_names.LEASES, response.reason)
            raise NoBackendError(State.NO_BACKEND, response.reason)
        if was_bound and response.affinity is Affinity.NEW:
            return Lease(response.lease_id, response.backend, response.tier, Affinity.REBIND, response.is_spotless)
        return response

    def connected(self, lease: Lease, client: Client, seconds: float) -> None:
        """Report that the leased backend accepted a connection after `seconds`, and bind the client to it."""
        tell(self._actors.metrics, BackendConnected(self.route.pool, lease.backend.id, lease.affinity, seconds))
        self.keep(lease, client)

    def keep(self, lease: Lease, client: Client) -> None:
        """Bind the client to the backend that serves it, or renew its binding."""
        if self.route.has_affinity and lease.affinity is not Affinity.OVERFLOW:
            tell(self._actors.bindings, ConfirmBinding(client.key, lease.backend.id))

    def dial_failed(self, lease: Lease, client: Client, reason: str, former: str | None = None) -> None:
        """Report that the leased backend could not be reached: release the lease and count the failure.

        The client keeps the binding that it had before this connection (`former`) until another backend accepts.
        """
        self.traffic_failed(lease.backend, reason)
        self.release(lease.lease_id)
        if self.route.has_affinity and lease.affinity is not Affinity.HIT:
            tell(self._actors.bindings, Unbind(client.key, lease.backend.id, former))

    def traffic_failed(self, backend: Backend, reason: str) -> None:
        """Report a failure of the backend in traffic."""
        tell(self._actors.registry, TrafficFailed(self.route.pool, backend, reason))
        self._count(metric_names.BACKEND_ERRORS, self.route.pool, backend.id, reason)

    def traffic_succeeded(self, lease: Lease) -> None:
        """Report that the leased backend has served a client, which clears the failures on its record."""
        if not lease.is_spotless:
            tell(self._actors.registry, TrafficSucceeded(self.route.pool, lease.backend))

    def release(self, lease_id: int) -> None:
        tell(self._actors.registry, ReleaseLease(self.route.pool, lease_id))

    def closed(self, client: Client | None, admission: int, state: State) -> None:
        """Report the end of a connection. `admission` is its number in `admit`, 0 if it was not admitted."""
        tell(self._actors.metrics, ConnectionClosed(state))
        if admission and client is not None:
            tell(self._actors.bindings, ClientLeft(self.route.frontend, client.key, admission))

    def refused(self, refusal: Refusal) -> None:
        self._count(metric_names.CONNECTIONS_REFUSED, refusal)

    def failed(self, where: str) -> None:
        """Count an unexpected exception."""
        self._count(metric_names.INTERNAL_ERRORS, where)

    def _count(self, metric: str, *labels: str) -> None:
        tell(self._actors.metrics, Count(metric, labels))
