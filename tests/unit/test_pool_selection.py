"""Several selectors over one pool: own rotations, one count; replacing the set without a gap, and what is kept."""

from __future__ import annotations

from typing import Any

import pytest

from app.domain.model import Backend, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from app.domain.plan import SelectorPlan
from app.domain.pool import CHANGES_PER_SLICE
from tests.unit.pools import FRONTEND, PoolUnderTest, backend

ABC = [backend(name) for name in "abc"]
WEB, API = SelectorPlan("web", "round_robin"), SelectorPlan("api", "round_robin")


def visits(pool: PoolUnderTest, frontend: str, times: int) -> str:
    return "".join(pool.visit(frontend=frontend) for _ in range(times))


@pytest.fixture
def pool() -> PoolUnderTest:
    """Three backends, and two frontends that take turns among them."""
    one = PoolUnderTest(ABC)
    one.plan(WEB, API)
    return one


# Two frontends, one pool


def test_each_frontend_has_its_own_turns(pool: PoolUnderTest) -> None:
    assert visits(pool, "web", 4) == "abca"
    assert visits(pool, "api", 4) == "abca"
    assert visits(pool, "web", 2) == "bc"


def test_the_connections_of_all_frontends_count_against_one_limit() -> None:
    pool = PoolUnderTest([backend("a", hard_limit=2)])
    pool.plan(WEB, SelectorPlan("geo", "geo"))
    held = [pool.lease(frontend=frontend) for frontend in ("web", "geo")]
    assert pool.ask(frontend="web") == pool.ask(frontend="geo") == Unleased(NoLease.FULL)
    pool.pool.release(held[0].lease_id)
    assert pool.visit(frontend="geo") == pool.visit(frontend="web") == "a"


def test_selectors_count_the_connections_of_all_frontends() -> None:
    pool = PoolUnderTest(ABC)
    pool.plan(WEB, SelectorPlan("few", "least_connections"), SelectorPlan("near", "geo"))
    assert "".join(pool.lease(frontend="web").backend.id for _ in range(4)) == "abca"
    assert {pool.visit(frontend="few") for _ in range(10)} == {"b", "c"}
    assert {pool.visit(frontend="near") for _ in range(20)} == {"b", "c"}


def test_an_ejection_and_its_end_are_known_to_every_frontend(pool: PoolUnderTest) -> None:
    pool.fail("b")
    assert (visits(pool, "web", 4), visits(pool, "api", 4)) == ("acac", "acac")
    pool.succeed("b")
    assert set(visits(pool, "web", 3)) == set(visits(pool, "api", 3)) == set("abc")


def test_a_lease_has_a_tier_where_geography_decides_and_none_elsewhere() -> None:
    pool = PoolUnderTest(ABC)
    pool.plan(WEB, SelectorPlan("near", "geo"))
    assert (pool.lease(frontend="web").tier, pool.lease(frontend="near").tier) == (None, 0)
    bound = pool.ask(bound="a", frontend="web")
    assert isinstance(bound, Lease)
    assert (bound.tier, bound.affinity) == (None, Affinity.HIT)


def test_an_unplanned_frontend_gets_no_lease(pool: PoolUnderTest) -> None:
    assert pool.ask(frontend="unheard-of") == Unleased(NoLease.EMPTY)
    assert sum(pool.counts().values()) == 0


# Other plans


def test_a_selector_with_an_unchanged_plan_keeps_its_state(pool: PoolUnderTest) -> None:
    assert visits(pool, "web", 1) == "a"
    pool.plan(SelectorPlan("new", "geo"), SelectorPlan("web", "round_robin"))
    assert visits(pool, "web", 3) == "bca"
    assert len(pool.made) == 4, "at the start one, then web and api, then new"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (WEB, SelectorPlan("web", "weighted")),
        (SelectorPlan("web", "geo"), SelectorPlan("web", "geo", spills_at_soft_limit=True)),
    ],
)
def test_a_selector_with_a_changed_plan_is_rebuilt_over_the_same_members(
    before: SelectorPlan, after: SelectorPlan
) -> None:
    pool = PoolUnderTest([*ABC, backend("left")])
    pool.hold("left", 1)
    pool.hold("a", 2)
    pool.replace(ABC)
    pool.plan(before)
    pool.plan(after)
    assert len(pool.made) == 3
    assert {pool.lease(frontend="web").backend.id for _ in range(30)} == {"a", "b", "c"}
    assert pool.counts()["left"] == 1


def test_the_selector_of_a_removed_frontend_goes_and_its_leases_stay(pool: PoolUnderTest) -> None:
    held = pool.lease(frontend="web")
    pool.plan(API)
    assert pool.ask(frontend="web") == Unleased(NoLease.EMPTY)
    assert pool.counts()[held.backend.id] == 1
    pool.pool.release(held.lease_id)
    assert sum(pool.counts().values()) == 0


def test_plans_may_come_before_the_backends() -> None:
    pool = PoolUnderTest([])
    pool.plan(WEB)
    pool.replace(ABC)
    assert visits(pool, "web", 3) == "abc"


def test_a_backend_that_leaves_and_returns_does_so_in_every_selector(pool: PoolUnderTest) -> None:
    pool.replace(ABC[:2])
    assert (visits(pool, "web", 4), visits(pool, "api", 4)) == ("abab", "abab")
    pool.replace(ABC)
    assert set(visits(pool, "web", 3)) == set(visits(pool, "api", 3)) == set("abc")


# Replacing the set


def crowd(name: str, count: int = CHANGES_PER_SLICE, **fields: Any) -> list[Backend]:
    return [backend(f"{name}{number}", **fields) for number in range(count)]


def test_new_backends_are_added_before_old_ones_are_removed() -> None:
    pool = PoolUnderTest(crowd("old", 2 * CHANGES_PER_SLICE))
    for _ in pool.pool.replace_in_slices(crowd("new", 2 * CHANGES_PER_SLICE), pool.now):
        assert isinstance(pool.ask(), Lease)
    assert {view.backend.id[:3] for view in pool.pool.view(pool.now) if view.takes_new_clients} == {"new"}


def test_a_large_set_comes_in_and_goes_in_slices() -> None:
    pool = PoolUnderTest(crowd("old", 2 * CHANGES_PER_SLICE))
    sizes = [pool.pool.counts(pool.now)[0]]
    for _ in pool.pool.replace_in_slices(crowd("new", 2 * CHANGES_PER_SLICE), pool.now):
        sizes.append(pool.pool.counts(pool.now)[0])
    sizes.append(pool.pool.counts(pool.now)[0])
    assert [step // CHANGES_PER_SLICE for step in sizes] == [2, 3, 4, 3, 2, 2]


def test_unchanged_rows_are_not_processed_again() -> None:
    pool = PoolUnderTest(rows := crowd("same", 3 * CHANGES_PER_SLICE))
    assert list(pool.pool.replace_in_slices(rows, pool.now)) == []
    assert list(pool.pool.replace_in_slices(crowd("same", 3 * CHANGES_PER_SLICE), pool.now)) == [], (
        "equal, though not identical"
    )


def test_a_later_set_supersedes_one_that_was_not_finished() -> None:
    pool = PoolUnderTest(ABC)
    next(pool.pool.replace_in_slices(crowd("half"), pool.now))
    pool.replace(ABC)
    assert pool.counts() == dict.fromkeys("abc", 0)


def test_leases_granted_between_slices_are_kept() -> None:
    pool = PoolUnderTest(ABC)
    slices = pool.pool.replace_in_slices(crowd("new"), pool.now)
    next(slices)
    held = pool.ask(bound="a")
    assert list(slices) == []
    assert isinstance(held, Lease)
    assert pool.counts()["a"] == 1
    assert pool.ask(bound="a") == Unleased(NoLease.BINDING_BROKEN)
    pool.pool.release(held.lease_id)
    assert "a" not in pool.counts()


def test_a_row_named_twice_counts_once_and_as_it_was_named_last() -> None:
    pool = PoolUnderTest([backend("a", "JP/ap"), backend("a")])
    assert [view.backend for view in pool.pool.view(pool.now)] == [backend("a")]
    assert pool.lease(frontend=FRONTEND).tier == 0
