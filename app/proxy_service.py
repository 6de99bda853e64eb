"""The use case: a client gets a lease on a backend. Asks the actors through futures; knows no socket."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from typing import Final

from actors.messages import (
    BackendConnected,
    Bound,
    ClientLeft,
    ConfirmBinding,
    ConnectionClosed,
    Count,
    DialFailed,
    DialSucceeded,
    Elect,
    ElectionHeld,
    FindBinding,
    LeaseBackend,
    Refused,
    ReleaseLease,
    RestoreLease,
    Unbind,
)
from actors.runtime import Address, ask, tell
from app.domain import metric_names
from app.domain.client import client_key
from app.domain.errors import DownstreamError, NoBackendError
from app.domain.model import GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease, Refusal, State
from app.ports import GeoResolver

ASK_TIMEOUT_SECONDS: Final = 5.0

_MAX_BROKEN_BINDINGS: Final = 3
"""How often one connection asks again because the backend it was bound to had gone meanwhile."""


@dataclass(frozen=True, slots=True)
class Actors:
    """The addresses of the three actors that connections ask."""

    registry: Address
    bindings: Address
    metrics: Address


@dataclass(frozen=True, slots=True)
class Client:
    """Who a connection is for: address in canonical text, its binding key, its location."""

    address: str
    key: str
    geo: GeoInfo | None


class ProxyService:
    """Leases backends to clients and tells the actors what became of the leases."""

    def __init__(
        self, actors: Actors, geo: GeoResolver | None, *, pool: str, ipv6_prefix: int, has_client_limits: bool
    ) -> None:
        self._actors = actors
        self._geo = geo
        self._pool = pool
        self._ipv6_prefix = ipv6_prefix
        self._has_client_limits = has_client_limits
        self._lease_ids = count(1)

    def client(self, address: str) -> Client:
        """Say who is behind an address."""
        return Client(
            address,
            client_key(self._pool, address, self._ipv6_prefix),
            self._geo.resolve(address) if self._geo is not None else None,
        )

    def next_lease_id(self) -> int:
        """Return an id for the next lease; the caller writes it down before it asks."""
        return next(self._lease_ids)

    def lease(self, lease_id: int, client: Client, tried: tuple[str, ...], admission: int) -> Lease:
        """Lease the backend the client is bound to, or the best one for it.

        `tried` are backends this connection could not reach; `admission` is the number under which it counts against
        the client's limits. Raises DownstreamError (over a limit), NoBackendError, AskTimeoutError.
        """
        excluded = tried
        if not self._has_client_limits:
            admission = 0
        for _ in range(_MAX_BROKEN_BINDINGS):
            found = self._find_binding(client, excluded, admission)
            if not isinstance(found, Bound) or found.backend_id in excluded:
                return self._settle(self._elect(lease_id, client, excluded), was_bound=bool(excluded))
            answer = self._ask_registry(lease_id, client, found.backend_id, excluded)
            if isinstance(answer, Lease) or answer.reason is not NoLease.BINDING_BROKEN:
                return self._settle(answer, was_bound=bool(excluded))
            excluded = (*excluded, found.backend_id)
        return self._settle(self._ask_registry(lease_id, client, None, excluded), was_bound=True)

    def _find_binding(self, client: Client, excluded: tuple[str, ...], admission: int) -> Bound | Elect:
        found = ask(self._actors.bindings, FindBinding(client.key, excluded, admission), timeout_s=ASK_TIMEOUT_SECONDS)
        if isinstance(found, Refused):
            self.refused(found.refusal)
            raise DownstreamError(State.CLIENT_LIMIT, found.refusal)
        return found

    def _elect(self, lease_id: int, client: Client, excluded: tuple[str, ...]) -> Lease | Unleased:
        """Hold the election that other connections of the client may be waiting for."""
        backend_id = None
        try:
            answer = self._ask_registry(lease_id, client, None, excluded)
            backend_id = answer.backend.id if isinstance(answer, Lease) else None
            return answer
        finally:
            tell(self._actors.bindings, ElectionHeld(client.key, backend_id))

    def _ask_registry(
        self, lease_id: int, client: Client, preferred: str | None, excluded: tuple[str, ...]
    ) -> Lease | Unleased:
        registry = self._actors.registry
        epoch = registry.epoch
        try:
            answer = ask(
                registry,
                LeaseBackend(lease_id, client.geo, preferred, excluded),
                timeout_s=ASK_TIMEOUT_SECONDS,
            )
        except BaseException:  # also thrown in from outside: the request may still be carried out
            self.release(lease_id)
            raise
        if registry.epoch != epoch and isinstance(answer, Lease):
            tell(registry, RestoreLease(lease_id, answer.backend))  # the granter may be dead, its successor unaware
        return answer

    def _settle(self, answer: Lease | Unleased, *, was_bound: bool) -> Lease:
        if isinstance(answer, Unleased):
            self._count(metric_names.LEASES, answer.reason)
            raise NoBackendError(State.NO_BACKEND, answer.reason)
        if was_bound and answer.affinity is Affinity.NEW:
            return Lease(answer.lease_id, answer.backend, answer.tier, Affinity.REBIND, answer.is_spotless)
        return answer

    def connected(self, lease: Lease, client: Client, seconds: float) -> None:
        """The leased backend answered after `seconds`: bind the client to it, or keep the binding alive."""
        tell(self._actors.metrics, BackendConnected(lease.backend.id, lease.affinity, seconds))
        if lease.affinity is not Affinity.OVERFLOW:
            tell(self._actors.bindings, ConfirmBinding(client.key, lease.backend.id))
        if not lease.is_spotless:
            tell(self._actors.registry, DialSucceeded(lease.backend.id))

    def dial_failed(self, lease: Lease, client: Client, reason: str, former: str | None = None) -> None:
        """The leased backend did not answer: its lease ends and its health suffers.

        The client stays bound where it was before this connection (`former`), until another backend answers.
        """
        tell(self._actors.registry, DialFailed(lease.backend.id))
        self.release(lease.lease_id)
        if lease.affinity is not Affinity.HIT:
            tell(self._actors.bindings, Unbind(client.key, lease.backend.id, former))
        self._count(metric_names.BACKEND_ERRORS, lease.backend.id, reason)

    def release(self, lease_id: int) -> None:
        tell(self._actors.registry, ReleaseLease(lease_id))

    def closed(self, client: Client | None, admission: int, state: State) -> None:
        """A connection has ended, which counted against its client's limits as `admission` (0 = never did)."""
        tell(self._actors.metrics, ConnectionClosed(state))
        if self._has_client_limits and client is not None and admission:
            tell(self._actors.bindings, ClientLeft(client.key, admission))

    def refused(self, refusal: Refusal) -> None:
        self._count(metric_names.CONNECTIONS_REFUSED, refusal)

    def failed(self, where: str) -> None:
        """Count an unexpected exception."""
        self._count(metric_names.INTERNAL_ERRORS, where)

    def _count(self, metric: str, *labels: str) -> None:
        tell(self._actors.metrics, Count(metric, labels))
