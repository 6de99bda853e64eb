"""Per-client limits: concurrent and new connections, recounts after a crash, and sweeps."""

from __future__ import annotations

import itertools
from collections import Counter
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.limits import ClientLimits, LimitRules
from app.domain.outcome import Refusal


class LiveFrontend:
    """The limits, and the connections that count against them."""

    def __init__(self, max_connections: int, connections_per_second: float) -> None:
        self.limits = ClientLimits(LimitRules(max_connections, connections_per_second))
        self._next = count(1)
        self._open: dict[str, list[int]] = {}

    def admit(self, client: str, now: float) -> Refusal | None:
        """Open one more connection of a client."""
        connection = next(self._next)
        refusal = self.limits.admit(client, connection, now)
        if refusal is None:
            self._open.setdefault(client, []).append(connection)
        return refusal

    def admitted(self, times: int, now: float = 0.0, client: str = "c") -> int:
        """Try to connect so often; returns how often it went well."""
        return [self.admit(client, now) for _ in range(times)].count(None)

    def leave(self, client: str) -> None:
        """Close one of the client's connections, or one that was never counted if there is none."""
        connections = self._open.get(client)
        self.limits.leave(client, connections.pop() if connections else 0)

    def remembered(self) -> int:
        return len(self.limits._clients)


def test_without_limits_everything_is_admitted_and_nothing_remembered() -> None:
    live = LiveFrontend(0, 0)
    assert not LimitRules(0, 0).are_enabled
    assert live.admitted(1000) == 1000
    live.leave("c")
    assert live.remembered() == 0


@pytest.mark.parametrize("rules", [LimitRules(1, 0), LimitRules(0, 0.1), LimitRules(1, 1)])
def test_either_limit_is_enough_to_have_any(rules: LimitRules) -> None:
    assert rules.are_enabled


# At once


def test_connections_are_limited_per_client() -> None:
    live = LiveFrontend(2, 0)
    assert [live.admit("c", 0.0) for _ in range(3)] == [None, None, Refusal.CLIENT_CONNECTIONS]
    live.leave("c")
    assert live.admitted(5) == 1


def test_each_client_has_its_own_limit() -> None:
    live = LiveFrontend(1, 0)
    assert [live.admit(client, 0.0) for client in "aab"] == [None, Refusal.CLIENT_CONNECTIONS, None]


def test_a_refused_connection_does_not_count() -> None:
    live = LiveFrontend(1, 0)
    live.admitted(10)
    live.leave("c")
    assert live.admitted(1) == 1


def test_leaving_more_often_than_one_came_gives_nothing() -> None:
    live = LiveFrontend(1, 0)
    for _ in range(5):
        live.leave("c")
    live.admitted(1)
    live.leave("c")
    live.leave("c")
    assert live.admitted(5) == 1


def test_without_a_rate_a_client_is_forgotten_when_it_has_left() -> None:
    live = LiveFrontend(5, 0)
    live.admitted(2)
    live.leave("c")
    assert live.remembered() == 1
    live.leave("c")
    assert live.remembered() == 0


# A second


def test_a_burst_of_one_second_then_the_rate() -> None:
    live = LiveFrontend(0, 10)
    assert live.admitted(20, now=0.0) == 10
    assert live.admitted(20, now=0.1) == 1
    assert live.admitted(20, now=0.35) == 2
    assert live.admit("c", 0.35) is Refusal.CLIENT_RATE


def test_a_bucket_fills_no_higher_than_its_burst() -> None:
    live = LiveFrontend(0, 10)
    live.admitted(10)
    assert live.admitted(100, now=3600.0) == 10


def test_a_rate_below_one_a_second_still_admits_one() -> None:
    live = LiveFrontend(0, 0.1)
    assert [live.admit("c", now) for now in (0.0, 9.9, 10.1, 15.0)] == [
        None,
        Refusal.CLIENT_RATE,
        None,
        Refusal.CLIENT_RATE,
    ]


def test_being_refused_costs_no_token() -> None:
    live = LiveFrontend(0, 1)
    live.admitted(1)
    for tenth in range(1, 10):
        assert live.admit("c", tenth / 10) is Refusal.CLIENT_RATE
    assert live.admit("c", 1.01) is None


def test_leaving_gives_no_token_back() -> None:
    live = LiveFrontend(0, 1)
    live.admitted(1)
    live.leave("c")
    assert live.admit("c", 0.0) is Refusal.CLIENT_RATE


def test_a_connection_over_the_count_takes_no_token() -> None:
    live = LiveFrontend(1, 2)
    assert live.admit("c", 0.0) is None
    for _ in range(10):
        assert live.admit("c", 0.0) is Refusal.CLIENT_CONNECTIONS
    live.leave("c")
    assert live.admit("c", 0.0) is None


@given(st.floats(0.1, 50), st.lists(st.tuples(st.sampled_from("ab"), st.floats(0, 2)), max_size=80), st.integers(0, 5))
def test_no_window_of_time_admits_more_than_burst_and_rate_allow(
    rate: float, arrivals: list[tuple[str, float]], at_most: int
) -> None:
    live = LiveFrontend(0, rate)
    now, seen = 0.0, Counter[str]()
    for client, pause in arrivals:
        now += pause
        seen[client] += live.admit(client, now) is None
        live.leave(client)
        live.limits.sweep(now, at_most)
        assert seen[client] <= max(1.0, rate) + rate * now + 1e-6


# After a crash


def test_a_recount_starts_over_from_the_connections_open_now() -> None:
    live = LiveFrontend(3, 0)
    live.admitted(3, client="lost")
    live.admitted(3, client="kept")
    live.limits.recount([("kept", 1001), ("kept", 1002), ("stranger", 1003)])
    assert live.admitted(10, client="lost") == 3
    assert live.admitted(10, client="kept") == 1


def test_a_recount_leaves_the_buckets_as_they_are() -> None:
    live = LiveFrontend(0, 5)
    live.admitted(5)
    live.limits.recount([])
    assert live.admitted(1) == 0


# The sweep


def test_the_sweep_forgets_clients_without_connections_and_with_a_full_bucket() -> None:
    live = LiveFrontend(0, 10)
    for client in ("gone", "open"):
        live.admit(client, 0.0)
    live.leave("gone")
    live.limits.sweep(0.5, 10)
    assert live.remembered() == 2
    live.limits.sweep(1.0, 10)
    assert live.remembered() == 1
    assert live.admitted(100, now=1.0, client="gone") == 10


def test_the_sweep_works_in_slices() -> None:
    live = LiveFrontend(0, 10)
    for number in range(100):
        live.admit(str(number), 0.0)
        live.leave(str(number))
    sizes = [live.remembered()]
    while sizes[-1]:
        live.limits.sweep(100.0, 30)
        sizes.append(live.remembered())
    assert all(0 < before - after <= 30 for before, after in itertools.pairwise(sizes))


def test_the_table_grows_no_faster_than_it_is_swept() -> None:
    live = LiveFrontend(0, 10)
    for number in range(10_000):
        client, now = str(number), number / 1000
        live.admit(client, now)
        live.leave(client)
    assert live.remembered() < 4_000, "each is forgettable after a second, in which a thousand come"


@pytest.mark.parametrize("rate", [0, 10])
def test_the_sweep_forgets_clients_that_a_recount_left_without_connections(rate: int) -> None:
    live = LiveFrontend(5, rate)
    live.admitted(2)
    live.limits.recount([])
    live.limits.sweep(1000.0, 10)
    assert live.remembered() == 0


# Other rules


def test_a_lower_limit_refuses_new_connections_and_closes_none() -> None:
    live = LiveFrontend(3, 0)
    live.admitted(3)
    live.limits.set_rules(LimitRules(max_connections=2))
    assert live.admit("c", 0.0) is Refusal.CLIENT_CONNECTIONS
    live.leave("c")
    assert live.admit("c", 0.0) is Refusal.CLIENT_CONNECTIONS
    live.leave("c")
    assert live.admitted(5) == 1


def test_a_higher_limit_counts_open_connections() -> None:
    live = LiveFrontend(1, 0)
    live.admitted(1)
    live.limits.set_rules(LimitRules(max_connections=3))
    assert live.admitted(5) == 2


def test_limits_disabled_and_enabled_again_still_count_earlier_connections() -> None:
    live = LiveFrontend(2, 0)
    live.admitted(2)
    live.limits.set_rules(LimitRules())
    assert live.admit("c", 0.0) is None
    live.limits.set_rules(LimitRules(max_connections=2))
    assert live.admit("c", 0.0) is Refusal.CLIENT_CONNECTIONS


def test_a_rate_that_changes_takes_effect_at_once_and_fills_no_bucket_above_its_own_burst() -> None:
    live = LiveFrontend(0, 10)
    live.admitted(1)
    live.limits.set_rules(LimitRules(connections_per_second=2))
    assert live.admitted(20) == 2
    live.limits.set_rules(LimitRules(connections_per_second=10))
    assert live.admitted(20, now=0.5) == 5


def test_without_a_rate_limit_departed_clients_are_forgotten() -> None:
    live = LiveFrontend(0, 10)
    live.admitted(1)
    live.leave("c")
    live.limits.set_rules(LimitRules(max_connections=5))
    live.limits.sweep(0.0, 10)
    assert live.remembered() == 0


# Messages that come twice


def test_a_connection_asked_about_again_counts_once_and_costs_one_token() -> None:
    limits = ClientLimits(LimitRules(2, 2))
    assert [limits.admit("c", connection, 0.0) for connection in (1, 1, 1, 2, 2)] == [None] * 5
    assert limits.admit("c", 3, 0.0) is Refusal.CLIENT_CONNECTIONS


def test_leaving_twice_counts_once_and_a_refused_connection_uncounts_none() -> None:
    limits = ClientLimits(LimitRules(2, 0))
    for connection in (1, 2, 3):
        limits.admit("c", connection, 0.0)
    limits.leave("c", 3)
    assert limits.admit("c", 4, 0.0) is Refusal.CLIENT_CONNECTIONS
    limits.leave("c", 1)
    limits.leave("c", 1)
    assert [limits.admit("c", connection, 0.0) for connection in (5, 6)] == [None, Refusal.CLIENT_CONNECTIONS]
