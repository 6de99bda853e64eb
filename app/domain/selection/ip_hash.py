"""Selection by a hash of the client's key: stable across restarts, with few clients moved when the members change.

Multi-probe consistent hashing (Appleton and O'Reilly, 2015). Every server has POINTS_PER_WEIGHT points per unit of
weight on a circle, derived from its id only. A client is hashed to PROBES positions. The point that follows any of them
at the shortest distance selects the server. So when a server leaves, only its own clients move, each to its next
closest server, and they return with it. A server that joins takes clients from all others and moves no other clients.

Many probes make the shares even with few points, and few points are sorted quickly. The largest share among ten equal
servers, median and worst of 3,000 sets of ids (exact; the test of this module computes it)::

    points  probes   median  worst
       100       1   11.5 %  15.1 %   a plain ring
         8       8   11.1 %  12.7 %
         4      16   10.6 %  12.9 %
         8      16   10.6 %  11.7 %   this
        16      16   10.5 %  11.3 %   twice the memory and the sorting
         8      32   10.3 %  11.0 %   twice the time per selection
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
MAX_WEIGHT: Final = 256
"""Larger weights count as this much, because a server's points must stay few enough to sort."""

_CIRCUMFERENCE: Final = 2.0**32
_POINTS: Final = Struct(f"<{POINTS_PER_WEIGHT}Q")
_PROBES: Final = Struct(f"<{PROBES}I")
_ONE_BY_ONE: Final = 64
"""Up to this many points are inserted or removed one by one; for more the circle is rebuilt in one pass."""
_MAX_UNAVAILABLE: Final = 64
"""After this many points of members that take no clients, all such members are removed from the circle."""


def points_of(backend_id: str, weight: int) -> tuple[float, ...]:
    """Return a server's points, each from 0 to the circumference. Floats: Python sorts them fastest."""
    name = backend_id.encode()
    return tuple(
        point / _CIRCUMFERENCE
        for unit in range(min(weight, MAX_WEIGHT))
        for point in _POINTS.unpack(blake2b(name, digest_size=_POINTS.size, salt=unit.to_bytes(2, "little")).digest())
    )


def probes_of(key: str) -> tuple[int, ...]:
    """Return a client's positions on the circle."""
    return _PROBES.unpack(blake2b(key.encode(), digest_size=_PROBES.size).digest())


class IpHashSelector:
    """Selects by the hash of the client's key."""

    ranks_by_load = False

    def __init__(self) -> None:
        self._points: dict[Member, tuple[float, ...]] = {}
        self._owners: dict[float, Member] = {}
        self._placed: set[Member] = set()
        """Members whose points are on the circle after `_apply_changes`. Some may have stopped taking clients."""
        self._circle: list[float] = []
        self._joining: set[float] = set()
        self._leaving: set[float] = set()

    def tier(self, backend: Backend, client: Client) -> None:
        return None

    def add(self, member: Member) -> None:
        points = points_of(member.backend.id, member.backend.weight)
        if self._points.get(member) != points:
            self.remove(member)
            # If two servers share a point (1 in 10 million among 10,000 servers), the first one keeps it.
            points = tuple(point for point in points if self._owners.setdefault(point, member) is member)
            self._points[member] = points
        self.update(member)

    def remove(self, member: Member) -> None:
        self._leave(member)
        for point in self._points.pop(member, ()):
            del self._owners[point]

    def update(self, member: Member) -> None:
        # A member that takes no clients stays on the circle and is skipped: usually it is full for a moment only.
        if member not in self._placed and member in self._points and member.takes_new_clients:
            self._placed.add(member)
            points = set(self._points[member])
            self._joining |= points - self._leaving
            self._leaving -= points

    def _leave(self, member: Member) -> None:
        if member in self._placed:
            self._placed.remove(member)
            points = set(self._points[member])
            self._leaving |= points - self._joining
            self._joining -= points

    def _apply_changes(self) -> None:
        """Insert and remove the points that changed since the last selection."""
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
            self._apply_changes()
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
        """Visit the points in order of their distance to a probe, and return the first suitable owner."""
        circle = self._circle
        candidates = []
        for probe in probes:
            index = bisect_left(circle, probe)
            candidates.append((self._distance(probe, index), index, probe))
        heapify(candidates)
        passed_over: set[Member] = set()
        unavailable = 0
        while len(passed_over) < len(self._placed):
            _, index, probe = candidates[0]
            member = self._owners[circle[index % len(circle)]]
            if not member.takes_new_clients:
                unavailable += 1
                if unavailable > _MAX_UNAVAILABLE:
                    self._remove_unavailable()
                    return self.select(client, excluded)
            elif member.backend.id not in excluded:
                return member
            passed_over.add(member)
            heapreplace(candidates, (self._distance(probe, index + 1), index + 1, probe))
        return None

    def _distance(self, probe: int, index: int) -> float:
        """Return the distance from a probe to a point; indexes past the last one continue with the next round."""
        rounds, position = divmod(index, len(self._circle))
        return self._circle[position] + rounds * _CIRCUMFERENCE - probe

    def _remove_unavailable(self) -> None:
        for member in [member for member in self._placed if not member.takes_new_clients]:
            self._leave(member)
