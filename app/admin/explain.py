"""Explains which backend a client would get: the verdict on every backend, with its current state."""

from __future__ import annotations

from typing import Final

import gevent
from pydantic import Field

from actors.messages import DescribeBinding, DescribePool
from actors.runtime import ask
from app.admin.api import Api, IpAddress, Model, Page, next_page
from app.admin.problems import Problem
from app.config import Frontend
from app.domain.client import client_key
from app.domain.explain import explain
from app.domain.member_views import MemberView
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS

TAG = "explain"
YIELD_SECONDS: Final = 0.001
"""Pause between two pages of backends, for other greenlets."""


class ExplainQuery(Page):
    """Selects a client and a frontend."""

    client: IpAddress = Field(description="IP address")
    frontend: str | None = Field(default=None, description="A frontend with algorithm geo; the first one by default")


class LiveVerdict(Model):
    """The verdict on a backend for this client. Tier and score are for zero connections."""

    id: str
    tier: int
    score: float
    why: str = Field(description="What the databases say about both")
    connections: int | None = Field(description="Leases held now")
    state: str | None = Field(description="Its health")
    takes_new_clients: bool


class Explanation(Model):
    """A client's location and binding, and a page of verdicts, best first."""

    client: str
    country: str | None
    region: str | None
    pop_region: str | None
    frontend: str
    pool: str
    bound_to: str | None
    items: list[LiveVerdict]
    total: int
    next: int | None = Field(description="`first` of the next page; null on the last page")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    routes = _Routes(edge)
    api.get("/api/explain", Scope.READ, tag=TAG, response=Explanation, problems=(404,))(routes.explain_client)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts) -> None:
        self._edge = edge
        self._thread = WorkerThread()  # explaining 10,000 backends would block the event loop for too long

    def _geo_frontend(self, name: str | None) -> Frontend:
        geo_frontends = [one for one in self._edge.config().frontends if one.algorithm == "geo"]
        for one in geo_frontends:
            if name in (None, one.name):
                return one
        raise Problem(404, f"there is no frontend {name or ''} with algorithm geo")

    def _backends_of(self, pool: str) -> dict[str, MemberView]:
        backends: dict[str, MemberView] = {}
        first = 0
        while True:
            page = DescribePool(pool, first)
            described = ask(self._edge.actors.registry, page, timeout_s=ASK_TIMEOUT_SECONDS)
            backends |= {view.backend.id: view for view in described}
            first += len(described)
            if len(described) < page.count:
                return backends
            gevent.sleep(YIELD_SECONDS)

    def explain_client(self, query: ExplainQuery) -> Explanation:
        """Explain which backend a client would get, and why."""
        address = query.client
        frontend = self._geo_frontend(query.frontend)
        config = self._edge.config()
        location = self._edge.geo.resolve(address) if self._edge.geo is not None else None
        key = client_key(frontend.backend, address, config.binding_ipv6_prefix)
        binding = ask(self._edge.actors.bindings, DescribeBinding(key), timeout_s=ASK_TIMEOUT_SECONDS)
        backends = self._edge.pools.backends.get(frontend.backend, ())
        verdicts = self._thread.run(explain, backends, location, config.region or None)
        live = self._backends_of(frontend.backend)
        items = []
        for verdict in verdicts[query.first : query.first + query.count]:
            view = live.get(verdict.backend.id)
            items.append(
                LiveVerdict(
                    id=verdict.backend.id,
                    tier=verdict.tier,
                    score=verdict.score,
                    why=verdict.why,
                    connections=view.connections if view is not None else None,
                    state=str(view.state) if view is not None else None,
                    takes_new_clients=view is not None and view.takes_new_clients,
                )
            )
        return Explanation(
            client=address,
            country=location.country if location is not None else None,
            region=location.region if location is not None else None,
            pop_region=config.region or None,
            frontend=frontend.name,
            pool=frontend.backend,
            bound_to=binding.backend_id if binding is not None else None,
            items=items,
            total=len(verdicts),
            next=next_page(query, len(verdicts)),
        )
