"""Smooth weighted round robin: the sequence of nginx, even in every window, despite full, tried and new members."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.pools import backend
from tests.unit.selectors import SelectorUnderTest, same_rows, weighted_rows

weights = st.lists(st.integers(1, 9), min_size=1, max_size=6)


class Nginx:
    """The rule as in nginx: every selection scans all peers (ngx_http_upstream_get_peer)."""

    def __init__(self, peers: dict[str, int]) -> None:
        self.weights = peers
        self.current = dict.fromkeys(peers, 0)

    def select(self, out: frozenset[str] = frozenset()) -> str | None:
        best, total = None, 0
        for name, weight in self.weights.items():
            if name in out:
                continue
            self.current[name] += weight
            total += weight
            if best is None or self.current[name] > self.current[best]:
                best = name
        if best is not None:
            self.current[best] -= total
        return best


def named(numbers: list[int]) -> dict[str, int]:
    return {f"b{number}": weight for number, weight in enumerate(numbers)}


@pytest.mark.parametrize(
    ("peers", "sequence"),
    [
        ({"A": 5, "B": 1, "C": 1}, "AABACAA"),
        ({"A": 1, "B": 1, "C": 1}, "ABC"),
        ({"A": 4, "B": 2, "C": 1}, "ABACABA"),
        ({"A": 2, "B": 1}, "ABA"),
        ({"A": 1, "B": 3}, "BABB"),
        ({"A": 7}, "A"),
        ({"A": 0, "B": 1}, "B"),
    ],
)
def test_sequences_known_from_nginx(peers: dict[str, int], sequence: str) -> None:
    assert SelectorUnderTest("weighted", weighted_rows(**peers)).visits(2 * len(sequence)) == 2 * sequence


@given(weights)
def test_the_sequence_is_nginxs(numbers: list[int]) -> None:
    under_test, nginx = SelectorUnderTest("weighted", weighted_rows(**named(numbers))), Nginx(named(numbers))
    for _ in range(3 * sum(numbers)):
        assert under_test.visit() == nginx.select()


@given(weights, st.lists(st.frozensets(st.sampled_from([f"b{number}" for number in range(6)])), max_size=60))
def test_the_sequence_is_nginxs_with_peers_tried_already(numbers: list[int], tried: list[frozenset[str]]) -> None:
    under_test, nginx = SelectorUnderTest("weighted", weighted_rows(**named(numbers))), Nginx(named(numbers))
    for excluded in tried:
        assert under_test.visit(excluded=excluded) == nginx.select(excluded)


@given(weights.filter(lambda numbers: len(numbers) > 1), st.data())
def test_every_window_as_long_as_the_weights_together_is_even(numbers: list[int], data: st.DataObject) -> None:
    """Also after members came and went: at most one more or less than the weight says."""
    under_test = SelectorUnderTest("weighted", weighted_rows(**named(numbers)))
    for name in data.draw(st.lists(st.sampled_from(sorted(under_test.members)), max_size=4)):
        under_test.visits(data.draw(st.integers(0, 20)))
        under_test.turn_off(name)
        under_test.visits(data.draw(st.integers(0, 20)))
        under_test.turn_on(name)
    total = sum(numbers)
    seen = [under_test.visit() for _ in range(3 * total)]
    for start in range(total, 2 * total):
        window = Counter(seen[start : start + total])
        assert all(abs(window[name] - weight) <= 1 for name, weight in named(numbers).items()), (start, window)


@given(weights, st.integers(1, 9), st.integers(0, 30))
def test_a_newcomer_has_its_share_from_the_start(numbers: list[int], weight: int, visits: int) -> None:
    under_test = SelectorUnderTest("weighted", weighted_rows(**named(numbers)))
    for _ in range(20):
        under_test.add(backend("passing", weight=9))
        under_test.visits(visits)
        under_test.remove("passing")  # whose current goes with it: the mean moves off, one way, each time
    under_test.add(backend("new", weight=weight))
    total = sum(numbers) + weight
    assert Counter(under_test.visit() for _ in range(total))["new"] == pytest.approx(weight, abs=1)


@pytest.mark.parametrize("peers", [{"a": 1, "b": 1}, {"a": 5, "b": 1, "c": 1}, {"a": 2, "b": 3, "c": 7}])
def test_one_that_is_full_after_each_of_its_turns_has_its_share_only(peers: dict[str, int]) -> None:
    rows = [backend(name, weight=weight, hard_limit=int(name == "a")) for name, weight in peers.items()]
    under_test = SelectorUnderTest("weighted", [*rows, backend("gone", weight=4)])
    under_test.visits(2)
    under_test.remove("gone")  # whose current goes with it
    total = sum(peers.values())
    assert Counter(under_test.visits(100 * total)) == {
        name: pytest.approx(100 * weight, abs=2) for name, weight in peers.items()
    }


def test_one_that_comes_back_to_few_does_not_wait_for_the_many_there_were() -> None:
    many = same_rows(f"b{number}" for number in range(1000))
    under_test = SelectorUnderTest("weighted", [backend("a"), *many])
    assert under_test.visit() == "a"  # and is not due for another thousand selections
    under_test.turn_off("a")
    for row in many[1:]:
        under_test.remove(row.id)
    under_test.turn_on("a")
    assert "a" in [under_test.visit() for _ in range(5)]


def test_a_new_member_does_not_wait_for_all_rounds_that_were_due() -> None:
    under_test = SelectorUnderTest("weighted", same_rows(f"b{number}" for number in range(100)))
    for number in range(90):
        assert under_test.visit() == f"b{number}"
    for number in range(90):
        under_test.remove(f"b{number}")
    under_test.add(backend("new"))
    assert "new" in [under_test.visit() for _ in range(11)]


def test_one_that_was_due_among_many_does_not_take_all_when_it_comes_back_to_few() -> None:
    many = same_rows(f"b{number}" for number in range(1000))
    under_test = SelectorUnderTest("weighted", many)
    for _ in range(900):
        under_test.visit()
    under_test.turn_off("b999")  # passed over nine hundred times
    for row in many[2:999]:
        under_test.remove(row.id)
    under_test.turn_on("b999")
    assert Counter(under_test.visit() for _ in range(30))["b999"] <= 13


def test_a_new_weight_counts_from_the_next_selection() -> None:
    under_test = SelectorUnderTest("weighted", weighted_rows(a=3, b=1))
    under_test.visits(101)
    under_test.add(backend("a", weight=1))
    under_test.add(backend("b", weight=4))
    assert Counter(under_test.visits(500)) == {"a": pytest.approx(100, abs=2), "b": pytest.approx(400, abs=2)}


def test_the_books_balance() -> None:
    """No state remains of members that left, nor of unused weights."""
    under_test = SelectorUnderTest("weighted", weighted_rows(a=3, b=1, c=1))
    under_test.visits(20)
    for name in "abc":
        under_test.remove(name)
    books = {name: value for name, value in vars(under_test.selector).items() if name not in ("_orders", "_selections")}
    assert not any(books.values())
