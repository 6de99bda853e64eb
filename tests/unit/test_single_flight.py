"""Simultaneous first connections of one client: one leads, the others wait for its result, none waits forever."""

from __future__ import annotations

from app.domain.single_flight import LEADER_TIMEOUT_SECONDS, SingleFlight


def test_the_first_connection_leads_and_the_others_wait() -> None:
    flights: SingleFlight[int] = SingleFlight()
    assert [flights.join("c", number, now=0.0) for number in range(50)] == [False] + [True] * 49
    assert flights.finish("c") == list(range(1, 50))


def test_each_client_has_its_own_selection() -> None:
    flights: SingleFlight[str] = SingleFlight()
    assert [flights.join(client, client, 0.0) for client in ("c", "d")] == [False, False]
    flights.join("c", "waits", 0.0)
    assert (flights.finish("d"), flights.finish("c")) == ([], ["waits"])


def test_after_a_selection_has_finished_the_next_connection_leads_again() -> None:
    flights: SingleFlight[str] = SingleFlight()
    flights.join("c", "first", 0.0)
    flights.finish("c")
    assert flights.join("c", "second", 0.0) is False
    assert flights.finish("c") == []


def test_finishing_without_waiters_returns_none() -> None:
    flights: SingleFlight[str] = SingleFlight()
    assert flights.finish("c") == []


def test_a_leader_that_never_reports_is_replaced_and_its_waiters_are_kept() -> None:
    flights: SingleFlight[str] = SingleFlight()
    flights.join("c", "vanished", 0.0)
    assert flights.join("c", "waits", LEADER_TIMEOUT_SECONDS - 0.01) is True
    assert flights.join("c", "leads instead", LEADER_TIMEOUT_SECONDS) is False
    assert flights.join("c", "waits too", LEADER_TIMEOUT_SECONDS + 0.5) is True
    assert flights.finish("c") == ["waits", "waits too"]


def test_a_late_report_of_the_first_leader_serves_all_and_that_of_the_second_none() -> None:
    flights: SingleFlight[str] = SingleFlight()
    flights.join("c", "slow", 0.0)
    flights.join("c", "second", LEADER_TIMEOUT_SECONDS)
    flights.join("c", "waits", LEADER_TIMEOUT_SECONDS)
    assert flights.finish("c") == ["waits"]
    assert flights.finish("c") == []


def test_after_a_crash_the_first_waiter_of_each_selection_leads() -> None:
    flights: SingleFlight[str] = SingleFlight()
    for waiter in ("lost", "first", "second"):
        flights.join("c", waiter, 0.0)
    flights.join("no waiters", "lost too", 0.0)
    assert flights.replace_leaders(now=10.0) == ["first"]
    assert flights.join("no waiters", "new", 10.0) is False
    assert flights.join("c", "third", 10.0) is True
    assert flights.finish("c") == ["second", "third"]
