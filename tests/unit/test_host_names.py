"""The address used for a name, when it is looked up again, and the effect of failures."""

from __future__ import annotations

from app.domain.host_names import MIN_SECONDS, RETRY_SECONDS, HostNames, NameState
from app.domain.model import Backend, parse_backend

PLAIN = parse_backend({"id": "plain", "wg_ip": "10.0.0.9", "port": 80})


def named(name: str, backend_id: str = "a") -> Backend:
    return parse_backend({"id": backend_id, "wg_ip": name, "port": 80})


def names_of(*backends: Backend) -> HostNames:
    names = HostNames()
    names.watch(backends)
    return names


def hosts(names: HostNames, *backends: Backend) -> list[str]:
    return [backend.host for backend in names.with_addresses(backends)]


def test_backends_with_addresses_are_left_as_they_are() -> None:
    backends = (PLAIN,)
    assert names_of(PLAIN).with_addresses(backends) is backends
    assert names_of(PLAIN).take_due(0, 10) == []


def test_a_name_is_due_at_once_and_looked_up_once_for_all_its_backends() -> None:
    one, other = named("x.example", "one"), named("x.example", "other")
    names = names_of(one, other, PLAIN)
    assert names.take_due(0, 10) == ["x.example"]
    assert names.take_due(0, 10) == [], "it is being asked"
    assert names.resolved("x.example", ["10.0.0.1"], 30, 0)
    assert hosts(names, one, other, PLAIN) == ["10.0.0.1", "10.0.0.1", "10.0.0.9"]
    assert names.take_due(29.9, 10) == []
    assert names.take_due(30, 10) == ["x.example"]


def test_no_more_are_asked_than_may_be() -> None:
    names = names_of(named("x"), named("y"), named("z"))
    first = names.take_due(0, 2)
    assert len(first) == 2
    assert names.take_due(0, 0) == []
    assert set(first + names.take_due(0, 2)) == {"x", "y", "z"}


def test_the_longest_overdue_name_comes_first() -> None:
    names = names_of(*(named(f"gone{number}") for number in range(3)))
    asked = names.take_due(0, 2)
    for name in asked:
        names.failed(name, "no name server responds", 0)
    later = names.take_due(RETRY_SECONDS, 1)
    assert not set(later) & set(asked), "names whose servers are dead do not keep the others waiting for ever"
    assert set(later + names.take_due(RETRY_SECONDS, 2)) == {"gone0", "gone1", "gone2"}


def test_an_address_is_kept_while_lookups_return_it() -> None:
    backend = named("x")
    names = names_of(backend)
    assert names.resolved("x", ["10.0.0.1", "10.0.0.2"], 30, 0)
    assert not names.resolved("x", ["10.0.0.2", "10.0.0.1"], 30, 30)
    assert hosts(names, backend) == ["10.0.0.1"]
    assert names.resolved("x", ["10.0.0.2", "10.0.0.3"], 30, 60)
    assert hosts(names, backend) == ["10.0.0.2"]


def test_the_same_address_is_the_same_backend_object() -> None:
    backend = named("x")
    names = names_of(backend)
    names.resolved("x", ["10.0.0.1"], 30, 0)
    (first,), (second,) = names.with_addresses((backend,)), names.with_addresses((backend,))
    assert first is second


def test_a_failure_keeps_the_address_and_each_reason_is_reported_once() -> None:
    backend = named("x")
    names = names_of(backend)
    assert names.counts() == {NameState.RESOLVED: 0, NameState.STALE: 0, NameState.UNRESOLVED: 1}
    assert names.failed("x", "no such name", 0)
    assert not names.failed("x", "no such name", 5)
    assert names.failed("x", "no answer", 10)
    assert hosts(names, backend) == [""]
    assert names.resolved("x", ["10.0.0.1"], 30, 15)
    assert names.failed("x", "no answer", 45)
    assert hosts(names, backend) == ["10.0.0.1"]
    assert names.counts() == {NameState.RESOLVED: 0, NameState.STALE: 1, NameState.UNRESOLVED: 0}
    assert names.take_due(45 + RETRY_SECONDS, 10) == ["x"]
    assert names.resolved("x", ["10.0.0.1"], 30, 50), "that it is found again is news"
    assert names.counts()[NameState.RESOLVED] == 1


def test_a_time_to_live_of_nothing_is_a_second() -> None:
    names = names_of(named("x"))
    names.take_due(0, 1)
    names.resolved("x", ["10.0.0.1"], 0, 0)
    assert names.take_due(MIN_SECONDS / 2, 1) == []
    assert names.take_due(MIN_SECONDS, 1) == ["x"]


def test_an_unused_name_is_forgotten_even_during_its_lookup() -> None:
    names = names_of(named("x"))
    names.take_due(0, 1)
    names.watch([])
    assert not names.resolved("x", ["10.0.0.1"], 30, 0)
    assert not names.failed("x", "too late", 0)
    assert sum(names.counts().values()) == 0


def test_rows_that_are_no_more_are_not_kept() -> None:
    names = names_of(named("x"))
    names.take_due(0, 1)
    names.resolved("x", ["10.0.0.1"], 30, 0)
    for weight in range(2, 5):
        row = parse_backend({"id": "a", "wg_ip": "x", "port": 80, "weight": weight})
        names.watch([row])
        assert [backend.host for backend in names.with_addresses((row,))] == ["10.0.0.1"]
    assert len(names._filled) == 1
