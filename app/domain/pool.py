"""A pool: its backends, their live connections, their health and the leases on them.

Selecting a backend reserves it: a lease is counted when it is granted and uncounted exactly once, so a hard limit holds
under any burst. Connections choose the lease ids. Operations are idempotent per id, so a message may be sent again.

The health that suffices to serve depends on the other backends. While any backend is UP, only those serve; otherwise
those not probed yet. If every backend is down or ejected, all that are healthy in the database serve (fail open),
because refusing every client would help no one. `Floor` holds that threshold.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count, islice
from typing import Final

from app.domain.client import Client
from app.domain.health import RANK, HealthRules, HealthState
from app.domain.member import Floor, Member
from app.domain.member_views import MemberView, Transition
from app.domain.model import Backend, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from app.domain.plan import SelectorPlan
from app.domain.selection import Selector, WithBackups

CHANGES_PER_SLICE: Final = 1000
"""Backends added or removed at a time, which takes 4 ms."""

_FAIL_OPEN_RANK: Final = RANK[HealthState.DOWN]


class Pool:
    """The members of one pool and its selectors. All times are arguments, in monotonic seconds."""

    def __init__(
        self, on_change: Callable[[Transition], None] | None = None, on_fail_open: Callable[[bool], None] | None = None
    ) -> None:
        """`on_change` is called for every health change, `on_fail_open` when failing open begins (True) and ends."""
        self._on_change = on_change or (lambda _change: None)
        self._on_fail_open = on_fail_open or (lambda _is_open: None)
        self._rules = HealthRules()
        self._plans: dict[str, SelectorPlan] = {}
        self._selectors: dict[str, Selector] = {}
        self._load_selectors: tuple[Selector, ...] = ()
        self._floor = Floor()
        self._tally = dict.fromkeys(HealthState, 0)
        """Members by health state: those that may take new clients, health and hard limit aside."""
        self._members: dict[str, Member] = {}
        self._leases: dict[int, Member] = {}
        self._cooling: list[tuple[float, int, Member]] = []
        self._sequence = count()
        self._serving = 0
        """Members that are healthy and not deleted in the database."""
        self._no_lease: NoLease | None = None
        """Why a selection finds no backend: cached until something changes."""
        self._generation = 0

    # Selectors

    def set_selectors(self, plans: Iterable[SelectorPlan], make_selector: Callable[[SelectorPlan], Selector]) -> None:
        """Use exactly these selectors from now on. A selector whose plan is unchanged is kept."""
        wanted = {plan.frontend: plan for plan in plans}
        for frontend, plan in wanted.items():
            if self._plans.get(frontend) != plan:
                selector = make_selector(plan)
                if plan.has_backups:
                    selector = WithBackups(selector, make_selector(plan))
                self._selectors[frontend] = self._with_members(selector)
        self._selectors = {frontend: self._selectors[frontend] for frontend in wanted}
        self._load_selectors = tuple(s for s in self._selectors.values() if s.ranks_by_load)
        self._plans = wanted

    def _with_members(self, selector: Selector) -> Selector:
        for member in self._members.values():
            if not member.has_left:
                selector.add(member)
        return selector

    # The set of backends

    def replace(self, backends: Iterable[Backend], now: float) -> None:
        """Serve exactly these backends from now on. Backends that remain keep their counts, health and leases."""
        for _ in self.replace_in_slices(backends, now):
            pass

    def replace_in_slices(self, backends: Iterable[Backend], now: float) -> Iterator[None]:
        """Do the work of `replace` in slices of CHANGES_PER_SLICE, additions first.

        Between slices the pool serves the set as far as it has been replaced. A later call supersedes an unfinished
        one.
        """
        wanted = {backend.id: backend for backend in backends}
        changed = [backend for backend in wanted.values() if self._is_changed(backend)]
        for number, backend in enumerate(changed, start=1):
            self._add(backend, now)
            if number % CHANGES_PER_SLICE == 0:
                yield
        leaving = [m for m in self._members.values() if not m.has_left and m.backend.id not in wanted]
        for number, member in enumerate(leaving, start=1):
            self._remove(member)
            if number % CHANGES_PER_SLICE == 0:
                yield
        self._lift_excess_ejections(now)

    def set_rules(self, rules: HealthRules, now: float) -> None:
        """Apply other health rules from now on."""
        if rules == self._rules:
            return
        self._rules = rules
        for member in self._members.values():
            before = member.health.state
            member.health.set_rules(rules)
            self._health_judged(member, before, "rules_changed", now)

    def _is_changed(self, backend: Backend) -> bool:
        known = self._members.get(backend.id)
        # An unchanged row is not parsed again, so it is usually the same object.
        return known is None or known.has_left or (known.backend is not backend and known.backend != backend)

    def _add(self, backend: Backend, now: float) -> None:
        member = self._members.get(backend.id)
        if member is None:
            member = self._members[backend.id] = Member(backend, self._rules, self._floor, now)
        elif member.has_left:
            member.health.reset()  # the rules may have changed since it left
            member.record_change(now)
        elif (member.backend.host, member.backend.port) != (backend.host, backend.port):
            self._reset(member, now)
        member.backend, member.has_left = backend, False
        self._generation += 1
        for selector in self._selectors.values():
            selector.add(member)
        self._no_lease = None
        self._update_tally(member)

    def _remove(self, member: Member) -> None:
        member.has_left = True
        member.health.reset()
        self._generation += 1
        for selector in self._selectors.values():
            selector.remove(member)
        self._no_lease = None
        self._update_tally(member)
        if member.connections == 0:
            self._members.pop(member.backend.id, None)

    def _reset(self, member: Member, now: float) -> None:
        before = member.health.state
        member.health.reset()
        self._health_judged(member, before, "address_changed", now)

    def _rank(self, member: Member) -> None:
        """Tell every selector that a member's connections or health changed."""
        self._generation += 1
        self._no_lease = None
        if not member.has_left:
            for selector in self._selectors.values():
                selector.update(member)

    def _rank_load(self, member: Member) -> None:
        """Tell the selectors that depend on load that a member's connections changed."""
        self._no_lease = None
        if member.backend.hard_limit:  # it may be full now, or no longer
            self._rank(member)
        elif not member.has_left:
            for selector in self._load_selectors:
                selector.update(member)

    def _update_tally(self, member: Member) -> None:
        """Count a member under its present state, and move the floor to the best state that has members."""
        is_open = member.backend.is_serving and member.backend.weight > 0 and not member.has_left
        counts_as = member.health.state if is_open else None
        if counts_as is member.counted_as:
            return
        if member.counted_as is not None:
            self._tally[member.counted_as] -= 1
        if counts_as is not None:
            self._tally[counts_as] += 1
        member.counted_as = counts_as
        self._update_floor()

    def _update_floor(self) -> None:
        lowest = min((RANK[state] for state, count in self._tally.items() if count), default=0)
        before, self._floor.rank = self._floor.rank, lowest
        if lowest > before:
            for member in self._members.values():
                self._rank(member)
        if (before == _FAIL_OPEN_RANK) != self.fails_open:
            self._on_fail_open(self.fails_open)

    # Leases

    def lease(
        self,
        lease_id: int,
        frontend: str,
        client: Client,
        preferred: str | None,
        excluded: Collection[str],
        now: float,
    ) -> Lease | Unleased:
        """Reserve a place on the backend the client is bound to, or on one that the frontend's selector chooses.

        `preferred` is the id of the bound backend. It is used even above its soft limit and at weight 0. If it is
        full, this connection overflows to another; if it cannot serve at all, the reply is BINDING_BROKEN.
        `excluded` are the ids this connection has already tried.
        """
        self._readmit(now)
        selector = self._selectors.get(frontend)
        if selector is None:
            return Unleased(NoLease.EMPTY)
        held = self._leases.get(lease_id)
        if held is not None:  # the request was sent again
            if preferred is None:
                return self._granted(lease_id, selector, held, client, Affinity.NEW)
            is_hit = held.backend.id == preferred
            return self._granted(lease_id, selector, held, client, Affinity.HIT if is_hit else Affinity.OVERFLOW)
        affinity = Affinity.NEW
        if preferred is not None:
            bound = self._members.get(preferred)
            if bound is None or not bound.is_available:
                return Unleased(NoLease.BINDING_BROKEN)
            if not bound.is_full:
                self._reserve(lease_id, bound)
                return self._granted(lease_id, selector, bound, client, Affinity.HIT)
            affinity = Affinity.OVERFLOW
        member = selector.select(client, excluded)
        if member is None:
            return Unleased(self._no_lease_reason())
        self._reserve(lease_id, member)
        return self._granted(lease_id, selector, member, client, affinity)

    @staticmethod
    def _granted(lease_id: int, selector: Selector, member: Member, client: Client, affinity: Affinity) -> Lease:
        tier = selector.tier(member.backend, client)
        return Lease(lease_id, member.backend, tier, affinity, member.health.is_spotless)

    def restore(self, lease_id: int, backend: Backend, now: float) -> None:
        """Count a lease granted before this pool was built, even if its backend is no longer in the set."""
        if lease_id in self._leases:
            return
        member = self._members.get(backend.id)
        if member is None:
            member = self._members[backend.id] = Member(backend, self._rules, self._floor, now)
            member.has_left = True
        self._reserve(lease_id, member)

    def release(self, lease_id: int) -> None:
        """Release a lease. An unknown id has been released already."""
        member = self._leases.pop(lease_id, None)
        if member is None:
            return
        member.connections -= 1
        self._rank_load(member)
        if member.has_left and member.connections == 0:
            self._members.pop(member.backend.id, None)

    def _reserve(self, lease_id: int, member: Member) -> None:
        self._leases[lease_id] = member
        member.connections += 1
        self._rank_load(member)

    def _no_lease_reason(self) -> NoLease:
        if self._no_lease is None:
            self._no_lease = self._find_no_lease_reason()
        return self._no_lease

    def _find_no_lease_reason(self) -> NoLease:
        present = [m for m in self._members.values() if not m.has_left and not m.backend.is_deleted]
        if not present:
            return NoLease.EMPTY
        if not any(m.is_available and m.backend.weight > 0 for m in present):
            return NoLease.DOWN
        return NoLease.FULL

    # Health

    def traffic_failed(self, backend: Backend, cause: str, now: float) -> None:
        """Count a failed dial or another failure of the backend that a connection met."""
        self._readmit(now)
        member = self._find(backend)
        if member is None:
            return
        member.health.traffic_failed()
        if member.health.wants_ejection and self._may_eject(member):
            before = member.health.state
            until = member.health.eject(now)
            heappush(self._cooling, (until, next(self._sequence), member))
            self._health_judged(member, before, cause, now)

    def traffic_succeeded(self, backend: Backend, now: float) -> None:
        """Record a success, which clears failures and ends an ejection."""
        member = self._find(backend)
        if member is not None and not member.health.is_spotless:
            before = member.health.state
            member.health.traffic_succeeded()
            self._health_judged(member, before, "traffic_succeeded", now)

    def probed(self, backend: Backend, failure: str | None, now: float) -> None:
        """Count a probe that passed (`failure` None) or failed."""
        self._readmit(now)
        member = self._find(backend)
        if member is None or not member.health.rules.is_probed:
            return
        before = member.health.state
        if failure is None:
            member.health.probe_passed()
        else:
            member.health.probe_failed()
        self._health_judged(member, before, failure or "probe_passed", now)

    def _find(self, backend: Backend) -> Member | None:
        """Return the member for this backend, None if it has left or changed its address meanwhile."""
        member = self._members.get(backend.id)
        if member is None or member.has_left:
            return None
        is_same = (member.backend.host, member.backend.port) == (backend.host, backend.port)
        return member if is_same else None

    def _health_judged(self, member: Member, before: HealthState, cause: str, now: float) -> None:
        """Record and report a change of a member's state, if there was one, and rank the member again."""
        after = member.health.state
        if after is before:
            return
        member.record_change(now)
        seconds = (member.health.ejected_until or now) - now
        self._on_change(Transition(member.backend.id, before, after, cause, seconds))
        self._update_tally(member)
        self._rank(member)

    @property
    def fails_open(self) -> bool:
        """Whether every backend is down or ejected, and all serve nevertheless."""
        return self._floor.rank == _FAIL_OPEN_RANK

    def _may_eject(self, member: Member) -> bool:
        """Allow at most half of the serving backends (rounded down), and never the last that takes new clients."""
        # Counts only members that cool down, which are few: in an outage of thousands every failed dial comes here.
        ejected = sum(m.health.ejected_until == until and m.backend.is_serving for until, _, m in self._cooling)
        peers = sum(count for state, count in self._tally.items() if RANK[state] <= self._floor.rank)
        if member.counted_as is not None:
            peers -= 1
        return ejected < self._serving // 2 and peers > 0 and not self.fails_open

    def _lift_excess_ejections(self, now: float) -> None:
        """Readmit members while more are ejected than the present set allows, shortest remaining cool-down first."""
        serving = [m for m in self._members.values() if m.backend.is_serving and not m.has_left]
        self._serving = len(serving)
        ejected = [m for m in serving if m.health.is_ejected]
        ejected.sort(key=lambda m: m.health.ejected_until or 0.0, reverse=True)
        while ejected and (len(ejected) > len(serving) // 2 or self.fails_open):
            self._end_ejection(ejected.pop(), "too_many_ejected", now)

    def _readmit(self, now: float) -> None:
        while self._cooling and self._cooling[0][0] <= now:
            until, _, member = heappop(self._cooling)
            if member.health.ejected_until == until:
                self._end_ejection(member, "cooled_down", now)

    def _end_ejection(self, member: Member, cause: str, now: float) -> None:
        member.health.readmit()
        self._health_judged(member, HealthState.EJECTED, cause, now)

    # Views

    def view(self, now: float, first: int = 0, count: int | None = None) -> list[MemberView]:
        """Describe all members, or a page of `count`, including those that have left but still have connections."""
        self._readmit(now)
        return [
            MemberView(
                backend=m.backend,
                connections=m.connections,
                load=m.load,
                state=m.health.state,
                changed_at=m.changed_at,
                history=m.history,
                consecutive_failures=m.health.consecutive_failures,
                ejected_for=max(0.0, (m.health.ejected_until or now) - now),
                is_available=m.is_available,
                takes_new_clients=m.takes_new_clients,
                has_left=m.has_left,
            )
            for m in islice(self._members.values(), first, None if count is None else first + count)
        ]

    def generation(self, now: float) -> int:
        """Return a number that grows whenever the set of serving members may change; connections alone do not count."""
        self._readmit(now)
        return self._generation

    def counts(self, now: float) -> tuple[int, int, bool]:
        """Return the number of members, the number that take new clients, and whether the pool fails open."""
        self._readmit(now)
        candidates = sum(member.takes_new_clients for member in self._members.values())
        return len(self._members), candidates, self.fails_open
