"""Pools and their backends, in their current state, and the frontends."""

from __future__ import annotations

import time

from pydantic import Field

from actors.messages import CountCandidates, DescribePool
from actors.runtime import ask
from app.admin.api import Api, Model, Page, next_page
from app.admin.problems import Problem
from app.admin.traffic import BackendTraffic, traffic_of_backends, traffic_of_frontends
from app.config import ListenAddress
from app.domain.member_views import MemberView
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.proxy_service import ASK_TIMEOUT_SECONDS

TAG = "pools"


class OnePool(Model):
    """A pool and its state."""

    name: str
    app: str | None = Field(
        description="The app of its backends in the routing database; null: it has servers of its own"
    )
    frontends: list[str] = Field(description="The frontends that it serves")
    health_check: str | None = Field(description="off, tcp or http; null: the pool of an earlier configuration")
    backends: int
    candidates: int = Field(description="Backends that take new clients")
    fails_open: bool = Field(description="Every backend is down, and all are used nevertheless")


class Pools(Model):
    """Every pool; one removed from the configuration stays while it has connections."""

    items: list[OnePool]


class PoolPath(Model):
    """Selects a pool."""

    pool: str = Field(description="Its name")


class HealthChange(Model):
    """A health state and when it began."""

    state: str
    seconds_ago: float


class PoolBackend(Model):
    """A backend in a pool."""

    id: str
    address: str
    host_name: str | None = Field(description="The host name in the database, if it has one instead of an address")
    app: str | None
    region: str | None
    country: str | None
    weight: int
    is_backup: bool = Field(description="It serves only while no other is a candidate")
    soft_limit: int
    hard_limit: int
    connections: int = Field(description="Leases held now")
    state: str = Field(description="Its health: unknown, up, down or ejected")
    seconds_in_state: float
    history: list[HealthChange] = Field(description="The last states, the current one last")
    consecutive_failures: int
    ejected_for_seconds: float
    is_healthy: bool = Field(description="The database's `healthy`")
    is_drained: bool
    is_available: bool = Field(description="It can be selected, and keeps its bound clients")
    takes_new_clients: bool
    connections_total: int = Field(description="Established since the start")
    requests_total: int = Field(description="HTTP requests with a response")
    errors_total: int = Field(description="Failures of connections and requests")
    bytes_sent_total: int = Field(description="To clients")
    bytes_received_total: int = Field(description="From clients")


class PoolBackends(Model):
    """A page of a pool's backends."""

    items: list[PoolBackend]
    total: int
    next: int | None = Field(description="`first` of the next page; null on the last page")


class OneFrontend(Model):
    """A frontend and its state."""

    name: str
    protocol: str
    listeners: list[str] = Field(description="The addresses it listens on")
    pool: str
    algorithm: str
    affinity: bool
    connections: int = Field(description="Open connections")
    connections_total: int = Field(description="Accepted since the start; up to a second old")
    requests_total: int = Field(description="HTTP requests with a response since the start; up to a second old")


class Frontends(Model):
    """Every frontend."""

    items: list[OneFrontend]
    bytes_sent_total: int = Field(description="To clients since the start, by backends and endpoints")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    routes = _Routes(edge)
    api.get("/api/pools", Scope.READ, tag=TAG, response=Pools)(routes.list_pools)
    api.get("/api/pools/<path:pool>/backends", Scope.READ, tag=TAG, response=PoolBackends, problems=(404,))(
        routes.list_pool_backends
    )
    api.get("/api/frontends", Scope.READ, tag=TAG, response=Frontends)(routes.list_frontends)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts) -> None:
        self._edge = edge

    def list_pools(self) -> Pools:
        """List the pools."""
        config = self._edge.config()
        configured = {pool.name: pool for pool in config.pools}
        counts = ask(self._edge.actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
        items = []
        for name, count in counts.items():
            pool = configured.get(name)
            items.append(
                OnePool(
                    name=name,
                    app=pool.app if pool is not None else None,
                    frontends=[frontend.name for frontend in config.frontends if frontend.backend == name],
                    health_check=pool.health_check.type if pool is not None else None,
                    backends=count.members,
                    candidates=count.candidates,
                    fails_open=count.fails_open,
                )
            )
        return Pools(items=items)

    def list_pool_backends(self, path: PoolPath, query: Page) -> PoolBackends:
        """List the backends of a pool with their current state."""
        counts = ask(self._edge.actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
        if path.pool not in counts:
            raise Problem(404, f"no such pool: {path.pool}")
        page = DescribePool(path.pool, query.first, query.count)
        views = ask(self._edge.actors.registry, page, timeout_s=ASK_TIMEOUT_SECONDS)
        now, total = time.monotonic(), counts[path.pool].members
        traffic = traffic_of_backends(self._edge.actors.metrics, path.pool)
        items = [_described(view, traffic[view.backend.id], now) for view in views]
        return PoolBackends(items=items, total=total, next=next_page(query, total))

    def list_frontends(self) -> Frontends:
        """List the frontends."""
        traffic = traffic_of_frontends(self._edge.actors.metrics)
        return Frontends(
            items=[
                OneFrontend(
                    name=frontend.name,
                    protocol=frontend.protocol,
                    listeners=self._edge.data_plane.addresses.get(frontend.name, []),
                    pool=frontend.backend,
                    algorithm=frontend.algorithm,
                    affinity=frontend.affinity,
                    connections=self._edge.data_plane.open_at.get(frontend.name, 0),
                    connections_total=traffic.connections[frontend.name],
                    requests_total=traffic.requests[frontend.name],
                )
                for frontend in self._edge.config().frontends
            ],
            bytes_sent_total=traffic.bytes_sent,
        )


def _described(view: MemberView, traffic: BackendTraffic, now: float) -> PoolBackend:
    backend = view.backend
    return PoolBackend.model_construct(
        id=backend.id,
        address=str(ListenAddress(backend.host or backend.host_name or "", backend.port)),
        host_name=backend.host_name,
        app=backend.app,
        region=backend.region,
        country=backend.country,
        weight=backend.weight,
        is_backup=backend.is_backup,
        soft_limit=backend.soft_limit,
        hard_limit=backend.hard_limit,
        connections=view.connections,
        state=str(view.state),
        seconds_in_state=round(now - view.changed_at, 3),
        history=[
            HealthChange.model_construct(state=str(state), seconds_ago=round(now - began, 3))
            for began, state in view.history
        ],
        consecutive_failures=view.consecutive_failures,
        ejected_for_seconds=round(view.ejected_for, 3),
        is_healthy=backend.is_healthy,
        is_drained=backend.is_deleted,
        is_available=view.is_available,
        takes_new_clients=view.takes_new_clients,
        connections_total=traffic.connections,
        requests_total=traffic.requests,
        errors_total=traffic.errors,
        bytes_sent_total=traffic.bytes_sent,
        bytes_received_total=traffic.bytes_received,
    )
