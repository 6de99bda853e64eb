"""A client's server by hash of its key: the same over restarts, and whatever else changes as rarely another as can be.

Multi-probe consistent hashing (Appleton and O'Reilly, 2015). Every server has POINTS_PER_WEIGHT points a unit of weight
on a circle, made of its id alone. A client is hashed to PROBES places; of all the points that follow these places the
one that follows closest is its server's. So a server that goes takes along its own clients only, each to the next
closest, and gets them back when it returns; a server that comes takes clients from all and moves no others.

The many probes make few points even, and few points are quickly sorted. Of ten equal servers the largest share, in the
median and in the worst of 3,000 sets of ids (exact; the test of this module computes it)::

    points  probes   median  worst
       100       1   11.5 %  15.1 %   a plain ring
         8       8   11.1 %  12.7 %
         4      16   10.6 %  12.9 %
         8      16   10.6 %  11.7 %   this
        16      16   10.5 %  11.3 %   twice the memory and the sorting
         8      32   10.3 %  11.0 %   twice the time an election
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection
from hashlib import blake2b
from heapq import heapify, heapreplace
from struct import Struct
from typing import Final

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend

POINTS_PER_WEIGHT: Final = 8
PROBES: Final = 16
HEAVIEST: Final = 256
"""Weights above count as this much: a server's points must stay few enough to be sorted."""

_CIRCUMFERENCE: Final = 2.0**32
_POINTS: Final = Struct(f"<{POINTS_PER_WEIGHT}Q")
_PROBES: Final = Struct(f"<{PROBES}I")
_ONE_BY_ONE: Final = 64
"""So many points are put in or taken out one by one; with more the circle is gone through once."""
_DETOUR: Final = 64
"""After so many points of members that take no clients, those are all taken off the circle."""


def points_of(backend_id: str, weight: int) -> tuple[float, ...]:
    """Return a server's points, each from 0 to the circumference. Floats: Python sorts them fastest."""
    name = backend_id.encode()
    return tuple(
        point / _CIRCUMFERENCE
        for unit in range(min(weight, HEAVIEST))
        for point in _POINTS.unpack(blake2b(name, digest_size=_POINTS.size, salt=unit.to_bytes(2, "little")).digest())
    )


def probes_of(key: str) -> tuple[int, ...]:
    """Return a client's places on the circle."""
    return _PROBES.unpack(blake2b(key.encode(), digest_size=_PROBES.size).digest())


class IpHashSelector:
    """Elects by the hash of the client's key."""

    ranks_by_load = False

    def __init__(self) -> None:
        self._points: dict[Member, tuple[float, ...]] = {}
        self._owners: dict[float, Member] = {}
        self._standing: set[Member] = set()
        """Whose points are on the circle, once it is settled. Some of them may take no clients meanwhile."""
        self._circle: list[float] = []
        self._joining: set[float] = set()
        self._leaving: set[float] = set()

    def tier(self, backend: Backend, client: Client) -> None:
        return None

    def add(self, member: Member) -> None:
        points = points_of(member.backend.id, member.backend.weight)
        if self._points.get(member) != points:
            self.remove(member)
            # Were two servers to share a point (1 in 10 million among 10,000 servers), the first has it.
            points = tuple(point for point in points if self._owners.setdefault(point, member) is member)
            self._points[member] = points
        self.update(member)

    def remove(self, member: Member) -> None:
        self._leave(member)
        for point in self._points.pop(member, ()):
            del self._owners[point]

    def update(self, member: Member) -> None:
        # One that takes no clients stays: it is passed over, and mostly it is full for a moment only.
        if member not in self._standing and member in self._points and member.takes_new_clients:
            self._standing.add(member)
            points = set(self._points[member])
            self._joining |= points - self._leaving
            self._leaving -= points

    def _leave(self, member: Member) -> None:
        if member in self._standing:
            self._standing.remove(member)
            points = set(self._points[member])
            self._leaving |= points - self._joining
            self._joining -= points

    def _settle(self) -> None:
        """Put in and take out what changed since the last election."""
        circle, joining, leaving = self._circle, self._joining, self._leaving
        if len(joining) + len(leaving) <= _ONE_BY_ONE:
            for point in leaving:
                del circle[bisect_left(circle, point)]
            for point in joining:
                insort(circle, point)
        else:
            if leaving:
                circle[:] = [point for point in circle if point not in leaving]
            circle.extend(joining)
            circle.sort()
        joining.clear()
        leaving.clear()

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        if self._joining or self._leaving:
            self._settle()
        circle = self._circle
        if not circle:
            return None
        probes = probes_of(client.key)
        closest, distance = circle[0], _CIRCUMFERENCE
        for probe in probes:
            try:
                point = circle[bisect_left(circle, probe)]
            except IndexError:  # past the last point
                continue
            if point - probe < distance:
                closest, distance = point, point - probe
        last = max(probes)
        if circle[0] + _CIRCUMFERENCE - last < distance:
            closest = circle[0]
        member = self._owners[closest]
        if member.takes_new_clients and member.backend.id not in excluded:
            return member
        return self._walk(client, probes, excluded)

    def _walk(self, client: Client, probes: Collection[int], excluded: Collection[str]) -> Member | None:
        """Go on from point to point, the closest to its probe first, to the first whose owner will do."""
        circle = self._circle
        ways = []
        for probe in probes:
            index = bisect_left(circle, probe)
            ways.append((self._distance(probe, index), index, probe))
        heapify(ways)
        passed_over: set[Member] = set()
        detour = 0
        while len(passed_over) < len(self._standing):
            _, index, probe = ways[0]
            member = self._owners[circle[index % len(circle)]]
            if not member.takes_new_clients:
                detour += 1
                if detour > _DETOUR:
                    self._take_off_the_idle()
                    return self.select(client, excluded)
            elif member.backend.id not in excluded:
                return member
            passed_over.add(member)
            heapreplace(ways, (self._distance(probe, index + 1), index + 1, probe))
        return None

    def _distance(self, probe: int, index: int) -> float:
        """Return how far behind a probe a point is; indexes past the last go on with the next round."""
        rounds, place = divmod(index, len(self._circle))
        return self._circle[place] + rounds * _CIRCUMFERENCE - probe

    def _take_off_the_idle(self) -> None:
        for member in [member for member in self._standing if not member.takes_new_clients]:
            self._leave(member)
