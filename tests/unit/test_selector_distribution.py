"""The distribution tables of docs/explanation/algorithms.md match what the selectors do."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from app.domain.selection import ALGORITHMS
from tests.unit.selectors import SelectorUnderTest, client, weighted_rows
from tests.unit.test_selector_ip_hash import shares

DOCUMENT = Path(__file__).resolve().parent.parent.parent / "docs/explanation/algorithms.md"
CONNECTIONS = 10_000
WEIGHTS = {"A": 5, "B": 3, "C": 2}


def rows(first_cell: str) -> list[list[str]]:
    """Return the document's table rows whose first cell is this, without that cell."""
    tables = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    cells = [line.strip("| ").replace("`", "").split(" | ") for line in tables]
    return [others for first, *others in cells if first == first_cell]


def split(algorithm: str, *, is_held: bool, without: str = "") -> str:
    """Return the percentages that A, B and C get of 10,000 clients' connections."""
    under_test = SelectorUnderTest(algorithm, weighted_rows(**WEIGHTS))
    if without:
        under_test.turn_off(without)
    connect = under_test.hold if is_held else under_test.visit
    seen = Counter(connect(client(number)) for number in range(CONNECTIONS))
    return " : ".join(f"{100 * seen[name] / CONNECTIONS:.1f}" for name in WEIGHTS)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_split_of_each_algorithm_is_as_documented(algorithm: str) -> None:
    assert rows(algorithm)[1:] == [
        [
            split(algorithm, is_held=False),
            split(algorithm, is_held=True),
            split(algorithm, is_held=False, without="A"),
        ]
    ]


@pytest.mark.parametrize("count", [3, 10, 100])
def test_the_evenness_of_ip_hash_is_as_documented(count: int) -> None:
    of_many = [shares([f"set {number} server {server}" for server in range(count)]) for number in range(200)]
    smallest, largest = sorted(min(one) * count for one in of_many), sorted(max(one) * count for one in of_many)
    of_sets = (smallest[0], smallest[100], largest[100], largest[-1])
    assert rows(f"{count} servers") == [[f"{100 * share:.0f} %" for share in of_sets]]
