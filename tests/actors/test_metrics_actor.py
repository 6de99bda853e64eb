"""The metrics actor by its messages: what it counts, what a snapshot shows, what it forgets."""

from __future__ import annotations

import pytest

from actors.messages import BackendConnected, ConnectionClosed, Count, ForgetBackends, TakeSnapshot, TrafficMoved
from actors.metrics import MetricsActor
from actors.runtime import Address, Crash, InvariantBrokenError, ask, tell
from app.domain import metric_names as names
from app.domain.measures import Measures, Snapshot


@pytest.fixture
def metrics() -> Address:
    address = Address("metrics")
    address.publish(MetricsActor.start(Measures()))
    return address


def snapshot(metrics: Address) -> Snapshot:
    return ask(metrics, TakeSnapshot(), timeout_s=5)


def test_counts_add_up_by_label_values(metrics):
    for reason in ("max_connections", "client_rate", "max_connections"):
        tell(metrics, Count(names.CONNECTIONS_REFUSED, (reason,)))
    assert snapshot(metrics).counters[names.CONNECTIONS_REFUSED] == {("max_connections",): 2, ("client_rate",): 1}


def test_the_traffic_of_the_process_is_added_to_the_totals(metrics):
    tell(metrics, TrafficMoved(accepted=2, bytes_sent=300, bytes_received=40))
    tell(metrics, TrafficMoved(accepted=1, bytes_sent=5, bytes_received=6))
    counters = snapshot(metrics).counters
    assert counters[names.CONNECTIONS] == {(): 3}
    assert counters[names.BYTES_SENT] == {(): 305}
    assert counters[names.BYTES_RECEIVED] == {(): 46}


def test_a_backend_that_answered_is_counted_and_timed_and_its_lease_told_by_affinity(metrics):
    for affinity, seconds in (("new", 0.002), ("hit", 0.004), ("hit", 9.0)):
        tell(metrics, BackendConnected("a", affinity, seconds))
    seen = snapshot(metrics)
    assert seen.counters[names.LEASES] == {("new",): 1, ("hit",): 2}
    assert seen.counters[names.BACKEND_CONNECTIONS] == {("a",): 3}
    rtt = seen.histograms[names.BACKEND_RTT][("a",)]
    assert (rtt.count, rtt.total) == (3, pytest.approx(9.006))
    assert dict(rtt.cumulative())[0.0025] == 1
    assert dict(rtt.cumulative())[5.0] == 2


def test_connections_are_counted_by_how_they_ended(metrics):
    for state in ("--", "--", "CD"):
        tell(metrics, ConnectionClosed(state))
    assert snapshot(metrics).counters[names.CONNECTIONS_ENDED] == {("--",): 2, ("CD",): 1}


def test_the_series_of_vanished_backends_go_and_those_of_the_others_stay(metrics):
    for name in ("a", "b"):
        tell(metrics, BackendConnected(name, "new", 0.001))
        tell(metrics, Count(names.BACKEND_ERRORS, (name, "econnrefused")))
    tell(metrics, Count(names.CONNECTIONS_REFUSED, ("client_rate",)))
    tell(metrics, ForgetBackends(frozenset({"b"})))
    seen = snapshot(metrics)
    assert set(seen.counters[names.BACKEND_CONNECTIONS]) == {("b",)}
    assert set(seen.counters[names.BACKEND_ERRORS]) == {("b", "econnrefused")}
    assert set(seen.histograms[names.BACKEND_RTT]) == {("b",)}
    assert seen.counters[names.LEASES] == {("new",): 2}
    assert seen.counters[names.CONNECTIONS_REFUSED] == {("client_rate",): 1}


def test_a_dial_that_ends_after_its_backend_vanished_does_not_bring_the_series_back(metrics):
    tell(metrics, ForgetBackends(frozenset({"b"})))
    for name in ("a", "b"):
        tell(metrics, BackendConnected(name, "new", 0.001))
        tell(metrics, Count(names.BACKEND_ERRORS, (name, "econnrefused")))
    seen = snapshot(metrics)
    assert set(seen.counters[names.BACKEND_CONNECTIONS]) == {("b",)}
    assert set(seen.counters[names.BACKEND_ERRORS]) == {("b", "econnrefused")}
    assert set(seen.histograms[names.BACKEND_RTT]) == {("b",)}
    assert seen.counters[names.LEASES] == {("new",): 2}


def test_a_backend_that_comes_back_is_counted_again(metrics):
    for remaining in ("b", "ab"):
        tell(metrics, ForgetBackends(frozenset(remaining)))
        tell(metrics, BackendConnected("a", "new", 0.001))
    assert snapshot(metrics).counters[names.BACKEND_CONNECTIONS] == {("a",): 1}


def test_a_snapshot_is_a_copy(metrics):
    tell(metrics, ConnectionClosed("--"))
    before = snapshot(metrics)
    tell(metrics, ConnectionClosed("--"))
    assert snapshot(metrics).counters[names.CONNECTIONS_ENDED] == {("--",): 2}
    assert before.counters[names.CONNECTIONS_ENDED] == {("--",): 1}


def test_what_was_counted_outlives_a_crash_of_the_actor():
    measures, metrics = Measures(), Address("metrics")
    metrics.publish(MetricsActor.start(measures))
    tell(metrics, ConnectionClosed("--"))
    with pytest.raises(InvariantBrokenError):
        ask(metrics, Crash(), timeout_s=5)
    metrics.publish(MetricsActor.start(measures))
    tell(metrics, ConnectionClosed("--"))
    assert snapshot(metrics).counters[names.CONNECTIONS_ENDED] == {("--",): 2}


def test_a_count_that_cannot_be_counted_does_not_end_the_counting(metrics):
    tell(metrics, Count(names.CONNECTIONS_ENDED, ["not hashable"]))
    tell(metrics, ConnectionClosed("--"))
    assert snapshot(metrics).counters[names.CONNECTIONS_ENDED] == {("--",): 1}
