"""The geo selector breaks ties by weight: 10,000 successive connections split like the weights, within 5 %, whatever is
selected, tried or bound in between. The random source is seeded, so a failure repeats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from app.domain.model import Backend, GeoInfo
from tests.unit.pools import ARGENTINA, BRAZIL, FRANCE, JAPAN, PoolUnderTest, backend

CONNECTIONS = 10_000
HEAVY, LIGHT = backend("heavy", weight=3), backend("light", weight=1)


def split(pool: PoolUnderTest, client: GeoInfo | None = BRAZIL, between: Callable[[], object] = bool) -> Counter[str]:
    """Connect and leave 10,000 times, with something else before each time."""
    seen: Counter[str] = Counter()
    for _ in range(CONNECTIONS):
        between()
        seen[pool.visit(client)] += 1
    return seen


def assert_split_by_weight(seen: Counter[str], backends: list[Backend]) -> None:
    total = sum(one.weight for one in backends)
    fair = {one.id: CONNECTIONS * one.weight / total for one in backends}
    assert dict(seen) == {name: pytest.approx(share, rel=0.05) for name, share in fair.items()}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_three_to_one(seed: int) -> None:
    assert_split_by_weight(split(PoolUnderTest([HEAVY, LIGHT], seed=seed)), [HEAVY, LIGHT])


def test_equal_weights_split_equally() -> None:
    rows = [backend(name, weight=7) for name in "abcd"]
    assert_split_by_weight(split(PoolUnderTest(rows)), rows)


def test_many_weights() -> None:
    rows = [backend(f"w{weight}", weight=weight) for weight in (2, 3, 5)]
    assert_split_by_weight(split(PoolUnderTest(rows, seed=5)), rows)


@pytest.mark.parametrize("client", [ARGENTINA, JAPAN, FRANCE, None])
def test_the_split_holds_in_every_tier(client: GeoInfo | None) -> None:
    assert_split_by_weight(split(PoolUnderTest([HEAVY, LIGHT], "sa"), client), [HEAVY, LIGHT])
    assert_split_by_weight(split(PoolUnderTest([HEAVY, LIGHT], None), client), [HEAVY, LIGHT])


def test_the_split_of_one_country_holds_among_selections_in_its_region() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])
    assert_split_by_weight(split(pool, BRAZIL, between=lambda: pool.visit(ARGENTINA)), [HEAVY, LIGHT])


def test_the_split_of_a_region_holds_among_many_selections_in_one_of_its_countries() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])
    busy = lambda: [pool.visit(BRAZIL) for _ in range(4)]  # noqa: E731
    assert_split_by_weight(split(pool, ARGENTINA, between=busy), [HEAVY, LIGHT])


def test_the_split_of_the_whole_pool_holds_among_selections_in_its_parts() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT], None)
    parts = lambda: (pool.visit(BRAZIL), pool.visit(ARGENTINA))  # noqa: E731
    assert_split_by_weight(split(pool, None, between=parts), [HEAVY, LIGHT])


@pytest.mark.parametrize("tried", [("heavy",), ("light",), ("other",), ("heavy", "light")])
def test_the_split_holds_while_others_connect_with_a_backend_excluded(tried: tuple[str, ...]) -> None:
    rows = [HEAVY, LIGHT, backend("other", weight=2)]
    pool = PoolUnderTest(rows)
    assert_split_by_weight(split(pool, between=lambda: pool.visit(tried=tried)), rows)


def test_those_left_split_by_their_weights_when_one_is_excluded() -> None:
    rows = [backend("tried", weight=9), HEAVY, LIGHT]
    pool = PoolUnderTest(rows)
    seen = Counter(pool.visit(tried=("tried",)) for _ in range(CONNECTIONS))
    assert_split_by_weight(seen, [HEAVY, LIGHT])


def test_the_split_holds_while_bound_clients_come_and_go() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])

    def bound_client() -> None:
        lease = pool.ask(bound="light")
        pool.pool.release(lease.lease_id)

    assert_split_by_weight(split(pool, between=bound_client), [HEAVY, LIGHT])


def test_the_split_holds_while_the_set_is_loaded_again_and_again() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])
    assert_split_by_weight(split(pool, between=lambda: pool.replace([HEAVY, LIGHT])), [HEAVY, LIGHT])


def test_a_new_weight_counts_at_once() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])
    for _ in range(1000):
        pool.visit()
    turned = [backend("heavy", weight=1), backend("light", weight=4)]
    pool.replace(turned)
    assert_split_by_weight(split(pool), turned)


def test_the_split_holds_in_spill_mode_over_the_soft_limit() -> None:
    rows = [backend("heavy", weight=3, soft_limit=1), backend("light", weight=1, soft_limit=1)]
    pool = PoolUnderTest(rows, spills=True)
    pool.hold("heavy", 3)
    pool.hold("light", 1)
    assert_split_by_weight(split(pool), rows)


def test_held_connections_settle_in_proportion_to_weight() -> None:
    pool = PoolUnderTest([HEAVY, LIGHT])
    for _ in range(4000):
        pool.lease()
    assert pool.counts() == {"heavy": pytest.approx(3000, abs=2), "light": pytest.approx(1000, abs=2)}
