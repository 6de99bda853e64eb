"""Where the clients go: the very pool and election that the registry works with, without sockets and actors.

A client is one connection, held: it arrives, is located, and leases a backend as `app.proxy_service` does. When its
backend fails it returns its lease and asks again, bound; the pool calls the binding broken and another is elected. No
time passes meanwhile, so nobody leaves and no binding expires.
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
_TOLD_EVERY: Final = 10_000
_REASONS: Final = tuple(NoLease)
_NOBODY: Final = -1
"""In place of a tier; a client without a backend has a negative place: -1 - its reason."""


class Simulation:
    """One pool, the clients on it, and one frontend's election. All chance comes from `seed`."""

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
        # One entry a client, at its lease id.
        self._addresses: list[str] = []
        self._countries = array("h")
        self._tiers = array("b")
        self._places = array("i")
        self._numbers_of_countries: dict[str | None, int] = {}
        self._somebody: list[Client] = []
        """A client of each country, at its number."""

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        selector = self._selectors[plan.frontend] = make_selector(
            plan.algorithm,
            pop_region=self._pop_region,
            rng=self._chance,
            spills_at_soft_limit=plan.spills_at_soft_limit,
        )
        return selector

    def arrive(self, addresses: Iterable[str]) -> None:
        """Let a connection come from each of these addresses, and stay."""
        for address in addresses:
            lease_id = len(self._addresses)
            client = self._client(address)
            self._addresses.append(address)
            self._countries.append(self._number_of_country(client))
            tier, place = self._place(self._lease(lease_id, client, None))
            self._tiers.append(tier)
            self._places.append(place)

    def _number_of_country(self, client: Client) -> int:
        country = client.geo.country if client.geo is not None else None
        number = self._numbers_of_countries.get(country)
        if number is None:
            number = self._numbers_of_countries[country] = len(self._somebody)
            self._somebody.append(client)
        return number

    def fail(self, failed: Collection[str], progress: Callable[[int, int], None]) -> tuple[Move, ...]:
        """Let backends fail; whoever was on them goes elsewhere, in the order of arrival.

        `progress` is told how many clients of how many have moved.
        """
        rows = self._backends.items()
        self._backends = {i: replace(row, is_healthy=False) if i in failed else row for i, row in rows}
        self._pool.replace(self._backends.values(), _NOW)
        numbers = {self._numbers[backend_id] for backend_id in failed}
        ids, moves = tuple(self._backends), Counter[tuple[str, str | None]]()
        moving = [lease_id for lease_id, place in enumerate(self._places) if place in numbers]
        for done, lease_id in enumerate(moving, start=1):
            source = ids[self._places[lease_id]]
            self._tiers[lease_id], self._places[lease_id] = tier, place = self._place(self._move(lease_id, source))
            moves[source, None if tier == _NOBODY else ids[place]] += 1
            if done % _TOLD_EVERY == 0:
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
            return _NOBODY, -1 - _REASONS.index(found.reason)
        return _NOBODY if found.tier is None else found.tier, self._numbers[found.backend.id]

    def stage(self, name: str) -> Stage:
        """Return how things stand now."""
        members = self._pool.view(_NOW)
        loads = tuple(BackendLoad(m.backend, m.backend.is_serving, m.connections) for m in members)
        return Stage(name, loads, self._flows(), self._nearest())

    def _flows(self) -> dict[Flow, int]:
        ids, countries = tuple(self._backends), tuple(self._numbers_of_countries)
        counted = Counter(zip(self._countries, self._tiers, self._places, strict=True))
        return {_flow(countries[country], tier, place, ids): count for (country, tier, place), count in counted.items()}

    def _nearest(self) -> dict[str | None, int]:
        tier_of = self._selectors[self._frontend].tier
        serving = [backend for backend in self._backends.values() if backend.is_serving and backend.weight > 0]
        return {
            country: min((tier_of(backend, client) or 0 for backend in serving), default=0)
            for country, client in zip(self._numbers_of_countries, self._somebody, strict=True)
        }


def _flow(country: str | None, tier: int, place: int, ids: Sequence[str]) -> Flow:
    if place < 0:
        return Flow(country, None, None, _REASONS[-1 - place])
    return Flow(country, tier, ids[place], None)
