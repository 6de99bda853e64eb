"""The metrics actor by its messages: what it counts, what a snapshot shows, what it forgets."""

from __future__ import annotations

from typing import Any

import pytest

from actors.messages import BackendConnected, ConnectionClosed, Count, Forget, ReadCounters, TakeSnapshot, TrafficMoved
from actors.metrics import MetricsActor
from actors.runtime import Address, Crash, InvariantBrokenError, ask, tell
from app.domain import metric_names as names
from app.domain.measures import Measures, Snapshot
from app.inbound.http.request_tally import RequestTally


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


def test_some_counters_are_read_without_the_others(metrics):
    tell(metrics, Count(names.CONNECTIONS_REFUSED, ("client_rate",)))
    moved(metrics, accepted={"web": 2})
    read = ask(metrics, ReadCounters((names.CONNECTIONS, names.REQUESTS)), timeout_s=5)
    assert read == {names.CONNECTIONS: {("web",): 2}, names.REQUESTS: {}}


def moved(metrics: Address, **parts: Any) -> None:
    tell(metrics, TrafficMoved(**{"accepted": {}, "bytes_moved": {}, "requests": {}, **parts}))


def test_the_traffic_of_the_process_is_added_to_the_totals(metrics):
    moved(metrics, accepted={"web": 2, "api": 7}, bytes_moved={("p", "a"): (300, 40), ("p", "b"): (1, 0)})
    moved(metrics, accepted={"web": 1}, bytes_moved={("p", "a"): (5, 6), ("q", "a"): (10, 20)})
    counters = snapshot(metrics).counters
    assert counters[names.CONNECTIONS] == {("web",): 3, ("api",): 7}
    assert counters[names.BYTES_SENT] == {(): 316}
    assert counters[names.BYTES_RECEIVED] == {(): 66}
    assert counters[names.BACKEND_BYTES_SENT] == {("p", "a"): 305, ("p", "b"): 1, ("q", "a"): 10}
    assert counters[names.BACKEND_BYTES_RECEIVED] == {("p", "a"): 46, ("p", "b"): 0, ("q", "a"): 20}


def test_requests_are_counted_by_method_and_timed_over_all_methods(metrics):
    tally = RequestTally()
    for method, code, took in (("GET", "200", 0.002), ("GET", "200", 0.2), ("POST", "200", 0.02), ("GET", "502", 9.0)):
        tally.served(("p", "a", "web", code, method), took)
    for _ in range(2):
        moved(metrics, requests=tally.view())
    seen = snapshot(metrics)
    assert seen.counters[names.REQUESTS] == {
        ("p", "a", "web", "200", "GET"): 4,
        ("p", "a", "web", "200", "POST"): 2,
        ("p", "a", "web", "502", "GET"): 2,
    }
    times = seen.histograms[names.REQUEST_SECONDS]
    assert {labels: view.count for labels, view in times.items()} == {
        ("p", "a", "web", "200"): 6,
        ("p", "a", "web", "502"): 2,
    }
    assert times["p", "a", "web", "200"].total == pytest.approx(2 * 0.222)
    assert dict(times["p", "a", "web", "502"].cumulative())[5.0] == 0


def test_what_vanished_backends_moved_counts_in_the_totals_of_the_process_alone(metrics):
    tell(metrics, Forget(frozenset({("p", "b"), ("p", "")}), frozenset({"web"})))
    tally = RequestTally()
    for backend_id in ("a", "b", ""):
        tally.served(("p", backend_id, "web", "200", "GET"), 0.1)
    moved(metrics, bytes_moved={("p", "a"): (1, 2), ("p", "b"): (10, 20)}, requests=tally.view())
    seen = snapshot(metrics)
    assert (seen.counters[names.BYTES_SENT], seen.counters[names.BYTES_RECEIVED]) == ({(): 11}, {(): 22})
    assert seen.counters[names.BACKEND_BYTES_SENT] == {("p", "b"): 10}
    assert seen.counters[names.BACKEND_BYTES_RECEIVED] == {("p", "b"): 20}
    assert {labels[1] for labels in seen.counters[names.REQUESTS]} == {"b", ""}
    assert {labels[1] for labels in seen.histograms[names.REQUEST_SECONDS]} == {"b", ""}


def test_a_connected_backend_is_counted_and_timed_and_its_lease_counted_by_affinity(metrics):
    for affinity, seconds in (("new", 0.002), ("hit", 0.004), ("hit", 9.0)):
        tell(metrics, BackendConnected("p", "a", affinity, seconds))
    seen = snapshot(metrics)
    assert seen.counters[names.LEASES] == {("new",): 1, ("hit",): 2}
    assert seen.counters[names.BACKEND_CONNECTIONS] == {("p", "a"): 3}
    rtt = seen.histograms[names.BACKEND_RTT]["p", "a"]
    assert (rtt.count, rtt.total) == (3, pytest.approx(9.006))
    assert dict(rtt.cumulative())[0.0025] == 1
    assert dict(rtt.cumulative())[5.0] == 2


def test_connections_are_counted_by_how_they_ended(metrics):
    for state in ("--", "--", "CD"):
        tell(metrics, ConnectionClosed(state))
    assert snapshot(metrics).counters[names.CONNECTIONS_ENDED] == {("--",): 2, ("CD",): 1}


def live(metrics: Address) -> None:
    """Let backends a and b, each in two pools, be dialled and change."""
    for pool in ("p", "q"):
        for name in ("a", "b"):
            tell(metrics, BackendConnected(pool, name, "new", 0.001))
            tell(metrics, Count(names.BACKEND_ERRORS, (pool, name, "econnrefused")))
            tell(metrics, Count(names.HEALTH_CHANGES, (pool, name, "down")))
            tell(metrics, Count(names.PROBES, (pool, name, "ok")))


REMAINING = frozenset({("p", "b"), ("q", "a")})


def assert_only_the_remaining_have_series(metrics: Address) -> None:
    seen = snapshot(metrics)
    assert set(seen.counters[names.BACKEND_CONNECTIONS]) == REMAINING
    assert set(seen.counters[names.BACKEND_ERRORS]) == {("p", "b", "econnrefused"), ("q", "a", "econnrefused")}
    assert set(seen.counters[names.HEALTH_CHANGES]) == {("p", "b", "down"), ("q", "a", "down")}
    assert set(seen.counters[names.PROBES]) == {("p", "b", "ok"), ("q", "a", "ok")}
    assert set(seen.histograms[names.BACKEND_RTT]) == REMAINING
    assert seen.counters[names.LEASES] == {("new",): 4}


def test_the_series_of_vanished_backends_go_and_those_of_the_others_stay(metrics):
    live(metrics)
    tell(metrics, Count(names.CONNECTIONS_REFUSED, ("client_rate",)))
    tell(metrics, Count(names.FAIL_OPENS, ("p",)))
    tell(metrics, Forget(REMAINING, frozenset({"web"})))
    assert_only_the_remaining_have_series(metrics)
    assert snapshot(metrics).counters[names.CONNECTIONS_REFUSED] == {("client_rate",): 1}
    assert snapshot(metrics).counters[names.FAIL_OPENS] == {("p",): 1}


def test_a_dial_that_ends_after_its_backend_vanished_does_not_bring_the_series_back(metrics):
    tell(metrics, Forget(REMAINING, frozenset({"web"})))
    live(metrics)
    assert_only_the_remaining_have_series(metrics)


def test_a_backend_that_comes_back_is_counted_again(metrics):
    for remaining in ("b", "ab"):
        tell(metrics, Forget(frozenset(("p", name) for name in remaining), frozenset({"web"})))
        tell(metrics, BackendConnected("p", "a", "new", 0.001))
    assert snapshot(metrics).counters[names.BACKEND_CONNECTIONS] == {("p", "a"): 1}


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
