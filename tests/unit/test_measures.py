"""Counters and histograms: what is counted shows in a snapshot, a snapshot stays as it was, vanished series go."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.measures import RTT_BUCKETS_SECONDS, Histogram, HistogramView, Measures


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


def test_some_counters_are_read_alone_and_stay_as_they_were_read() -> None:
    measures = Measures()
    measures.count("errors", ("a",))
    measures.count("connections")
    found = measures.read(("errors", "never"))
    measures.count("errors", ("a",))
    assert found == {"errors": {("a",): 1}, "never": {}}


def test_a_snapshot_does_not_change_afterwards() -> None:
    measures = Measures()
    measures.count("c", ("a",))
    measures.observe("h", ("a",), 0.1)
    snapshot = measures.snapshot()
    measures.count("c", ("a",))
    measures.count("c", ("b",))
    measures.observe("h", ("a",), 0.1)
    measures.keep_only("h", slice(2), frozenset())
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


seconds = st.lists(st.floats(0, 10))


def observed(values: list[float]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


@given(seconds, seconds)
def test_histograms_added_are_as_if_all_had_been_observed_in_one(some: list[float], others: list[float]) -> None:
    together = observed(some)
    together.add(observed(others).view())
    assert together.view().counts == observed(some + others).view().counts
    assert together.view().total == pytest.approx(sum(some + others))


def test_a_view_of_a_histogram_does_not_change_afterwards() -> None:
    histogram = observed([0.1])
    view = histogram.view()
    histogram.observe(0.2)
    histogram.add(observed([0.3, 0.4]).view())
    assert (view.count, view.total, histogram.view().count) == (1, 0.1, 4)


def test_histograms_with_other_buckets_are_not_added() -> None:
    with pytest.raises(ValueError, match="zip"):
        Histogram().add(HistogramView((1, 2), 3.0))


def test_observations_made_elsewhere_are_added_series_by_series() -> None:
    measures = Measures()
    measures.add("h", ("a",), observed([0.1, 7.0]).view())
    measures.observe("h", ("a",), 0.2)
    measures.add("h", ("b",), observed([]).view())
    views = measures.snapshot().histograms["h"]
    assert views["a",] == observed([0.1, 7.0, 0.2]).view()
    assert views["b",].count == 0


def test_series_of_vanished_backends_go_and_the_others_stay() -> None:
    measures = Measures()
    for pool in ("one", "two"):
        for backend_id in "ab":
            measures.count("errors", (pool, backend_id, "refused"))
            measures.count("errors", (pool, backend_id, "timeout"))
            measures.observe("rtt", (pool, backend_id), 0.1)
            measures.count("other", (pool, backend_id))
    remaining = frozenset({("one", "b"), ("two", "a"), ("two", "c")})
    measures.keep_only("errors", slice(2), remaining)
    measures.keep_only("rtt", slice(2), remaining)
    measures.keep_only("never counted", slice(2), frozenset())
    snapshot = measures.snapshot()
    assert set(snapshot.counters["errors"]) == {
        ("one", "b", "refused"), ("one", "b", "timeout"), ("two", "a", "refused"), ("two", "a", "timeout"),
    }  # fmt: skip
    assert set(snapshot.histograms["rtt"]) == {("one", "b"), ("two", "a")}
    assert len(snapshot.counters["other"]) == 4


def test_a_backend_that_comes_back_starts_from_nothing() -> None:
    measures = Measures()
    measures.count("c", ("p", "a"), 7)
    measures.keep_only("c", slice(2), frozenset())
    measures.count("c", ("p", "a"))
    assert measures.snapshot().counters == {"c": {("p", "a"): 1}}
