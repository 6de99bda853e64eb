"""The edge's three actors as bootstrap starts them, without an edge around them, for tests that send real messages."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import count

from actors.bindings import BindingsActor
from actors.messages import Bound, DescribePool, Elect, FindBinding, Refused
from actors.metrics import MetricsActor
from actors.registry import RegistryActor
from actors.runtime import Address, GeventFuture, Ping, ask
from app.domain.affinity import AffinityTable
from app.domain.election import GeoElection
from app.domain.limits import ClientLimits
from app.domain.measures import Measures
from app.domain.model import Backend, GeoInfo, Lease
from app.domain.single_flight import SingleFlight
from app.proxy_service import Actors, Client, ProxyService


def backend(name: str, **columns: object) -> Backend:
    """Return a backend in Brazil."""
    return Backend(
        **{"id": name, "app": None, "region": "sa", "country": "BR", "host": "127.0.0.1", "port": 1, **columns}
    )


class EdgeActors:
    """Registry, bindings and metrics. The bindings' table, limits and elections outlive the actor, as in bootstrap."""

    def __init__(
        self,
        backends: Sequence[Backend] = (),
        *,
        registry: type[RegistryActor] = RegistryActor,
        ttl_seconds: float = 600.0,
        max_connections_per_client: int = 0,
        connections_per_second: float = 0.0,
    ) -> None:
        self.addresses = Actors(Address("registry"), Address("bindings"), Address("metrics"))
        self.admissions = count(1)
        self.table = AffinityTable(ttl_seconds, capacity=10_000)
        self.limits = ClientLimits(max_connections_per_client, connections_per_second)
        self.elections: SingleFlight[GeventFuture[Bound | Elect]] = SingleFlight()
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
        """Start a registry from these facts and publish it."""
        self.addresses.registry.publish(kind.start(GeoElection("sa", random.Random(1)), backends, leases))

    def start_bindings(self) -> None:
        self.addresses.bindings.publish(BindingsActor.start(self.table, self.limits, self.elections))

    def leases(self) -> dict[str, int]:
        """Return the connections counted on each member, after what was told before."""
        return {view.backend.id: view.connections for view in ask(self.addresses.registry, DescribePool(), timeout_s=5)}

    def find(self, client: str, *, excluded: tuple[str, ...] = (), admission: int = 0) -> Bound | Elect | Refused:
        """Ask who the client is bound to, for a connection of this admission or for one more."""
        admission = admission or next(self.admissions)
        return ask(self.addresses.bindings, FindBinding(client, excluded, admission), timeout_s=5)

    def settle(self) -> None:
        """Wait until all three have handled what was told them."""
        for address in (self.addresses.registry, self.addresses.bindings, self.addresses.metrics):
            assert ask(address, Ping(), timeout_s=5)


class Places:
    """A geography of a few addresses."""

    def __init__(self, places: Mapping[str, GeoInfo]) -> None:
        self._places = places

    def resolve(self, address: str) -> GeoInfo | None:
        return self._places.get(address)


class Leasing:
    """The proxy service on the edge's actors."""

    def __init__(
        self,
        edge: EdgeActors,
        *,
        places: Mapping[str, GeoInfo] | None = None,
        ipv6_prefix: int = 128,
        has_client_limits: bool = False,
    ) -> None:
        self.edge = edge
        self.service = ProxyService(
            edge.addresses,
            Places(places) if places is not None else None,
            pool="default",
            ipv6_prefix=ipv6_prefix,
            has_client_limits=has_client_limits,
        )

    def client(self, address: str) -> Client:
        return self.service.client(address)

    def lease(self, client: Client, tried: tuple[str, ...] = (), admission: int = 0) -> Lease:
        """Lease as a connection does that has failed to reach the backends in `tried`."""
        lease_id = self.service.next_lease_id()
        return self.service.lease(lease_id, client, tried, admission or lease_id)

    def bind(self, client: Client) -> str:
        """Let a connection of the client come and go; returns the backend that the client is bound to now."""
        lease = self.lease(client)
        self.service.connected(lease, client, 0.001)
        self.service.release(lease.lease_id)
        return lease.backend.id
