"""The lazy heaps stay small: through any leases, releases and reloads they hold a few entries per member, and none of
members that left."""

from __future__ import annotations

import random

import pytest

from app.domain.health import HealthRules
from app.domain.member import Floor, Member
from app.domain.selection.geo import GeoSelector
from app.domain.selection.ranking import Ranking
from tests.unit.pools import ARGENTINA, BRAZIL, PoolUnderTest, backend
from tests.unit.selectors import same_rows

OPERATIONS = 100_000


def heap_sizes(pool: PoolUnderTest) -> list[tuple[int, int]]:
    """Return (entries, members) of every group."""
    selector = pool.made[-1]
    assert isinstance(selector, GeoSelector)
    groups = [selector._whole_pool, *selector._countries.values(), *selector._regions.values()]
    return [(len(group.heap), group.size) for group in groups]


def assert_bounded(pool: PoolUnderTest) -> None:
    for entries, members in heap_sizes(pool):
        assert entries <= 65 + 4 * members


def test_heaps_stay_bounded_over_a_hundred_thousand_leases_and_releases() -> None:
    pool = PoolUnderTest([backend(f"b{number}", hard_limit=3) for number in range(5)])
    chance = random.Random(7)
    held: list[int] = []
    for operation in range(OPERATIONS):
        if held and chance.random() < 0.5:
            pool.pool.release(held.pop(chance.randrange(len(held))))
        elif len(held) < 15:
            held.append(pool.lease(chance.choice([BRAZIL, ARGENTINA, None])).lease_id)
        if operation % 100 == 0:
            assert_bounded(pool)
    assert_bounded(pool)


def test_heaps_of_groups_without_selections_stay_bounded() -> None:
    pool = PoolUnderTest([backend("a"), backend("b", "AR/sa")])
    for _ in range(20_000):
        pool.visit(BRAZIL)  # pushes into sa and into the whole pool, which no one looks at
    assert_bounded(pool)


def test_heaps_stay_bounded_while_the_set_is_replaced_over_and_over() -> None:
    pool = PoolUnderTest([])
    for round_number in range(3000):
        pool.replace([backend(f"b{number}", weight=1 + round_number % 2) for number in range(10)])
    assert_bounded(pool)
    assert [members for _entries, members in heap_sizes(pool)] == [10, 10, 10]


def test_heaps_stay_bounded_while_a_full_one_is_asked_for_in_vain() -> None:
    pool = PoolUnderTest([backend("a", hard_limit=1)])
    for _ in range(5000):
        pool.ask(tried=("a",))
    assert_bounded(pool)


def test_groups_release_a_backend_that_left() -> None:
    pool = PoolUnderTest([backend("stays"), backend("gone")])
    pool.replace([backend("stays")])
    for _ in range(200):
        pool.visit()
    (selector,) = pool.made
    assert isinstance(selector, GeoSelector)
    assert {entry[-1].member.backend.id for entry in selector._whole_pool.heap} == {"stays"}


@pytest.fixture
def ranking() -> Ranking[tuple[int]]:
    return Ranking()


@pytest.fixture
def members() -> list[Member]:
    return [Member(row, HealthRules(), Floor(), now=0.0) for row in same_rows("abc")]


def test_a_ranking_stays_bounded_while_its_members_move_and_come_and_go(ranking, members) -> None:
    for number in range(10_000):
        ranking.place(members[number % 3], (number,))
        if number % 7 == 0:
            ranking.drop(members[number % 2])
        assert len(ranking._heap) <= 65 + 4 * 3


def test_a_ranking_gives_the_lowest_and_among_equals_the_one_placed_first(ranking, members) -> None:
    a, b, c = members
    for member, rank in ((a, 2), (b, 1), (c, 1), (a, 0), (a, 5)):
        ranking.place(member, (rank,))
    order = []
    while (first := ranking.first()) is not None:
        order.append(first)
        ranking.drop(first[1])
    assert order == [((1,), b), ((1,), c), ((5,), a)]
    assert not ranking


def test_a_ranking_passes_over_the_excluded_and_keeps_their_places(ranking, members) -> None:
    for rank, member in enumerate(members):
        ranking.place(member, (rank,))
    assert ranking.first({"a", "b"}) == ((2,), members[2])
    assert ranking.first({"a", "b", "c"}) is None
    assert ranking.first() == ((0,), members[0])
