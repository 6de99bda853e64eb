"""Any interleaving of leases, releases, failures, probes, reloads, crashes and time keeps the pool's promises. Every
reply is compared with a model that has the rules but no heap: it scans all backends every time."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.health import HealthRules, HealthState
from app.domain.member_views import MemberView, Transition
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from app.domain.plan import SelectorPlan
from app.domain.pool import Pool
from app.domain.selection import Selector, make_selector
from tests.unit.pools import client_from

UP, UNKNOWN, DOWN, EJECTED = HealthState.UP, HealthState.UNKNOWN, HealthState.DOWN, HealthState.EJECTED
RANKS = {UP: 0, UNKNOWN: 1, DOWN: 2, EJECTED: 2}

NAMES = ["a", "b", "c", "d", "e"]
PLACES = [("BR", "sa"), ("AR", "sa"), ("FR", "eu"), (None, "eu"), ("JP", None), (None, None)]
CLIENTS = [
    None,
    GeoInfo("BR", "sa"),
    GeoInfo("FR", "eu"),
    GeoInfo("JP", "ap"),
    GeoInfo(None, "sa"),
    GeoInfo("ZZ", None),
]
COOLDOWNS = [10.0, 20.0, 40.0, 80.0, 160.0, 300.0]
FRONTENDS = ["near", "turns"]


@st.composite
def backends(draw: st.DrawFn, name: str) -> Backend:
    country, region = draw(st.sampled_from(PLACES))
    usually = lambda value, *others: st.sampled_from([value] * 4 + list(others))  # noqa: E731
    return Backend(
        id=name,
        app=None,
        country=country,
        region=region,
        host=draw(usually("10.0.0.1", "10.0.0.2")),
        port=80,
        is_healthy=draw(usually(True, False)),
        weight=draw(st.sampled_from([1, 1, 3, 0])),
        soft_limit=draw(st.sampled_from([1, 2, 100])),
        hard_limit=draw(st.sampled_from([0, 1, 2, 4])),
        is_deleted=draw(usually(False, True)),
    )


sets_of_backends = st.lists(st.sampled_from(NAMES), unique=True).flatmap(
    lambda names: st.tuples(*(backends(name) for name in names))
)


class Health:
    """The model's state of a backend."""

    def __init__(self, is_probed: bool) -> None:
        self.state = UNKNOWN if is_probed else UP
        self.failures = 0
        self.ejections = 0
        self.ejected_until: float | None = None
        self.passed = 0
        self.failed = 0

    def become(self, state: HealthState) -> None:
        self.state, self.ejected_until = state, None


class PoolMachine(RuleBasedStateMachine):
    """`self.pool` is under test; everything else is the model."""

    @initialize(
        rows=sets_of_backends,
        pop_region=st.sampled_from([None, "sa", "eu"]),
        spills=st.booleans(),
        seed=st.integers(0, 100),
        is_probed=st.booleans(),
    )
    def start(
        self, rows: tuple[Backend, ...], pop_region: str | None, spills: bool, seed: int, is_probed: bool
    ) -> None:
        self.pop_region, self.spills, self.seed, self.is_probed = pop_region, spills, seed, is_probed
        self.now = 1000.0
        self.next_id = 1
        self.rows = {one.id: one for one in rows}
        self.leases: dict[int, Backend] = {}
        self.asked: dict[int, tuple[str, GeoInfo | None, str | None, Lease]] = {}
        self._build()

    def _build(self) -> None:
        """Make a new pool and its model."""
        self.health = {name: Health(self.is_probed) for name in self.rows}
        self.told = {name: health.state for name, health in self.health.items()}
        self.open_told = [False]
        self.pool = Pool(self._hear_of_change, self.open_told.append)
        self.pool.set_rules(self._rules(), self.now)
        self.pool.set_selectors(
            [SelectorPlan("near", "geo", self.spills), SelectorPlan("turns", "round_robin")], self._make_selector
        )
        self.pool.replace(self.rows.values(), self.now)

    def _rules(self) -> HealthRules:
        return HealthRules(is_probed=self.is_probed, unhealthy_threshold=3, healthy_threshold=2, cooldown_seconds=10)

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        chance = random.Random(self.seed)
        return make_selector(
            plan.algorithm, pop_region=self.pop_region, rng=chance, spills_at_soft_limit=plan.spills_at_soft_limit
        )

    def _hear_of_change(self, change: Transition) -> None:
        if change.backend_id in self.rows:  # only the connections of a departed backend matter
            assert self.told[change.backend_id] is change.before is not change.after
            assert (change.seconds > 0) == (change.after is EJECTED)
            self.told[change.backend_id] = change.after

    # The model

    def _count(self, name: str) -> int:
        return sum(held.id == name for held in self.leases.values())

    def _is_ejected(self, name: str) -> bool:
        return self.health[name].state is EJECTED

    def _open(self) -> list[str]:
        """Return the backends that take new clients, health and hard limit aside."""
        return [name for name in self._serving() if self.rows[name].weight > 0]

    def _floor(self) -> int:
        return min((RANKS[self.health[name].state] for name in self._open()), default=0)

    def _is_available(self, name: str) -> bool:
        return name in self._serving() and RANKS[self.health[name].state] <= self._floor()

    def _is_full(self, name: str) -> bool:
        return 0 < self.rows[name].hard_limit <= self._count(name)

    def _tier(self, row: Backend, client: GeoInfo | None) -> int:
        if client and client.country and row.country == client.country:
            return 0
        if client and client.region and row.region == client.region:
            return 1
        return 2 if self.pop_region and row.region == self.pop_region else 3

    def _rank(self, row: Backend, client: GeoInfo | None) -> tuple[float, ...]:
        soft = min(row.soft_limit, row.hard_limit) if row.hard_limit else row.soft_limit
        connections = self._count(row.id)
        tier, load = self._tier(row, client), connections / soft / row.weight
        is_over = self.spills and connections >= soft
        if not self.spills or tier == 3:
            return (tier == 3, 0, tier, is_over, load)
        return (False, is_over, tier, load)

    def _best(self, frontend: str, client: GeoInfo | None, tried: set[str]) -> set[str]:
        candidates = [
            row
            for name, row in self.rows.items()
            if self._is_available(name) and row.weight > 0 and not self._is_full(name) and name not in tried
        ]
        ranks = {row.id: self._rank(row, client) if frontend == "near" else () for row in candidates}
        return {name for name, rank in ranks.items() if rank == min(ranks.values())}

    def _serving(self) -> list[str]:
        return [name for name, row in self.rows.items() if row.is_healthy and not row.is_deleted]

    def _may_eject(self, name: str) -> bool:
        peers = [one for one in self._open() if one != name and RANKS[self.health[one].state] <= self._floor()]
        ejected = [one for one in self._serving() if self._is_ejected(one)]
        return len(ejected) < len(self._serving()) // 2 and bool(peers) and self._floor() < 2

    def _ejected(self) -> set[str]:
        return {name for name in self.rows if self._is_ejected(name)}

    def _may_stay_ejected(self, ejected: set[str]) -> bool:
        """Return whether a reload may leave all of these ejected."""
        out = ejected & set(self._serving())
        return not out or (len(out) <= len(self._serving()) // 2 and self._floor() < 2)

    # What may happen

    @rule(
        frontend=st.sampled_from(FRONTENDS),
        client=st.sampled_from(CLIENTS),
        bound=st.sampled_from([None, None, *NAMES]),
        tried=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def lease(self, frontend: str, client: GeoInfo | None, bound: str | None, tried: set[str]) -> None:
        tried -= {bound}
        lease_id, self.next_id = self.next_id, self.next_id + 1
        best = self._best(frontend, client, tried)
        response = self.pool.lease(lease_id, frontend, client_from(client), bound, tried, self.now)
        if bound is not None and not self._is_available(bound):
            assert response == Unleased(NoLease.BINDING_BROKEN)
            return
        if bound is not None and not self._is_full(bound):
            assert isinstance(response, Lease)
            assert (response.backend.id, response.affinity) == (bound, Affinity.HIT)
        elif not best:
            assert isinstance(response, Unleased)
            assert response.reason is not NoLease.BINDING_BROKEN
            return
        else:
            assert isinstance(response, Lease)
            assert response.backend.id in best
            assert response.affinity is (Affinity.NEW if bound is None else Affinity.OVERFLOW)
        chosen = response.backend
        assert chosen == self.rows[chosen.id]
        assert response.tier == (self._tier(chosen, client) if frontend == "near" else None)
        health = self.health[chosen.id]
        assert response.is_spotless == (health.failures == 0 and health.ejections == 0)
        self.leases[lease_id] = chosen
        self.asked[lease_id] = (frontend, client, bound, response)
        assert not chosen.hard_limit or self._count(chosen.id) <= chosen.hard_limit

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.asked)))
        frontend, client, bound, first = self.asked[lease_id]
        again = self.pool.lease(lease_id, frontend, client_from(client), bound, (), self.now)
        assert isinstance(again, Lease)
        assert (again.backend.id, again.affinity) == (first.backend.id, first.affinity)

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from([0, *self.leases]))
        self.pool.release(lease_id)
        self.pool.release(lease_id)
        self.leases.pop(lease_id, None)
        self.asked.pop(lease_id, None)

    @rule(name=st.sampled_from(NAMES), is_known=st.booleans())
    def restore(self, name: str, is_known: bool) -> None:
        stranger = Backend(name, None, None, None, "10.0.0.9", 80)
        lease_id = self.next_id - 1 if is_known else self.next_id
        self.next_id += not is_known
        row = self.rows.get(name, stranger)
        self.pool.restore(lease_id, row, self.now)
        self.leases.setdefault(lease_id, row)

    def _address(self, name: str, is_late: bool) -> Backend:
        """Return a backend as it is, or as it was at a former address."""
        known = self.rows.get(name, Backend(name, None, None, None, "10.0.0.9", 80))
        return replace(known, host="10.9.9.9") if is_late else known

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 4), is_late=st.sampled_from([False, False, True]))
    def traffic_failed(self, name: str, times: int, is_late: bool) -> None:
        for _ in range(times):
            self.pool.traffic_failed(self._address(name, is_late), "econnrefused", self.now)
            if name not in self.rows or is_late:
                continue
            health = self.health[name]
            health.failures += 1
            if health.state is UP and health.failures >= 3 and self._may_eject(name):
                health.become(EJECTED)
                health.ejected_until = self.now + COOLDOWNS[min(health.ejections, 5)]
                health.ejections += 1

    @rule(name=st.sampled_from(NAMES), is_late=st.sampled_from([False, False, True]))
    def traffic_succeeded(self, name: str, is_late: bool) -> None:
        self.now += 1e-6  # no two ejections of one backend begin at the same time
        self._readmit()
        self.pool.traffic_succeeded(self._address(name, is_late), self.now)
        if name not in self.rows or is_late:
            return
        health = self.health[name]
        health.failures = health.ejections = 0
        if health.state is EJECTED:
            health.become(UP)

    @rule(
        name=st.sampled_from(NAMES),
        failure=st.sampled_from([None, "refused"]),
        times=st.integers(1, 3),
        is_late=st.sampled_from([False, False, True]),
    )
    def probed(self, name: str, failure: str | None, times: int, is_late: bool) -> None:
        for _ in range(times):
            self.pool.probed(self._address(name, is_late), failure, self.now)
            if name not in self.rows or is_late or not self.is_probed:
                continue
            health = self.health[name]
            health.passed, health.failed = (health.passed + 1, 0) if failure is None else (0, health.failed + 1)
            if health.state is UNKNOWN or (health.state is DOWN and health.passed >= 2):
                health.become(UP if failure is None else DOWN)
                health.failures, health.ejections = (0, 0) if failure is None else (health.failures, health.ejections)
            elif health.failed >= 3:
                health.become(DOWN)

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self._readmit()

    def _readmit(self) -> None:
        for health in self.health.values():
            if health.ejected_until is not None and health.ejected_until <= self.now:
                health.failures = 0
                health.become(UP)

    @rule(is_probed=st.booleans())
    def adopt(self, is_probed: bool) -> None:
        self.is_probed = is_probed
        self.pool.set_rules(self._rules(), self.now)
        for name, health in self.health.items():
            if not is_probed and health.state in (UNKNOWN, DOWN):
                self.health[name] = Health(is_probed)

    @rule(rows=sets_of_backends)
    def replace(self, rows: tuple[Backend, ...]) -> None:
        self._readmit()
        self._view()  # cool-downs that are over are over
        old, self.rows = self.rows, {one.id: one for one in rows}
        former, self.health = self.health, {}
        for one in rows:
            is_same = one.id in old and (old[one.id].host, old[one.id].port) == (one.host, one.port)
            self.health[one.id] = former[one.id] if is_same else Health(self.is_probed)
            if one.id not in old:
                self.told[one.id] = self.health[one.id].state
        before = self._ejected()
        self.pool.replace(rows, self.now)
        after = {view.backend.id for view in self._view() if view.ejected_for > 0}
        assert after <= before
        if self._may_stay_ejected(before):
            assert after == before
        for name in before - after:
            self.health[name].failures = 0
            self.health[name].become(UP)
        assert self._may_stay_ejected(after)

    @rule()
    def crash(self) -> None:
        """A successor is built from the rows loaded last and the leases of the connections open now."""
        self._build()
        for lease_id, row in self.leases.items():
            self.pool.restore(lease_id, row, self.now)
        self.asked.clear()

    # What always holds

    def _view(self) -> list[MemberView]:
        return self.pool.view(self.now)

    @invariant()
    def counts_are_the_live_leases(self) -> None:
        held = {row.id for row in self.leases.values()}
        assert {view.backend.id: view.connections for view in self._view()} == {
            name: self._count(name) for name in self.rows.keys() | held
        }

    @invariant()
    def the_pool_says_of_each_backend_what_the_model_says(self) -> None:
        for view in self._view():
            name = view.backend.id
            assert view.is_available == self._is_available(name)
            if name in self.rows:
                assert view.state is self.health[name].state is self.told[name]
                assert view.consecutive_failures == self.health[name].failures
                assert (view.ejected_for > 0) == self._is_ejected(name)

    @invariant()
    def somebody_serves_as_long_as_the_database_has_anybody(self) -> None:
        takers = [view for view in self._view() if view.is_available and view.backend.weight > 0]
        assert bool(takers) == bool(self._open())

    @invariant()
    def failing_open_is_told_when_it_begins_and_when_it_ends(self) -> None:
        assert self.open_told[-1] == self.pool.fails_open == (self._floor() == 2)
        assert all(one != other for one, other in pairwise(self.open_told))

    @invariant()
    def never_more_than_half_is_ejected_and_without_probes_never_the_last(self) -> None:
        ejected = self._ejected() & set(self._serving())
        assert len(ejected) <= len(self._serving()) // 2
        if not any(health.state is DOWN for health in self.health.values()) and ejected:
            assert set(self._open()) - ejected

    def teardown(self) -> None:
        if hasattr(self, "pool"):
            for lease_id in list(self.leases):
                self.pool.release(lease_id)
            assert {view.backend.id: view.connections for view in self._view()} == dict.fromkeys(self.rows, 0)


TestPool = PoolMachine.TestCase
TestPool.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
