"""Plain rotation, worked by hand (the contract test holds it against a model)."""

from __future__ import annotations

from tests.unit.pools import backend
from tests.unit.selectors import SelectorUnderTest, same_rows, weighted_rows


def test_all_members_in_turn_whatever_the_weight() -> None:
    assert SelectorUnderTest("round_robin", weighted_rows(a=5, b=1, c=1)).visits(7) == "abcabca"


def test_a_full_member_is_skipped_and_rejoins_at_the_end() -> None:
    under_test = SelectorUnderTest("round_robin", [backend("a", hard_limit=1), *same_rows("bc")])
    assert [under_test.hold() for _ in range(4)] == ["a", "b", "c", "b"]
    under_test.count("a", -1)
    assert under_test.visits(4) == "cbac"


def test_an_excluded_member_keeps_its_turn() -> None:
    under_test = SelectorUnderTest("round_robin", same_rows("abc"))
    assert under_test.visit(excluded=("a", "b")) == "c"
    assert under_test.visits(4) == "abca"


def test_updates_and_new_rows_cost_no_member_its_turn() -> None:
    under_test = SelectorUnderTest("round_robin", same_rows("abc"))
    assert under_test.visit() == "a"
    under_test.count("b", 0)
    under_test.add(backend("b", weight=7))
    assert under_test.visits(3) == "bca"
