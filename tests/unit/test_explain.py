"""`explain`: every backend with tier, score and reason, the ones that are in first, best first."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from app.domain.explain import TIER_MEANING, explain
from app.domain.model import GeoInfo
from tests.unit.pools import BRAZIL, FRANCE, PoolUnderTest, backend

ROWS = [
    backend("jp", "JP/ap"),
    backend("weightless", "BR/sa", weight=0),
    backend("fr", "FR/eu"),
    backend("sick", "BR/sa", is_healthy=False),
    backend("ar", "AR/sa"),
    backend("drained", "BR/sa", is_deleted=True),
    backend("br", "BR/sa"),
]


def test_best_first_then_those_that_are_out() -> None:
    verdicts = explain(ROWS, BRAZIL, "eu")
    assert [(v.backend.id, v.tier, v.score, v.is_candidate) for v in verdicts] == [
        ("br", 0, 0, True),
        ("ar", 1, 100, True),
        ("fr", 2, 200, True),
        ("jp", 3, 300, True),
        ("drained", 0, 0, False),
        ("sick", 0, 0, False),
        ("weightless", 0, 0, False),
    ]


def test_each_verdict_says_why() -> None:
    why = {v.backend.id: v.why for v in explain(ROWS, BRAZIL, "eu")}
    assert why == {
        "br": "in: same country as the client",
        "ar": "in: same region as the client",
        "fr": "in: same region as this POP",
        "jp": "in: elsewhere",
        "drained": "out: drained (deleted)",
        "sick": "out: unhealthy in the database",
        "weightless": "out: weight 0: bound clients only",
    }
    assert len(TIER_MEANING) == 4


def test_a_backup_is_out_while_another_is_a_candidate() -> None:
    backup = backend("reserve", "BR/sa", is_backup=True)
    why = {v.backend.id: v.why for v in explain([backend("jp", "JP/ap"), backup], BRAZIL, "eu")}
    assert why == {"jp": "in: elsewhere", "reserve": "out: backup: serves while no other is a candidate"}
    (verdict, drained) = explain([backend("drained", is_deleted=True), backup], BRAZIL, "eu")
    assert (verdict.backend.id, verdict.why) == ("reserve", "in: same country as the client")
    assert not drained.is_candidate


def test_without_a_location_only_the_pops_region_counts() -> None:
    assert [(v.backend.id, v.tier) for v in explain(ROWS, None, "eu") if v.is_candidate] == [
        ("fr", 2),
        ("ar", 3),
        ("br", 3),
        ("jp", 3),
    ]


def test_among_equals_the_heavier_is_likelier_and_named_first() -> None:
    rows = [backend("a", weight=1), backend("b", weight=3), backend("c", weight=1)]
    assert [v.backend.id for v in explain(rows, BRAZIL, "sa")] == ["b", "a", "c"]


def test_no_backends_to_explain() -> None:
    assert explain([], FRANCE, None) == []


places = st.sampled_from(["BR/sa", "AR/sa", "FR/eu", "/eu", "JP/", "/"])


@given(
    st.lists(st.tuples(places, st.integers(0, 3), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([None, BRAZIL, FRANCE, GeoInfo("JP", "ap")]),
    st.sampled_from([None, "sa", "eu"]),
    st.randoms(use_true_random=False),
)
def test_an_idle_pool_selects_the_best_backend_of_explain(
    rows: list[tuple[str, int, bool]], client: GeoInfo | None, pop: str | None, shuffle: random.Random
) -> None:
    backends = [
        backend(f"b{i}", place, weight=weight, is_healthy=healthy) for i, (place, weight, healthy) in enumerate(rows)
    ]
    verdicts = explain(backends, client, pop)
    shuffle.shuffle(backends)
    pool = PoolUnderTest(backends, pop)
    if not verdicts[0].is_candidate:
        assert not hasattr(pool.ask(client), "backend")
        return
    best = {v.backend.id for v in verdicts if v.is_candidate and v.tier == verdicts[0].tier}
    assert pool.visit(client) in best
