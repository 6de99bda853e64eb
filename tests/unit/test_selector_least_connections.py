"""Least connections by weight, and turns by weight among equals."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pools import backend
from tests.unit.selectors import SelectorUnderTest, same_rows, weighted_rows

weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def rows_of(numbers: list[int]) -> list:
    return [backend(f"b{number}", weight=weight) for number, weight in enumerate(numbers)]


def test_the_one_with_the_least_connections() -> None:
    under_test = SelectorUnderTest("least_connections", same_rows("abc"))
    for name, connections in {"a": 3, "b": 1, "c": 2}.items():
        under_test.count(name, connections)
    assert [under_test.hold() for _ in range(3)] == ["b", "c", "b"]


def test_connections_count_by_weight() -> None:
    under_test = SelectorUnderTest("least_connections", weighted_rows(a=4, b=1))
    under_test.count("a", 5)
    under_test.count("b", 2)
    assert [under_test.hold() for _ in range(3)] == ["a", "a", "a"]


def test_equals_take_turns() -> None:
    assert SelectorUnderTest("least_connections", same_rows("abc")).visits(6) == "abcabc"


def test_idle_servers_take_turns_by_weight() -> None:
    assert Counter(SelectorUnderTest("least_connections", weighted_rows(a=2, b=1)).visits(300)) == {"a": 200, "b": 100}


@given(weights)
def test_visits_one_after_the_other_split_by_weight(numbers: list[int]) -> None:
    under_test = SelectorUnderTest("least_connections", rows_of(numbers))
    rounds = 20
    seen = Counter(under_test.visit() for _ in range(rounds * sum(numbers)))
    for number, weight in enumerate(numbers):
        assert seen[f"b{number}"] == pytest.approx(rounds * weight, abs=1 + weight)


@given(weights, st.integers(1, 100))
def test_held_connections_stay_in_proportion_to_weight(numbers: list[int], connections: int) -> None:
    under_test = SelectorUnderTest("least_connections", rows_of(numbers))
    for _ in range(connections):
        under_test.hold()
    loads = [(member.connections, member.backend.weight) for member in under_test.members.values()]
    # No member got a connection while another had fewer by weight.
    assert all((more - 1) / heavy <= less / light for more, heavy in loads for less, light in loads if more)


def test_a_newcomer_and_one_that_was_busy_win_no_more_than_their_share() -> None:
    under_test = SelectorUnderTest("least_connections", same_rows("ab"))
    under_test.count("b", 1)
    assert set(under_test.visits(1000)) == {"a"}
    under_test.count("b", -1)
    under_test.add(backend("c"))
    seen = Counter(under_test.visits(30))
    assert all(9 <= count <= 11 for count in seen.values())


def test_an_excluded_member_keeps_its_turn() -> None:
    under_test = SelectorUnderTest("least_connections", same_rows("abc"))
    assert under_test.visit(excluded=("a", "b")) == "c"
    assert under_test.visits(3) == "abc"


def test_a_row_that_changes_all_the_time_wins_no_more_than_its_share() -> None:
    under_test = SelectorUnderTest("least_connections", same_rows("ab"))
    seen = []
    for number in range(20):
        under_test.add(backend("a", soft_limit=1 + number))
        seen.append(under_test.visit())
    assert Counter(seen) == {"a": 10, "b": 10}
