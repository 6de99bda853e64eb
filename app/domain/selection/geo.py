"""The edge's own selector: nearest tier first, then lowest load, then at random by weight.

A selection must not scan the pool. Each country, each region and the pool as a whole have a lazy heap of their members:
whenever a member changes it is pushed again with a new ticket, and entries with an older ticket are dropped when they
reach the top.

Ties are broken at random in proportion to weight, also without a scan. Each entry has an arrival time: the group's
clock, which is the arrival time of the member selected last, plus a wait from an exponential distribution whose rate is
the member's weight. The earliest of independent exponential waits belongs to member i with probability weight_i / sum
of weights, and the remaining waits are exponential again. So every selection among equals is a new draw by weight.

Each group draws its own waits. If groups shared them, a selection in a country would draw again exactly those members
that are next in its region, which would skew the region's distribution. For the same reason an excluded member draws
again: otherwise its arrival time would fall behind the clock and make it the certain next choice.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush
from itertools import count
from math import log
from typing import Final

from app.domain.client import Client
from app.domain.geography import geo_tier
from app.domain.member import Member
from app.domain.model import Backend, GeoInfo

FARTHEST_TIER: Final = 3
_COMPACT_ABOVE: Final = 64
"""A heap is rebuilt when it has more entries than this plus four times its members."""


def score(tier: int, load: float) -> float:
    """Return the seed's score, for display. Selectors compare (tier, load), so that geography always dominates."""
    return tier * 100 + load


class _Entry:
    """A member, its groups, and the ticket of its latest entries in their heaps."""

    __slots__ = ("groups", "member", "ticket")

    def __init__(self, member: Member, groups: tuple[_Group, ...]) -> None:
        self.member = member
        self.groups = groups
        self.ticket = 0


class _Group:
    """The members of one country, one region or the whole pool, cheapest on top of a lazy heap."""

    __slots__ = ("clock", "heap", "size")

    def __init__(self) -> None:
        self.heap: list[tuple[bool, float, float, int, _Entry]] = []
        self.clock = 0.0
        self.size = 0

    def push(self, is_over_soft: bool, load: float, wait: float, ticket: int, entry: _Entry) -> None:
        if len(self.heap) > _COMPACT_ABOVE + 4 * self.size:
            self.heap = [entry for entry in self.heap if entry[3] == entry[4].ticket]
            heapify(self.heap)
        heappush(self.heap, (is_over_soft, load, self.clock + wait, ticket, entry))

    def best(self, excluded: Collection[str], passed_over: list[Member]) -> tuple[bool, float, Member] | None:
        """Return (is over its soft limit, arrival, member) for the cheapest member not excluded.

        Excluded members before it are removed from the heap and added to `passed_over`.
        """
        heap = self.heap
        while heap:
            is_over_soft, _load, arrival, ticket, entry = heap[0]
            member = entry.member
            if ticket != entry.ticket or not member.takes_new_clients:
                heappop(heap)
            elif member.backend.id in excluded:
                heappop(heap)
                passed_over.append(member)
            else:
                return is_over_soft, arrival, member
        return None


class GeoSelector:
    """Selects by geo tier, load and weight.

    With `spills_at_soft_limit`, members of tiers 0-2 below their soft limit take precedence over those at or above it,
    and tier 3 serves only when all nearer members are full.
    """

    ranks_by_load = True

    def __init__(self, pop_region: str | None, rng: random.Random, *, spills_at_soft_limit: bool = False) -> None:
        self._pop_region = pop_region
        self._rng = rng
        self._spills = spills_at_soft_limit
        self._tickets = count(1)
        self._entries: dict[Member, _Entry] = {}
        self._whole_pool = _Group()
        self._countries: dict[str, _Group] = {}
        self._regions: dict[str, _Group] = {}

    def tier(self, backend: Backend, client: Client) -> int:
        return geo_tier(backend.country, backend.region, client.geo, self._pop_region)

    def add(self, member: Member) -> None:
        self.remove(member)
        backend, groups = member.backend, [self._whole_pool]
        if backend.country:
            groups.append(self._countries.setdefault(backend.country, _Group()))
        if backend.region:
            groups.append(self._regions.setdefault(backend.region, _Group()))
        for group in groups:
            group.size += 1
        self._entries[member] = _Entry(member, tuple(groups))
        self.update(member)

    def remove(self, member: Member) -> None:
        entry = self._entries.pop(member, None)
        if entry is not None:
            entry.ticket = next(self._tickets)
            for group in entry.groups:
                group.size -= 1

    def update(self, member: Member) -> None:
        entry = self._entries.get(member)
        if entry is None:
            return
        entry.ticket = ticket = next(self._tickets)
        if not member.takes_new_clients:
            return
        load = member.load
        is_over_soft = self._spills and member.connections >= member.soft_limit
        weight, rng = member.backend.weight, self._rng.random
        for group in entry.groups:
            # The soft limit matters for near members only: the heap of the whole pool serves the farthest tier.
            is_over = is_over_soft and group is not self._whole_pool
            wait = -log(1.0 - rng()) / weight  # rng.expovariate(weight), without the extra call
            group.push(is_over, load, wait, ticket, entry)

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        passed_over: list[Member] = []
        selected = self._nearest(client.geo, excluded, passed_over)
        if selected is not None:
            group, arrival, _member = selected
            group.clock = max(group.clock, arrival)
        for member in passed_over:
            self.update(member)
        return selected[2] if selected is not None else None

    def _nearest(
        self, client: GeoInfo | None, excluded: Collection[str], passed_over: list[Member]
    ) -> tuple[_Group, float, Member] | None:
        over_soft: tuple[_Group, float, Member] | None = None
        for tier, group in self._nearest_first(client):
            found = group.best(excluded, passed_over)
            if found is None:
                continue
            is_over_soft, arrival, member = found
            if tier < FARTHEST_TIER and is_over_soft:
                over_soft = over_soft or (group, arrival, member)
            elif tier < FARTHEST_TIER or over_soft is None:
                return group, arrival, member
        return over_soft

    def _nearest_first(self, client: GeoInfo | None) -> Iterator[tuple[int, _Group]]:
        if client is not None:
            if client.country and (group := self._countries.get(client.country)):
                yield 0, group
            if client.region and (group := self._regions.get(client.region)):
                yield 1, group
        if self._pop_region and (group := self._regions.get(self._pop_region)):
            yield 2, group
        yield FARTHEST_TIER, self._whole_pool
