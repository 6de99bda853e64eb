"""Counters and histograms: what is counted shows in a snapshot, a snapshot stays as it was, vanished series go."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.measures import RTT_BUCKETS_SECONDS, Measures


def test_nothing_counted_is_nothing_shown() -> None:
    snapshot = Measures().snapshot()
    assert (dict(snapshot.counters), dict(snapshot.histograms)) == ({}, {})


def test_counts_add_up_by_metric_and_labels() -> None:
    measures = Measures()
    measures.count("connections")
    measures.count("connections", amount=4)
    measures.count("errors", ("a", "refused"))
    measures.count("errors", ("a", "timeout"), 2)
    assert measures.snapshot().counters == {
        "connections": {(): 5},
        "errors": {("a", "refused"): 1, ("a", "timeout"): 2},
    }


def test_a_snapshot_does_not_change_afterwards() -> None:
    measures = Measures()
    measures.count("c", ("a",))
    measures.observe("h", ("a",), 0.1)
    snapshot = measures.snapshot()
    measures.count("c", ("a",))
    measures.count("c", ("b",))
    measures.observe("h", ("a",), 0.1)
    measures.keep_only("h", frozenset())
    assert snapshot.counters == {"c": {("a",): 1}}
    assert snapshot.histograms["h"]["a",].count == 1


def test_a_value_on_a_bound_belongs_to_that_bucket() -> None:
    measures = Measures()
    for value in (0.0, 0.0005, 0.00051, 5.0, 5.1, 3600.0):
        measures.observe("h", (), value)
    view = measures.snapshot().histograms["h"][()]
    cumulative = dict(view.cumulative())
    assert (cumulative[0.0005], cumulative[0.001], cumulative[2.5], cumulative[5.0]) == (2, 3, 3, 4)
    assert view.count == 6


@given(st.lists(st.floats(0, 10)))
def test_buckets_are_cumulative_whatever_is_observed(values: list[float]) -> None:
    measures = Measures()
    for value in values:
        measures.observe("h", ("a",), value)
    series = measures.snapshot().histograms.get("h", {})
    assert bool(series) == bool(values)
    for view in series.values():
        assert view.cumulative() == [(bound, sum(v <= bound for v in values)) for bound in (*RTT_BUCKETS_SECONDS, inf)]
        assert view.count == len(values)
        assert view.total == pytest.approx(sum(values))


def test_series_of_vanished_backends_go_and_the_others_stay() -> None:
    measures = Measures()
    for backend_id in "ab":
        measures.count("errors", (backend_id, "refused"))
        measures.count("errors", (backend_id, "timeout"))
        measures.observe("rtt", (backend_id,), 0.1)
        measures.count("other", (backend_id,))
    measures.keep_only("errors", frozenset({"b", "c"}))
    measures.keep_only("rtt", frozenset({"b", "c"}))
    measures.keep_only("never counted", frozenset())
    snapshot = measures.snapshot()
    assert set(snapshot.counters["errors"]) == {("b", "refused"), ("b", "timeout")}
    assert set(snapshot.histograms["rtt"]) == {("b",)}
    assert set(snapshot.counters["other"]) == {("a",), ("b",)}


def test_a_backend_that_comes_back_starts_from_nothing() -> None:
    measures = Measures()
    measures.count("c", ("a",), 7)
    measures.keep_only("c", frozenset())
    measures.count("c", ("a",))
    assert measures.snapshot().counters == {"c": {("a",): 1}}
