"""Selections by geography worked out by hand: the seed's score in tables, geography before load, limits, weight 0,
spill, clients and POPs without a location. In each table the first backend must win."""

from __future__ import annotations

import pytest

from app.domain.health import HealthRules
from app.domain.member import Floor, Member
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import NoLease
from app.domain.selection import score
from tests.unit.pools import ARGENTINA, BRAZIL, FRANCE, JAPAN, PoolUnderTest, backend


def member_of(row: Backend) -> Member:
    return Member(row, HealthRules(), Floor(), now=0.0)


@pytest.mark.parametrize(
    ("connections", "soft_limit", "weight", "load"),
    [
        (0, 100, 1, 0.0),
        (50, 100, 1, 0.5),
        (50, 100, 2, 0.25),
        (100, 100, 1, 1.0),
        (300, 100, 2, 1.5),
        (7, 10, 7, 0.1),
    ],
)
def test_the_load_is_connections_by_soft_limit_by_weight(
    connections: int, soft_limit: int, weight: int, load: float
) -> None:
    member = member_of(backend("a", soft_limit=soft_limit, weight=weight))
    member.connections = connections
    assert member.load == pytest.approx(load)


@pytest.mark.parametrize(("tier", "load", "expected"), [(0, 0.5, 0.5), (1, 0.25, 100.25), (2, 0, 200), (3, 1.5, 301.5)])
def test_the_score_shown_is_a_hundred_a_tier_and_the_load(tier: int, load: float, expected: float) -> None:
    assert score(tier, load) == expected


def test_soft_counts_as_hard_where_the_hard_limit_is_lower() -> None:
    member = member_of(backend("a", soft_limit=100, hard_limit=10))
    member.connections = 5
    assert member.load == 0.5


# Clients of Brazil, at a POP in sa. Each row: winner, then the others, as (place, connections, further fields).
SAO_PAULO, BUENOS_AIRES, PARIS, TOKYO = "BR/sa", "AR/sa", "FR/eu", "JP/ap"


@pytest.mark.parametrize(
    ("client", "pop_region", "winner", "others"),
    [
        # tier 0 before 1 before 2 before 3
        (BRAZIL, "eu", ("BR/sa", 0), [("AR/sa", 0), ("FR/eu", 0), ("JP/ap", 0)]),
        (BRAZIL, "eu", ("AR/sa", 0), [("FR/eu", 0), ("JP/ap", 0)]),
        (BRAZIL, "eu", ("FR/eu", 0), [("JP/ap", 0), ("US/us", 0)]),
        # geography dominates any load: soft limit 1 with 101 connections scores 101, the neighbour 100
        (BRAZIL, "sa", ("BR/sa", 101, {"soft_limit": 1}), [("AR/sa", 0)]),
        (BRAZIL, "eu", ("AR/sa", 500, {"soft_limit": 1}), [("FR/eu", 0)]),
        (JAPAN, "sa", ("BR/sa", 500, {"soft_limit": 1}), [("FR/eu", 0)]),
        # within a tier the least connections / soft_limit / weight
        (BRAZIL, "sa", ("BR/sa", 1), [("BR/sa", 2)]),
        (BRAZIL, "sa", ("BR/sa", 10, {"soft_limit": 100}), [("BR/sa", 2, {"soft_limit": 10})]),
        (BRAZIL, "sa", ("BR/sa", 5, {"weight": 4}), [("BR/sa", 2, {"weight": 1})]),
        (BRAZIL, "sa", ("BR/sa", 3, {"weight": 2, "soft_limit": 50}), [("BR/sa", 4, {"weight": 1, "soft_limit": 100})]),
        # without a place only the POP's own region counts
        (None, "eu", ("FR/eu", 9), [("BR/sa", 0), ("JP/ap", 0)]),
        (GeoInfo(None, None), "eu", ("FR/eu", 9), [("BR/sa", 0), ("JP/ap", 0)]),
        (GeoInfo("AQ", None), "eu", ("FR/eu", 9), [("BR/sa", 0), ("/", 0)]),
        # unknown is not a place: no country does not match no country, nor no region no region
        (GeoInfo("BR", None), "ap", ("BR/", 9), [("/", 0), ("/sa", 0)]),
        (GeoInfo(None, "sa"), "ap", ("/sa", 9), [("/", 0), ("BR/", 0)]),
        (None, None, ("/", 0), [("BR/sa", 1), ("FR/eu", 1)]),
        # a backend without a country can still be in the client's region
        (BRAZIL, "eu", ("/sa", 9), [("FR/eu", 0), ("/", 0)]),
        # a region of one's own making
        (GeoInfo("BR", "sa"), "moon-base", ("/moon-base", 9), [("FR/eu", 0)]),
        (FRANCE, "sa", ("FR/moon-base", 9), [("DE/eu", 0)]),
    ],
)
def test_the_nearest_wins_then_the_least_loaded(
    client: GeoInfo | None, pop_region: str | None, winner: tuple, others: list[tuple]
) -> None:
    table = [winner, *others]
    rows = [backend(f"b{i}", entry[0], **dict(*entry[2:])) for i, entry in enumerate(table)]
    pool = PoolUnderTest(reversed(rows), pop_region)
    for one, entry in zip(rows, table, strict=True):
        pool.hold(one.id, entry[1])
    assert pool.visit(client) == "b0"


def test_a_lease_says_how_far_away_it_is() -> None:
    pool = PoolUnderTest([backend("a", "BR/sa", hard_limit=1), backend("b", "AR/sa", hard_limit=1), backend("c", "/")])
    assert [(lease.backend.id, lease.tier) for lease in (pool.lease() for _ in range(4))] == [
        ("a", 0),
        ("b", 1),
        ("c", 3),
        ("c", 3),
    ]


def test_the_pops_region_is_tier_2_for_a_client_from_elsewhere() -> None:
    assert PoolUnderTest([backend("a", "BR/sa")], "sa").lease(JAPAN).tier == 2


def test_without_a_pop_region_everything_elsewhere_is_tier_3() -> None:
    assert PoolUnderTest([backend("a", "BR/sa")], None).lease(JAPAN).tier == 3


# Limits


def test_a_full_tier_hands_on_to_the_next() -> None:
    pool = PoolUnderTest([backend("near", hard_limit=2), backend("far", "FR/eu")])
    assert [pool.lease().backend.id for _ in range(4)] == ["near", "near", "far", "far"]


def test_a_released_place_is_leased_again() -> None:
    pool = PoolUnderTest([backend("near", hard_limit=1), backend("far", "FR/eu")])
    first = pool.lease()
    assert pool.lease().backend.id == "far"
    pool.pool.release(first.lease_id)
    assert pool.lease().backend.id == "near"


def test_hard_limit_0_is_unlimited_and_the_soft_limit_never_refuses() -> None:
    pool = PoolUnderTest([backend("only", hard_limit=0, soft_limit=1)])
    for _ in range(5000):
        pool.lease()
    assert pool.counts() == {"only": 5000}


def test_no_lease_is_granted_when_all_are_full() -> None:
    pool = PoolUnderTest([backend("a", hard_limit=1), backend("b", "FR/eu", hard_limit=1)])
    pool.lease()
    pool.lease()
    assert pool.ask() == Unleased(NoLease.FULL)


def test_weight_0_takes_no_new_clients_but_keeps_its_own() -> None:
    pool = PoolUnderTest([backend("leaving", weight=0), backend("far", "JP/ap")])
    assert pool.visit() == "far"
    bound = pool.ask(bound="leaving")
    assert isinstance(bound, Lease)
    assert bound.backend.id == "leaving"


def test_a_pool_with_weight_0_only_takes_no_new_clients() -> None:
    assert PoolUnderTest([backend("leaving", weight=0)]).ask() == Unleased(NoLease.DOWN)


@pytest.mark.parametrize("fields", [{"is_healthy": False}, {"is_deleted": True}, {"weight": 0}])
def test_an_unavailable_backend_is_not_selected_even_if_no_other_is_near(fields: dict[str, object]) -> None:
    pool = PoolUnderTest([backend("out", **fields), backend("far", "JP/ap")])
    assert {pool.visit() for _ in range(20)} == {"far"}


def test_a_backend_already_tried_is_skipped_for_that_selection_only() -> None:
    pool = PoolUnderTest([backend("a"), backend("b", "AR/sa"), backend("c", "JP/ap")])
    assert pool.visit(tried=("a",)) == "b"
    assert pool.visit(tried=("a", "b")) == "c"
    assert pool.ask(tried=("a", "b", "c")) == Unleased(NoLease.FULL)
    assert pool.visit() == "a"


# Spill


def test_by_default_a_near_backend_over_its_soft_limit_still_wins() -> None:
    pool = PoolUnderTest([backend("near", soft_limit=1), backend("region", "AR/sa")])
    pool.hold("near", 50)
    assert pool.visit() == "near"


@pytest.mark.parametrize(
    ("near", "region", "pop", "winner"),
    [
        (0, 0, 0, "near"),
        (9, 0, 0, "near"),
        (10, 0, 0, "region"),  # at its soft limit is not under it
        (11, 9, 0, "region"),
        (11, 11, 0, "pop"),
        (10, 10, 10, "near"),  # all over: the nearest, and never tier 3
        (99, 10, 10, "near"),
    ],
)
def test_spill_prefers_those_under_their_soft_limit_within_tiers_0_to_2(
    near: int, region: int, pop: int, winner: str
) -> None:
    rows = [backend("near", "BR/sa"), backend("region", "AR/sa"), backend("pop", "FR/eu"), backend("far", "JP/ap")]
    pool = PoolUnderTest([backend(r.id, f"{r.country}/{r.region}", soft_limit=10) for r in rows], "eu", spills=True)
    for name, connections in (("near", near), ("region", region), ("pop", pop)):
        pool.hold(name, connections)
    assert pool.visit(BRAZIL) == winner


def test_spill_goes_within_a_tier_before_it_goes_to_the_next() -> None:
    heavy, light = backend("heavy", soft_limit=10, weight=100), backend("light", soft_limit=10)
    pool = PoolUnderTest([heavy, light, backend("region", "AR/sa")], spills=True)
    pool.hold("heavy", 10)  # load 0.01, but at its soft limit
    pool.hold("light", 5)  # load 0.5
    assert pool.visit() == "light"


def test_spill_reaches_tier_3_only_when_all_nearer_ones_are_at_their_hard_limit() -> None:
    near = backend("near", soft_limit=1, hard_limit=3)
    pool = PoolUnderTest([near, backend("region", "AR/sa", soft_limit=1, hard_limit=3), backend("far", "JP/ap")])
    spilling = PoolUnderTest([v.backend for v in pool.pool.view(0)], spills=True)
    assert [spilling.lease().backend.id for _ in range(8)] == [
        "near",
        "region",
        *["near"] * 2,
        *["region"] * 2,
        "far",
        "far",
    ]


def test_a_binding_is_honoured_past_the_soft_limit() -> None:
    pool = PoolUnderTest([backend("mine", soft_limit=1), backend("other", "AR/sa")], spills=True)
    pool.hold("mine", 5)
    bound = pool.ask(bound="mine")
    assert isinstance(bound, Lease)
    assert bound.backend.id == "mine"


def test_in_spill_mode_a_hard_limit_below_the_soft_limit_is_the_soft_limit() -> None:
    pool = PoolUnderTest([backend("near", soft_limit=100, hard_limit=2), backend("region", "AR/sa")], spills=True)
    assert [pool.lease().backend.id for _ in range(3)] == ["near", "near", "region"]


def test_clients_of_every_kind_find_the_only_backend_there_is() -> None:
    pool = PoolUnderTest([backend("only", "/")], None)
    assert [pool.visit(client) for client in (BRAZIL, ARGENTINA, None, GeoInfo(None, None))] == ["only"] * 4
