"""The actors that connections use, started without an edge, for tests with real messages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import count

from actors.bindings import BindingsActor
from actors.messages import AdmitClient, Bound, DescribePool, FindBinding, Select
from actors.metrics import MetricsActor
from actors.registry import RegistryActor
from actors.runtime import Address, GeventFuture, Ping, ask
from app.domain.affinity import AffinityTable
from app.domain.client import Client
from app.domain.health import HealthRules
from app.domain.limits import ClientLimits, LimitRules
from app.domain.measures import Measures
from app.domain.model import Backend, GeoInfo, Lease
from app.domain.outcome import Refusal
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.selection import Selector, make_selector
from app.domain.single_flight import SingleFlight
from app.proxy_service import Actors, ProxyService, Route

POOL, FRONTEND = "default", "edge"
PLAN = PoolPlan(POOL, HealthRules(), (SelectorPlan(FRONTEND, "geo"),))


def backend(name: str, **columns: object) -> Backend:
    """Return a backend in Brazil."""
    return Backend(
        **{"id": name, "app": None, "region": "sa", "country": "BR", "host": "127.0.0.1", "port": 1, **columns}
    )


def make_for_brazil(plan: SelectorPlan) -> Selector:
    """Make the selector for a plan, at an edge in sa."""
    return make_selector(
        plan.algorithm, pop_region="sa", rng=random.Random(1), spills_at_soft_limit=plan.spills_at_soft_limit
    )


class EdgeActors:
    """Registry, bindings and metrics. The bindings' table, limits and selections outlive the actor, as in an edge.

    POOL and FRONTEND are the defaults for backends, leases and limits.
    """

    def __init__(
        self,
        backends: Sequence[Backend] = (),
        *,
        plans: Sequence[PoolPlan] = (PLAN,),
        registry: type[RegistryActor] = RegistryActor,
        ttl_seconds: float = 600.0,
        max_connections_per_client: int = 0,
        connections_per_second: float = 0.0,
    ) -> None:
        self.addresses = Actors(Address("registry"), Address("bindings"), Address("metrics"), Address("health"))
        self.plans = plans
        self.admissions = count(1)
        self.lease_ids = count(1)
        self.table = AffinityTable(ttl_seconds, capacity=10_000)
        rules = LimitRules(max_connections_per_client, connections_per_second)
        self.limits = {FRONTEND: ClientLimits(rules)} if rules.are_enabled else {}
        self.selectors: SingleFlight[GeventFuture[Bound | Select]] = SingleFlight()
        self.measures = Measures()
        self.addresses.metrics.publish(MetricsActor.start(self.measures))
        self.start_registry(backends, kind=registry)
        self.start_bindings()

    def start_registry(
        self,
        backends: Sequence[Backend],
        leases: Sequence[tuple[int, Backend]] = (),
        kind: type[RegistryActor] = RegistryActor,
    ) -> None:
        """Start a registry from the present facts and publish it."""
        held = [(POOL, lease_id, leased) for lease_id, leased in leases]
        self.addresses.registry.publish(
            kind.start(make_for_brazil, self.addresses.metrics, self.plans, {POOL: backends}, held)
        )

    def start_bindings(self) -> None:
        self.addresses.bindings.publish(BindingsActor.start(self.table, self.limits, self.selectors))

    def leases(self, pool: str = POOL) -> dict[str, int]:
        """Return the connections counted on each member, after all earlier messages."""
        views = ask(self.addresses.registry, DescribePool(pool), timeout_s=5)
        return {view.backend.id: view.connections for view in views}

    def find(self, client: str, *, excluded: tuple[str, ...] = ()) -> Bound | Select:
        """Ask which backend the client is bound to."""
        return ask(self.addresses.bindings, FindBinding(client, excluded), timeout_s=5)

    def admit(self, client: str, admission: int = 0, frontend: str = FRONTEND) -> Refusal | None:
        """Ask whether the client is within its limits, for this admission or for a new one."""
        message = AdmitClient(frontend, client, admission or next(self.admissions))
        return ask(self.addresses.bindings, message, timeout_s=5)

    def settle(self) -> None:
        """Wait until all three have handled their messages."""
        for address in (self.addresses.registry, self.addresses.bindings, self.addresses.metrics):
            assert ask(address, Ping(), timeout_s=5)


class Places:
    """A geography of a few addresses."""

    def __init__(self, places: Mapping[str, GeoInfo]) -> None:
        self._places = places

    def resolve(self, address: str) -> GeoInfo | None:
        return self._places.get(address)


class Leasing:
    """The proxy service of one frontend on the edge's actors."""

    def __init__(
        self,
        edge: EdgeActors,
        *,
        places: Mapping[str, GeoInfo] | None = None,
        ipv6_prefix: int = 128,
        frontend: str = FRONTEND,
        pool: str = POOL,
        has_affinity: bool = True,
    ) -> None:
        self.edge = edge
        self.service = ProxyService(
            edge.addresses,
            Places(places) if places is not None else None,
            Route(frontend, pool, has_affinity, has_client_limits=frontend in edge.limits),
            ipv6_prefix,
            edge.lease_ids,
        )

    def client(self, address: str) -> Client:
        return self.service.client(address)

    def lease(self, client: Client, tried: tuple[str, ...] = ()) -> Lease:
        """Lease like a connection that could not reach the backends in `tried`."""
        return self.service.lease(self.service.next_lease_id(), client, tried)

    def bind(self, client: Client) -> str:
        """Open and close a connection of the client; return the backend that the client is bound to."""
        lease = self.lease(client)
        self.service.connected(lease, client, 0.001)
        self.service.release(lease.lease_id)
        return lease.backend.id
