"""Numbers of things in messages, and that no message counts without it."""

from __future__ import annotations

import re

import pytest

from app.domain.words import counted
from tests.harness import ROOT

NOUNS = "connections|requests|bindings|leases|rows|backends|clients|endpoints|pools|frontends|versions"
BY_HAND = re.compile(rf"\{{[^{{}}\"]*\}} (more )?({NOUNS})\b")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((0, "binding"), "0 bindings"),
        ((1, "connection"), "1 connection"),
        ((2, "more row"), "2 more rows"),
        ((1234, "client", ","), "1,234 clients"),
    ],
)
def test_one_is_singular(arguments, words):
    assert counted(*arguments) == words


@pytest.mark.parametrize("folder", ["app/edge", "app/inbound", "app/outbound", "app/commands", "app/admin", "actors"])
def test_messages_count_with_it(folder):
    """A number with a plural written behind it reads wrong for 1; a limit that is not 1 may."""
    limits = ("must", "at most", "limit", "_max_rows")
    found = [
        f"{path.name}: {line.strip()}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for line in path.read_text().splitlines()
        if BY_HAND.search(line) and not any(word in line for word in limits)
    ]
    assert found == []
