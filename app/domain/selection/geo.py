"""The edge's own election: nearest tier first, then least load, then rng by weight.

An election must not scan the pool. Each country, each region and the pool as a whole keep a lazy heap of their
members: whenever a member changes it is pushed again under a fresh ticket, and entries with an older ticket are
dropped when they come to the top.

Equals are told apart by rng, each as likely as its weight is large, also without a scan. Each entry carries an
arrival time: the group's clock, which stands at the arrival of the member elected last, plus a wait drawn from an
exponential distribution whose rate is the member's weight. The earliest arrival of independent exponential waits
belongs to member i with probability weight_i / sum of weights, and the waits left over are exponential again: so every
election among equals is a fresh draw by weight. Each group draws its own waits: were they shared, elections in a
country would draw anew just those members that its region holds ready next, and skew the region's split. For the same
reason an excluded member draws again, lest its arrival stay behind the clock and make it next for certain.
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
"""A heap is rebuilt when it holds more than this many entries and four times as many as it has members."""


def score(tier: int, load: float) -> float:
    """Return the seed's score, for display. Elections compare (tier, load), so that geography always dominates."""
    return tier * 100 + load


class _Entrant:
    """A member, the groups it is in, and the ticket of its latest entries in their heaps."""

    __slots__ = ("groups", "member", "ticket")

    def __init__(self, member: Member, groups: tuple[_Group, ...]) -> None:
        self.member = member
        self.groups = groups
        self.ticket = 0


class _Group:
    """The members of one country, one region or the whole pool, cheapest on top of a lazy heap."""

    __slots__ = ("clock", "heap", "size")

    def __init__(self) -> None:
        self.heap: list[tuple[bool, float, float, int, _Entrant]] = []
        self.clock = 0.0
        self.size = 0

    def push(self, is_over_soft: bool, load: float, wait: float, ticket: int, entrant: _Entrant) -> None:
        if len(self.heap) > _COMPACT_ABOVE + 4 * self.size:
            self.heap = [entry for entry in self.heap if entry[3] == entry[4].ticket]
            heapify(self.heap)
        heappush(self.heap, (is_over_soft, load, self.clock + wait, ticket, entrant))

    def best(self, excluded: Collection[str], passed_over: list[Member]) -> tuple[bool, float, Member] | None:
        """Return (is over its soft limit, arrival, member) of the cheapest member not excluded.

        Excluded ones that stood before it leave the heap and are added to `passed_over`.
        """
        heap = self.heap
        while heap:
            is_over_soft, _load, arrival, ticket, entrant = heap[0]
            member = entrant.member
            if ticket != entrant.ticket or not member.takes_new_clients:
                heappop(heap)
            elif member.backend.id in excluded:
                heappop(heap)
                passed_over.append(member)
            else:
                return is_over_soft, arrival, member
        return None


class GeoSelector:
    """Elects by geo tier, load and weight among the members it was told of.

    `spills_at_soft_limit`: within tiers 0-2 a member under its soft limit goes before one at or over it, and tier 3
    serves only when all the nearer ones are full.
    """

    ranks_by_load = True

    def __init__(self, pop_region: str | None, rng: random.Random, *, spills_at_soft_limit: bool = False) -> None:
        self._pop_region = pop_region
        self._rng = rng
        self._spills = spills_at_soft_limit
        self._tickets = count(1)
        self._entrants: dict[Member, _Entrant] = {}
        self._everyone = _Group()
        self._countries: dict[str, _Group] = {}
        self._regions: dict[str, _Group] = {}

    def tier(self, backend: Backend, client: Client) -> int:
        return geo_tier(backend.country, backend.region, client.geo, self._pop_region)

    def add(self, member: Member) -> None:
        self.remove(member)
        backend, groups = member.backend, [self._everyone]
        if backend.country:
            groups.append(self._countries.setdefault(backend.country, _Group()))
        if backend.region:
            groups.append(self._regions.setdefault(backend.region, _Group()))
        for group in groups:
            group.size += 1
        self._entrants[member] = _Entrant(member, tuple(groups))
        self.update(member)

    def remove(self, member: Member) -> None:
        entrant = self._entrants.pop(member, None)
        if entrant is not None:
            entrant.ticket = next(self._tickets)
            for group in entrant.groups:
                group.size -= 1

    def update(self, member: Member) -> None:
        entrant = self._entrants.get(member)
        if entrant is None:
            return
        entrant.ticket = ticket = next(self._tickets)
        if not member.takes_new_clients:
            return
        load = member.load
        is_over_soft = self._spills and member.connections >= member.soft_limit
        weight, rng = member.backend.weight, self._rng.random
        for group in entrant.groups:
            # The soft limit decides among near members only: everyone's heap serves the farthest tier.
            is_over = is_over_soft and group is not self._everyone
            wait = -log(1.0 - rng()) / weight  # rng.expovariate(weight) without a call more
            group.push(is_over, load, wait, ticket, entrant)

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
        yield FARTHEST_TIER, self._everyone
