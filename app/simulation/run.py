"""Runs the simulation with the pool and the selector that the registry uses, without sockets and actors.

A client is one open connection: it arrives, is located, and leases a backend as in `app.proxy_service`. When its
backend fails, it releases its lease and leases again with its binding; the pool reports the binding as broken, and
another backend is selected. Simulated time stands still, so no client leaves and no binding expires.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from app.domain.client import Client, client_key
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import NoLease
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.pool import Pool
from app.domain.selection import Selector, make_selector
from app.simulation.results import BackendLoad, Flow, Move, Stage

_NOW: Final = 0.0
_PROGRESS_STEP: Final = 10_000
_REASONS: Final = tuple(NoLease)
_NO_TIER: Final = -1
"""Stored instead of a tier. The backend of an unserved client is stored as -1 - index of the reason."""


class Simulation:
    """One pool, its clients, and the selector of one frontend. All randomness comes from `seed`."""

    def __init__(
        self,
        plan: PoolPlan,
        frontend: str,
        backends: Iterable[Backend],
        pop_region: str | None,
        locate: Callable[[str], GeoInfo | None],
        seed: int,
    ) -> None:
        self._name = plan.name
        self._frontend = frontend
        self._pop_region = pop_region
        self._locate = locate
        self._chance = random.Random(seed)
        self._backends = {backend.id: backend for backend in backends}
        self._numbers = {backend_id: number for number, backend_id in enumerate(self._backends)}
        self._selectors: dict[str, Selector] = {}
        self._pool = Pool()
        self._pool.set_rules(plan.rules, _NOW)
        self._pool.set_selectors(plan.selectors, self._make_selector)
        self._pool.replace(self._backends.values(), _NOW)
        # One entry per client, indexed by its lease id.
        self._addresses: list[str] = []
        self._countries = array("h")
        self._tiers = array("b")
        self._backend_numbers = array("i")
        self._numbers_of_countries: dict[str | None, int] = {}
        self._examples: list[Client] = []
        """One client of each country, indexed by the number of the country."""

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        selector = self._selectors[plan.frontend] = make_selector(
            plan.algorithm,
            pop_region=self._pop_region,
            rng=self._chance,
            spills_at_soft_limit=plan.spills_at_soft_limit,
        )
        return selector

    def arrive(self, addresses: Iterable[str]) -> None:
        """Open a connection from each of these addresses, which stays open."""
        for address in addresses:
            lease_id = len(self._addresses)
            client = self._client(address)
            self._addresses.append(address)
            self._countries.append(self._number_of_country(client))
            tier, place = self._place(self._lease(lease_id, client, None))
            self._tiers.append(tier)
            self._backend_numbers.append(place)

    def _number_of_country(self, client: Client) -> int:
        country = client.geo.country if client.geo is not None else None
        number = self._numbers_of_countries.get(country)
        if number is None:
            number = self._numbers_of_countries[country] = len(self._examples)
            self._examples.append(client)
        return number

    def fail(self, failed: Collection[str], progress: Callable[[int, int], None]) -> tuple[Move, ...]:
        """Let backends fail. Their clients move to others, in the order of arrival.

        Calls `progress(moved, total)`.
        """
        rows = self._backends.items()
        self._backends = {i: replace(row, is_healthy=False) if i in failed else row for i, row in rows}
        self._pool.replace(self._backends.values(), _NOW)
        numbers = {self._numbers[backend_id] for backend_id in failed}
        ids, moves = tuple(self._backends), Counter[tuple[str, str | None]]()
        moving = [lease_id for lease_id, place in enumerate(self._backend_numbers) if place in numbers]
        for done, lease_id in enumerate(moving, start=1):
            source = ids[self._backend_numbers[lease_id]]
            self._tiers[lease_id], self._backend_numbers[lease_id] = tier, place = self._place(
                self._move(lease_id, source)
            )
            moves[source, None if tier == _NO_TIER else ids[place]] += 1
            if done % _PROGRESS_STEP == 0:
                progress(done, len(moving))
        progress(len(moving), len(moving))
        return tuple(Move(source, target, count) for (source, target), count in moves.most_common())

    def _move(self, lease_id: int, source: str) -> Lease | Unleased:
        client = self._client(self._addresses[lease_id])
        self._pool.release(lease_id)
        found = self._lease(lease_id, client, source)
        if isinstance(found, Unleased) and found.reason is NoLease.BINDING_BROKEN:
            found = self._lease(lease_id, client, None)
        return found

    def _client(self, address: str) -> Client:
        return Client(address, client_key(self._name, address, 128), self._locate(address))

    def _lease(self, lease_id: int, client: Client, preferred: str | None) -> Lease | Unleased:
        return self._pool.lease(lease_id, self._frontend, client, preferred, (), _NOW)

    def _place(self, found: Lease | Unleased) -> tuple[int, int]:
        if isinstance(found, Unleased):
            return _NO_TIER, -1 - _REASONS.index(found.reason)
        return _NO_TIER if found.tier is None else found.tier, self._numbers[found.backend.id]

    def stage(self, name: str) -> Stage:
        """Return the present state as a stage."""
        members = self._pool.view(_NOW)
        loads = tuple(BackendLoad(m.backend, m.backend.is_serving, m.connections) for m in members)
        return Stage(name, loads, self._flows(), self._nearest())

    def _flows(self) -> dict[Flow, int]:
        ids, countries = tuple(self._backends), tuple(self._numbers_of_countries)
        counted = Counter(zip(self._countries, self._tiers, self._backend_numbers, strict=True))
        return {_flow(countries[country], tier, place, ids): count for (country, tier, place), count in counted.items()}

    def _nearest(self) -> dict[str | None, int]:
        tier_of = self._selectors[self._frontend].tier
        serving = [backend for backend in self._backends.values() if backend.is_serving and backend.weight > 0]
        return {
            country: min((tier_of(backend, client) or 0 for backend in serving), default=0)
            for country, client in zip(self._numbers_of_countries, self._examples, strict=True)
        }


def _flow(country: str | None, tier: int, place: int, ids: Sequence[str]) -> Flow:
    if place < 0:
        return Flow(country, None, None, _REASONS[-1 - place])
    return Flow(country, tier, ids[place], None)
