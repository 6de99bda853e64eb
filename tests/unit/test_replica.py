"""The replica: the effect of snapshots and events, and which lost leases become suspects."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.domain.model import parse_backend
from app.domain.replica import BURST_SECONDS, GRACE_SECONDS, BadRecord, Changes, Event, Gone, Record, Replica

NOW = 1_000_000.0


def record(
    name: str, revision: int = 1, *, is_leased: bool = False, drain_seconds: Any = None, **columns: Any
) -> Record:
    row = {"id": name, "wg_ip": "10.0.0.1", "port": 80, **columns}
    return Record(parse_backend(row), revision, is_leased, drain_seconds)


def leased(*names: str, **columns: Any) -> list[Record]:
    return [record(name, is_leased=True, **columns) for name in names]


def gone(*names: str) -> list[Event]:
    return [Gone(name) for name in names]


def suspects(replica: Replica) -> dict[str, float | None]:
    return {name: one.suspect_since for name, one in replica.records.items()}


# Snapshots


def test_a_snapshot_is_what_there_is_afterwards_and_only_differences_are_written():
    replica = Replica([record("a"), record("b"), record("c")])
    changes = replica.reconcile([record("a"), record("b", 2, weight=3), record("d", 2)], NOW)
    assert (sorted(changes.written), changes.bad, changes.removed) == (["b", "d"], {}, {"c"})
    assert sorted(replica.records) == ["a", "b", "d"]
    assert replica.reconcile([record("a"), record("b", 2, weight=3), record("d", 2)], NOW) == Changes()


def test_an_empty_snapshot_empties_nothing_at_once():
    replica = Replica([record("a"), record("b")])
    replica.reconcile([], NOW)
    assert suspects(replica) == {"a": NOW, "b": NOW}


def test_what_vanished_while_we_were_away_is_doubted_where_it_had_a_lease():
    replica = Replica([*leased("a"), record("b"), record("c"), record("d"), record("e")])
    changes = replica.reconcile([record("c"), record("d"), record("e")], NOW)
    assert changes.removed == {"b"}
    assert suspects(replica) == {"a": NOW, "c": None, "d": None, "e": None}


def test_half_of_all_vanished_is_doubted_lease_or_not():
    replica = Replica([record("a"), record("b"), record("c"), record("d")])
    replica.reconcile([record("c"), record("d")], NOW)
    assert suspects(replica) == {"a": NOW, "b": NOW, "c": None, "d": None}


def test_what_was_here_before_there_was_a_control_plane_is_doubted():
    replica = Replica([record("a", 0), record("b", 0), record("c", 0)])
    replica.reconcile([record("a"), record("b")], NOW)
    assert suspects(replica) == {"a": None, "b": None, "c": NOW}


def test_a_drained_one_that_vanished_is_not_doubted():
    replica = Replica([*leased("a", deleted=1), record("b")])
    replica.reconcile([record("b")], NOW)
    assert list(replica.records) == ["b"]


# Events


def test_one_service_that_has_died_is_removed_at_once():
    replica = Replica(leased("a", "b", "c"))
    assert replica.follow(gone("a"), NOW).removed == {"a"}
    assert sorted(replica.records) == ["b", "c"]


def test_a_service_that_dies_long_after_another_is_no_burst():
    replica = Replica(leased("a", "b", "c"))
    for number, name in enumerate("ab"):
        assert replica.follow(gone(name), NOW + number * (BURST_SECONDS + 1)).removed == {name}


@pytest.mark.parametrize("is_in_one", [True, False])
def test_a_burst_of_lost_leases_removes_no_record(is_in_one):
    replica = Replica([*leased("a", "b", "c", "d"), record("e")])
    for events in [gone(*"abcd")] if is_in_one else [gone(one) for one in "abcd"]:
        replica.follow(events, NOW)
    assert suspects(replica) == {"a": NOW, "b": NOW, "c": NOW, "d": NOW, "e": None}


def test_the_last_of_an_app_that_serves_is_doubted():
    replica = Replica([*leased("a", app="shop"), *leased(*"bcdefg", app="blog")])
    replica.follow(gone("a"), NOW)
    assert suspects(replica)["a"] == NOW
    replica.follow(gone("b"), NOW)
    assert "b" not in replica.records


def test_what_an_operator_deletes_is_gone_however_much_it_is():
    replica = Replica([record("a"), record("b"), *leased("c", deleted=1)])
    assert replica.follow(gone("a", "b", "c"), NOW).removed == {"a", "b", "c"}
    assert replica.records == {}


def test_leases_that_ended_while_we_were_away_are_doubted():
    replica = Replica(leased("a", "b", "c"))
    replica.follow(gone("a"), NOW, is_catching_up=True)
    assert suspects(replica) == {"a": NOW, "b": None, "c": None}


def test_a_suspect_that_comes_back_is_none_any_more_and_one_that_does_not_is_removed_in_the_end():
    replica = Replica(leased("a", "b"))
    replica.follow(gone("a", "b"), NOW)
    changes = replica.follow([record("a", 5, is_leased=True)], NOW + 1)
    assert changes.written["a"].suspect_since is None
    assert not replica.expire(NOW + GRACE_SECONDS - 1)
    assert replica.expire(NOW + GRACE_SECONDS).removed == {"b"}
    assert suspects(replica) == {"a": None}


def test_a_suspect_of_a_clock_that_was_set_back_does_not_stay_for_ever():
    replica = Replica([replace(leased("a")[0], suspect_since=NOW + 3600)])
    assert replica.expire(NOW).removed == {"a"}


# Bad records


def test_of_a_bad_record_the_last_good_version_stays_and_the_rest_goes_on():
    replica = Replica([record("a"), record("b")])
    bad = BadRecord("a", 7, "port: must be a number")
    changes = replica.follow([bad, record("b", 8, weight=2), BadRecord("x", 9, "is not JSON")], NOW)
    assert (set(changes.written), set(changes.bad), changes.removed) == ({"b"}, {"a", "x"}, set())
    assert (sorted(replica.records), sorted(replica.bad)) == (["a", "b"], ["a", "x"])
    assert not replica.follow([bad], NOW), "the same again"
    changes = replica.follow([record("a", 10), Gone("x")], NOW)
    assert (set(changes.written), changes.removed, replica.bad) == ({"a"}, {"x"}, {})


def test_a_bad_record_that_is_deleted_takes_its_good_version_with_it():
    replica = Replica([record("a")])
    replica.follow([BadRecord("a", 7, "is not JSON")], NOW)
    assert replica.follow([Gone("a")], NOW).removed == {"a"}
    assert (replica.records, replica.bad) == ({}, {})


def test_bad_records_that_a_snapshot_has_no_more_are_forgotten():
    replica = Replica([record("a")], [BadRecord("x", 7, "is not JSON")])
    changes = replica.reconcile([record("a")], NOW)
    assert (changes.removed, replica.bad) == ({"x"}, {})


# Deadlines


def test_a_drain_runs_from_when_it_is_heard_of_by_this_clock():
    replica = Replica([record("a")])
    drained = record("a", 2, deleted=1, drain_seconds=60.0)
    assert replica.follow([drained], NOW).written["a"].backend.drain_deadline == NOW + 60
    assert replica.reconcile([drained], NOW + 30) == Changes(), "the same again moves nothing"
    assert replica.follow([replace(drained, revision=3)], NOW + 40).written["a"].backend.drain_deadline == NOW + 100


# Whatever happens

NAMES = st.sampled_from("abcde")
EVENTS = st.one_of(
    NAMES.map(Gone),
    st.builds(BadRecord, NAMES, st.integers(1, 9), st.just("bad")),
    st.builds(
        lambda name, revision, lease: record(name, revision, is_leased=lease), NAMES, st.integers(1, 9), st.booleans()
    ),
)


BATCHES = st.lists(st.tuples(st.booleans(), st.lists(EVENTS, max_size=6)), max_size=6)
"""Events, each time whether they are a snapshot."""


@given(BATCHES, st.booleans())
@example([(False, [record("a", is_leased=True), Gone("a")]), (False, [BadRecord("a", 1, "bad"), Gone("a")])], False)
@example([(False, [record("a", is_leased=True), Gone("a")]), (False, [BadRecord("a", 1, "bad")]), (True, [])], False)
@example(
    [(False, [*(record(one, is_leased=True) for one in "ab"), Gone("a"), BadRecord("a", 1, "bad"), Gone("b")])], False
)
def test_what_is_written_is_what_the_replica_has(batches, is_catching_up):
    """Applying the changes one after the other yields the replica, even with a restart in between."""
    replica, stored, bad = Replica(), dict[str, Record](), dict[str, BadRecord]()
    for number, (is_snapshot, events) in enumerate(batches):
        if number % 3 == 2:
            replica = Replica(stored.values(), bad.values())
        if is_snapshot:
            changes = replica.reconcile([one for one in events if not isinstance(one, Gone)], NOW + number)
        else:
            changes = replica.follow(events, NOW + number, is_catching_up=is_catching_up)
        for name in changes.removed:
            stored.pop(name, None)
            bad.pop(name, None)
        stored |= changes.written
        bad = {name: one for name, one in bad.items() if name not in changes.written} | changes.bad
        assert stored == replica.records
        assert bad == replica.bad


@given(st.lists(EVENTS, max_size=20))
def test_present_records_serve_and_absent_ones_are_suspects_at_most(events):
    replica, there = Replica(), dict[str, Record]()
    for event in events:
        replica.follow([event], NOW)
        if isinstance(event, Record):
            there[event.id] = event
        elif isinstance(event, Gone):
            there.pop(event.id, None)
    known = {name: one for name, one in replica.records.items() if one.suspect_since is None}
    assert known == there
    replica.expire(NOW + GRACE_SECONDS)
    assert replica.records == there
