"""One pool: its backends, their live connections, their health and the leases on them. Electing reserves.

A lease is counted the moment it is granted and uncounted exactly once, so a hard limit holds under any burst. Leases
go by ids that connections choose, and doing a thing twice under one id does it once: a message may be sent again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count, islice
from typing import Final

from app.domain.election import GeoElection, Member
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease

CHANGES_A_SLICE: Final = 1000
"""Backends taken in or out at once: 4 ms."""


@dataclass(frozen=True, slots=True)
class MemberView:
    """What a snapshot says of one member. `ejected_for` is seconds still to cool down, 0 when not ejected."""

    backend: Backend
    connections: int
    consecutive_failures: int
    ejected_for: float
    is_available: bool
    takes_new_clients: bool


class Pool:
    """The members of one pool. All times are monotonic seconds handed in."""

    def __init__(self, election: GeoElection) -> None:
        self._election = election
        self._members: dict[str, Member] = {}
        self._leases: dict[int, Member] = {}
        self._cooling: list[tuple[float, int, Member]] = []
        self._sequence = count()
        self._serving = 0
        """Members that the database calls healthy and has not deleted."""
        self._nobody: NoLease | None = None
        """Why an election would give nobody, while nothing changes."""

    # The set of backends

    def replace(self, backends: Iterable[Backend]) -> None:
        """Serve exactly these backends from now on; counts, health and leases of those that stay are kept."""
        for _ in self.replacing(backends):
            pass

    def replacing(self, backends: Iterable[Backend]) -> Iterator[None]:
        """Do the work of `replace` in slices of CHANGES_A_SLICE, those that leave first.

        Between slices the pool serves the old set as far as it is not replaced yet. A later `replacing` supersedes one
        that was not finished.
        """
        wanted = {backend.id: backend for backend in backends}
        leaving = [m for m in self._members.values() if not m.has_left and m.backend.id not in wanted]
        for number, member in enumerate(leaving, start=1):
            self._take_out(member)
            if number % CHANGES_A_SLICE == 0:
                yield
        changed = [backend for backend in wanted.values() if self._is_news(backend)]
        for number, backend in enumerate(changed, start=1):
            self._take_in(backend)
            if number % CHANGES_A_SLICE == 0:
                yield
        self._lift_excess_ejections()

    def _is_news(self, backend: Backend) -> bool:
        known = self._members.get(backend.id)
        # Rows that did not change are parsed once: mostly it is the same object.
        return known is None or known.has_left or (known.backend is not backend and known.backend != backend)

    def _take_in(self, backend: Backend) -> None:
        member = self._members.get(backend.id)
        if member is None:
            member = self._members[backend.id] = Member(backend)
        elif (member.backend.host, member.backend.port) != (backend.host, backend.port):
            member.health.succeed()
        member.backend, member.has_left = backend, False
        self._election.add(member)
        self._nobody = None

    def _take_out(self, member: Member) -> None:
        member.has_left = True
        member.health.succeed()
        self._election.remove(member)
        self._nobody = None
        if member.connections == 0:
            self._members.pop(member.backend.id, None)

    def _rank(self, member: Member) -> None:
        """Let the election know that a member's connections or health changed."""
        self._nobody = None
        if not member.has_left:
            self._election.update(member)

    # Leases

    def lease(
        self, lease_id: int, client: GeoInfo | None, preferred: str | None, excluded: Collection[str], now: float
    ) -> Lease | Unleased:
        """Reserve a place on the backend the client is bound to, or on the one elected for it.

        `preferred` is the backend the client is bound to: honoured past its soft limit and at weight 0; when it is
        full this connection overflows to another; when it cannot serve at all the answer is BINDING_BROKEN.
        `excluded` are the ids this connection has tried already.
        """
        self._readmit(now)
        held = self._leases.get(lease_id)
        if held is not None:  # the question was asked again
            if preferred is None:
                return self._granted(lease_id, held, client, Affinity.NEW)
            is_hit = held.backend.id == preferred
            return self._granted(lease_id, held, client, Affinity.HIT if is_hit else Affinity.OVERFLOW)
        affinity = Affinity.NEW
        if preferred is not None:
            bound = self._members.get(preferred)
            if bound is None or not bound.is_available:
                return Unleased(NoLease.BINDING_BROKEN)
            if not bound.is_full:
                self._reserve(lease_id, bound)
                return self._granted(lease_id, bound, client, Affinity.HIT)
            affinity = Affinity.OVERFLOW
        member = self._election.elect(client, excluded)
        if member is None:
            return Unleased(self._why_nobody())
        self._reserve(lease_id, member)
        return self._granted(lease_id, member, client, affinity)

    def _granted(self, lease_id: int, member: Member, client: GeoInfo | None, affinity: Affinity) -> Lease:
        tier = self._election.tier(member.backend, client)
        return Lease(lease_id, member.backend, tier, affinity, member.health.is_spotless)

    def restore(self, lease_id: int, backend: Backend) -> None:
        """Count a lease granted before this pool was built, whether or not its backend is still in the set."""
        if lease_id in self._leases:
            return
        member = self._members.get(backend.id)
        if member is None:
            member = self._members[backend.id] = Member(backend)
            member.has_left = True
        self._reserve(lease_id, member)

    def release(self, lease_id: int) -> None:
        """Give a lease back; unknown ids are none of ours any more."""
        member = self._leases.pop(lease_id, None)
        if member is None:
            return
        member.connections -= 1
        self._rank(member)
        if member.has_left and member.connections == 0:
            self._members.pop(member.backend.id, None)

    def _reserve(self, lease_id: int, member: Member) -> None:
        self._leases[lease_id] = member
        member.connections += 1
        self._rank(member)

    def _why_nobody(self) -> NoLease:
        if self._nobody is None:
            self._nobody = self._look_why_nobody()
        return self._nobody

    def _look_why_nobody(self) -> NoLease:
        present = [m for m in self._members.values() if not m.has_left and not m.backend.is_deleted]
        if not present:
            return NoLease.EMPTY
        if not any(map(_is_open, present)):
            return NoLease.DOWN
        return NoLease.FULL

    # Health

    def dial_failed(self, backend_id: str, now: float) -> float | None:
        """Count a failed dial. Returns the cool-down in seconds when it ejected the backend."""
        self._readmit(now)
        member = self._members.get(backend_id)
        if member is None or member.has_left:
            return None
        member.health.fail()
        if not member.health.wants_ejection or not self._may_eject(member):
            return None
        until = member.health.eject(now)
        heappush(self._cooling, (until, next(self._sequence), member))
        self._rank(member)
        return until - now

    def dial_succeeded(self, backend_id: str) -> None:
        """A success forgets failures and ends an ejection."""
        member = self._members.get(backend_id)
        if member is not None and not member.health.is_spotless:
            was_ejected = member.health.is_ejected
            member.health.succeed()
            if was_ejected:
                self._rank(member)

    def _may_eject(self, member: Member) -> bool:
        """Never more than half of the serving backends (rounded down), never the last that takes new clients."""
        # Counted among the few that cool down: in an outage of thousands this is asked for every failed dial.
        ejected = sum(m.health.ejected_until == until and m.backend.is_serving for until, _, m in self._cooling)
        others = (m for m in self._members.values() if m is not member)
        return ejected < self._serving // 2 and any(map(_is_open, others))

    def _lift_excess_ejections(self) -> None:
        """Readmit, soonest first, those whose ejection the set as it is now would not have allowed."""
        serving = [m for m in self._members.values() if m.backend.is_serving and not m.has_left]
        self._serving = len(serving)
        ejected = [m for m in serving if m.health.is_ejected]
        ejected.sort(key=lambda m: m.health.ejected_until or 0.0, reverse=True)
        while ejected and (len(ejected) > len(serving) // 2 or not any(map(_is_open, serving))):
            member = ejected.pop()
            member.health.readmit()
            self._rank(member)

    def _readmit(self, now: float) -> None:
        while self._cooling and self._cooling[0][0] <= now:
            until, _, member = heappop(self._cooling)
            if member.health.ejected_until == until:
                member.health.readmit()
                self._rank(member)

    # Looking in

    def view(self, now: float, first: int = 0, count: int | None = None) -> list[MemberView]:
        """Describe members, those that left but still have connections included: all, or a page of `count`."""
        self._readmit(now)
        return [
            MemberView(
                backend=m.backend,
                connections=m.connections,
                consecutive_failures=m.health.consecutive_failures,
                ejected_for=max(0.0, (m.health.ejected_until or now) - now),
                is_available=m.is_available,
                takes_new_clients=m.takes_new_clients,
            )
            for m in islice(self._members.values(), first, None if count is None else first + count)
        ]

    def candidates(self, now: float) -> tuple[int, int]:
        """Return how many members there are, and how many take new clients."""
        self._readmit(now)
        return len(self._members), sum(member.takes_new_clients for member in self._members.values())


def _is_open(member: Member) -> bool:
    """New clients may be sent there, once it has room."""
    return member.is_available and member.backend.weight > 0
