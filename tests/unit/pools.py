"""Helpers for the tests of the domain: backends, clients with a location, pools with a seeded random source."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count
from typing import Any

from app.domain.client import Client
from app.domain.health import HealthRules, HealthState
from app.domain.member_views import MemberView, Transition
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.plan import SelectorPlan
from app.domain.pool import Pool
from app.domain.selection import Selector, make_selector

BRAZIL = GeoInfo("BR", "sa")
ARGENTINA = GeoInfo("AR", "sa")
FRANCE = GeoInfo("FR", "eu")
JAPAN = GeoInfo("JP", "ap")

FRONTEND = "edge"
PROBED = HealthRules(is_probed=True)


def backend(backend_id: str, place: str = "BR/sa", **fields: Any) -> Backend:
    """Return a backend; `place` is country/region, either of them empty for none."""
    country, _, region = place.partition("/")
    values: dict[str, Any] = {"app": None, "host": "10.0.0.1", "port": 80, **fields}
    return Backend(id=backend_id, country=country or None, region=region or None, **values)


def client_from(geo: GeoInfo | None) -> Client:
    """Return a client at this location."""
    return Client("192.0.2.1", "default 192.0.2.1", geo)


class PoolUnderTest:
    """A pool with a clock that tests set, and automatic lease ids.

    Its selectors follow `plans`, at first one geo selector. `changes` and `fail_opens` are the reports of the pool,
    `made` the plans of the selectors that it made, all in order.
    """

    def __init__(
        self,
        backends: Iterable[Backend],
        pop_region: str | None = "sa",
        *,
        seed: int = 1,
        spills: bool = False,
        rules: HealthRules | None = None,
    ) -> None:
        self._pop_region, self._chance = pop_region, random.Random(seed)
        self.now = 1000.0
        self._ids = count(1)
        self.changes: list[Transition] = []
        self.fail_opens: list[bool] = []
        self.made: list[Selector] = []
        self.pool = Pool(self.changes.append, self.fail_opens.append)
        self.pool.set_rules(rules or HealthRules(), self.now)
        self.plan(SelectorPlan(FRONTEND, "geo", spills))
        self.replace(backends)

    def plan(self, *plans: SelectorPlan) -> None:
        """Use these selectors from now on."""
        self.pool.set_selectors(plans, self._make_selector)

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        self.made.append(
            make_selector(
                plan.algorithm,
                pop_region=self._pop_region,
                rng=self._chance,
                spills_at_soft_limit=plan.spills_at_soft_limit,
            )
        )
        return self.made[-1]

    def replace(self, backends: Iterable[Backend]) -> None:
        self.pool.replace(backends, self.now)

    def ask(
        self,
        client: GeoInfo | None = BRAZIL,
        *,
        bound: str | None = None,
        tried: tuple[str, ...] = (),
        frontend: str = FRONTEND,
    ) -> Lease | Unleased:
        return self.pool.lease(next(self._ids), frontend, client_from(client), bound, tried, self.now)

    def lease(self, client: GeoInfo | None = BRAZIL, *, tried: tuple[str, ...] = (), frontend: str = FRONTEND) -> Lease:
        response = self.ask(client, tried=tried, frontend=frontend)
        assert isinstance(response, Lease), response
        return response

    def hold(self, backend_id: str, connections: int) -> list[int]:
        """Hold leases on one backend, restored as by a registry's successor; return their ids."""
        ids = [next(self._ids) for _ in range(connections)]
        for lease_id in ids:
            self.pool.restore(lease_id, self.member(backend_id).backend, self.now)
        return ids

    def visit(self, client: GeoInfo | None = BRAZIL, *, tried: tuple[str, ...] = (), frontend: str = FRONTEND) -> str:
        """Connect and disconnect; return the id of the backend."""
        lease = self.lease(client, tried=tried, frontend=frontend)
        self.pool.release(lease.lease_id)
        return lease.backend.id

    def fail(self, backend_id: str, times: int = 3) -> float | None:
        """Fail in traffic; return the cool-down if that ejected the backend."""
        one, seen = self._row(backend_id), len(self.changes)
        for _ in range(times):
            self.pool.traffic_failed(one, "econnrefused", self.now)
        cooldowns = [change.seconds for change in self.changes[seen:] if change.after is HealthState.EJECTED]
        return cooldowns[0] if cooldowns else None

    def succeed(self, backend_id: str) -> None:
        self.pool.traffic_succeeded(self._row(backend_id), self.now)

    def probe(self, backend_id: str, failure: str | None = None, times: int = 1) -> None:
        for _ in range(times):
            self.pool.probed(self._row(backend_id), failure, self.now)

    def _row(self, backend_id: str) -> Backend:
        known = {view.backend.id: view.backend for view in self.pool.view(self.now)}
        return known.get(backend_id) or backend(backend_id)

    def member(self, backend_id: str) -> MemberView:
        return next(view for view in self.pool.view(self.now) if view.backend.id == backend_id)

    def states(self) -> dict[str, HealthState]:
        return {view.backend.id: view.state for view in self.pool.view(self.now)}

    def counts(self) -> dict[str, int]:
        return {view.backend.id: view.connections for view in self.pool.view(self.now)}

    def ejected(self) -> set[str]:
        return {view.backend.id for view in self.pool.view(self.now) if view.ejected_for > 0}
