"""Any interleaving of leases, releases, failures, reloads, crashes and time keeps the pool's promises. Every answer is
held against a model that knows the rules but no heap: it looks at all backends, each time."""

from __future__ import annotations

import random

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.election import GeoElection
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from app.domain.pool import MemberView, Pool

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
    """What the model remembers of a backend's dials."""

    def __init__(self) -> None:
        self.failures = 0
        self.ejections = 0
        self.ejected_until: float | None = None


class PoolMachine(RuleBasedStateMachine):
    """`self.pool` is the thing; everything else is the model."""

    @initialize(
        rows=sets_of_backends,
        pop_region=st.sampled_from([None, "sa", "eu"]),
        spills=st.booleans(),
        seed=st.integers(0, 100),
    )
    def start(self, rows: tuple[Backend, ...], pop_region: str | None, spills: bool, seed: int) -> None:
        self.pop_region, self.spills, self.seed = pop_region, spills, seed
        self.now = 1000.0
        self.next_id = 1
        self.rows = {one.id: one for one in rows}
        self.leases: dict[int, Backend] = {}
        self.asked: dict[int, tuple[GeoInfo | None, str | None, Lease]] = {}
        self.health = {name: Health() for name in self.rows}
        self.pool = self._build()

    def _build(self) -> Pool:
        pool = Pool(GeoElection(self.pop_region, random.Random(self.seed), spills_at_soft_limit=self.spills))
        pool.replace(self.rows.values())
        return pool

    # The model

    def _count(self, name: str) -> int:
        return sum(held.id == name for held in self.leases.values())

    def _is_ejected(self, name: str) -> bool:
        until = self.health[name].ejected_until
        return until is not None and self.now < until

    def _is_available(self, name: str) -> bool:
        row = self.rows.get(name)
        return row is not None and row.is_healthy and not row.is_deleted and not self._is_ejected(name)

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

    def _best(self, client: GeoInfo | None, tried: set[str]) -> set[str]:
        candidates = [
            row
            for name, row in self.rows.items()
            if self._is_available(name) and row.weight > 0 and not self._is_full(name) and name not in tried
        ]
        ranks = {row.id: self._rank(row, client) for row in candidates}
        return {name for name, rank in ranks.items() if rank == min(ranks.values())}

    def _serving(self) -> list[str]:
        return [name for name, row in self.rows.items() if row.is_healthy and not row.is_deleted]

    def _ejections_are_within_bounds(self, ejected: set[str]) -> bool:
        serving = self._serving()
        open_ones = [name for name in serving if name not in ejected and self.rows[name].weight > 0]
        out = ejected & set(serving)
        return not out or (len(out) <= len(serving) // 2 and bool(open_ones))

    def _ejected(self) -> set[str]:
        return {name for name in self.rows if self._is_ejected(name)}

    # What may happen

    @rule(
        client=st.sampled_from(CLIENTS),
        bound=st.sampled_from([None, None, *NAMES]),
        tried=st.sets(st.sampled_from(NAMES), max_size=2),
    )
    def lease(self, client: GeoInfo | None, bound: str | None, tried: set[str]) -> None:
        tried -= {bound}
        lease_id, self.next_id = self.next_id, self.next_id + 1
        best = self._best(client, tried)
        answer = self.pool.lease(lease_id, client, bound, tried, self.now)
        if bound is not None and not self._is_available(bound):
            assert answer == Unleased(NoLease.BINDING_BROKEN)
            return
        if bound is not None and not self._is_full(bound):
            assert isinstance(answer, Lease)
            assert (answer.backend.id, answer.affinity) == (bound, Affinity.HIT)
        elif not best:
            assert isinstance(answer, Unleased)
            assert answer.reason is not NoLease.BINDING_BROKEN
            return
        else:
            assert isinstance(answer, Lease)
            assert answer.backend.id in best
            assert answer.affinity is (Affinity.NEW if bound is None else Affinity.OVERFLOW)
        chosen = answer.backend
        assert chosen == self.rows[chosen.id]
        assert answer.tier == self._tier(chosen, client)
        health = self.health[chosen.id]
        assert answer.is_spotless == (health.failures == 0 and health.ejections == 0)
        self.leases[lease_id] = chosen
        self.asked[lease_id] = (client, bound, answer)
        assert not chosen.hard_limit or self._count(chosen.id) <= chosen.hard_limit

    @precondition(lambda self: self.asked)
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        lease_id = data.draw(st.sampled_from(sorted(self.asked)))
        client, bound, first = self.asked[lease_id]
        again = self.pool.lease(lease_id, client, bound, (), self.now)
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
        self.pool.restore(lease_id, row)
        self.leases.setdefault(lease_id, row)

    @rule(name=st.sampled_from(NAMES), times=st.integers(1, 4))
    def dial_failed(self, name: str, times: int) -> None:
        for _ in range(times):
            cooldown = self.pool.dial_failed(name, self.now)
            if name not in self.rows:
                assert cooldown is None
                return
            health = self.health[name]
            was_ejected = self._is_ejected(name)
            if not was_ejected and health.ejected_until is not None:
                health.failures, health.ejected_until = 0, None  # on probation since the cool-down ended
            health.failures += 1
            may = self._ejections_are_within_bounds(self._ejected() | {name}) and name in self._serving()
            if health.failures < 3 or was_ejected:
                assert cooldown is None
            elif name in self._serving():
                assert (cooldown is not None) == may
            if cooldown is not None:
                assert cooldown == COOLDOWNS[min(health.ejections, 5)]
                health.ejections += 1
                health.ejected_until = self.now + cooldown

    @rule(name=st.sampled_from(NAMES))
    def dial_succeeded(self, name: str) -> None:
        self.pool.dial_succeeded(name)
        if name in self.rows:
            self.health[name] = Health()

    @rule(seconds=st.sampled_from([0.5, 5.0, 10.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for health in self.health.values():
            if health.ejected_until is not None and health.ejected_until <= self.now:
                health.failures, health.ejected_until = 0, None

    @rule(rows=sets_of_backends)
    def replace(self, rows: tuple[Backend, ...]) -> None:
        self.pool.view(self.now)  # cool-downs that are over are over
        old, self.rows = self.rows, {one.id: one for one in rows}
        self.health = {
            one.id: self.health[one.id]
            if one.id in old and (old[one.id].host, old[one.id].port) == (one.host, one.port)
            else Health()
            for one in rows
        }
        before = self._ejected()
        self.pool.replace(rows)
        after = {view.backend.id for view in self._view() if view.ejected_for > 0}
        assert after <= before
        if self._ejections_are_within_bounds(before):
            assert after == before
        for name in before - after:
            self.health[name].failures, self.health[name].ejected_until = 0, None

    @rule()
    def crash(self) -> None:
        """A successor is built from the rows loaded last and the leases of the connections open now."""
        self.pool = self._build()
        for lease_id, row in self.leases.items():
            self.pool.restore(lease_id, row)
        self.health = {name: Health() for name in self.rows}
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
                assert (view.ejected_for > 0) == self._is_ejected(name)

    @invariant()
    def never_more_than_half_is_ejected_and_never_the_last(self) -> None:
        assert self._ejections_are_within_bounds({v.backend.id for v in self._view() if v.ejected_for > 0})

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
