"""The hash of the client: stable, by weight, and a server that joins or leaves moves only the clients that it must."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.selection.ip_hash import points_of
from tests.unit.pools import backend
from tests.unit.selectors import SelectorUnderTest, client, same_rows, weighted_rows

CLIENTS = [client(number) for number in range(2000)]
TEN = [f"10.0.0.{number}:80" for number in range(10)]
sets_of_names = st.lists(st.text(min_size=1, max_size=8), min_size=2, max_size=12, unique=True)
few = settings(max_examples=25, deadline=None)


def places(under_test: SelectorUnderTest, clients: list = CLIENTS, excluded: tuple[str, ...] = ()) -> list[str | None]:
    """Return where each client goes."""
    return [under_test.visit(one, excluded) for one in clients]


def hashing(names: list[str]) -> SelectorUnderTest:
    return SelectorUnderTest("ip_hash", same_rows(names))


def shares(names: list[str], probes: int = 16) -> list[float]:
    """Return the exact share of each of equal servers, all clients there could be taken together.

    The closest of k places is farther than d with probability (1 - sum of min(arc, d))^k, and each arc that is longer
    than d is as likely as any other to be where it lies.
    """
    points = sorted((point / 2**32, name) for name in names for point in points_of(name, 1))
    arcs = sorted(((point - points[index - 1][0]) % 1.0, name) for index, (point, name) in enumerate(points))
    share, reached, farther, distance = Counter[str](), 0.0, 1.0, 0.0
    for index, (arc, name) in enumerate(arcs):
        longer = len(arcs) - index
        still_farther = max(0.0, farther - longer * (arc - distance))
        reached += (farther**probes - still_farther**probes) / longer
        share[name] += reached
        farther, distance = still_farther, arc
    return [share[name] for name in names]


def test_a_client_goes_where_it_went_before_the_restart() -> None:
    """Pinned: a change of the hash would move every client at the next upgrade."""
    assert places(hashing(["a", "b", "c"]), CLIENTS[:12]) == list("bbbcaccbcabb")


def test_the_order_in_which_servers_were_added_and_what_there_was_before_do_not_matter() -> None:
    other = hashing(["x", *reversed(TEN)])
    places(other, CLIENTS[:10])
    other.remove("x")
    assert places(other) == places(hashing(TEN))


@few
@given(sets_of_names)
def test_a_server_that_goes_moves_its_own_clients_only_and_gets_them_back(names: list[str]) -> None:
    under_test, clients = hashing(names), CLIENTS[:300]
    before = places(under_test, clients)
    gone = names[0]
    for off, on in (
        (under_test.turn_off, under_test.turn_on),
        (lambda name: under_test.count(name, 1), lambda name: under_test.count(name, -1)),
        (under_test.remove, lambda name: under_test.add(backend(name, hard_limit=1))),
    ):
        under_test.add(backend(gone, hard_limit=1))
        off(gone)
        meanwhile = places(under_test, clients)
        assert gone not in meanwhile
        assert [place for place in before if place != gone] == [
            place for place, old in zip(meanwhile, before, strict=True) if old != gone
        ]
        on(gone)
        assert places(under_test, clients) == before
    assert places(under_test, clients, (gone,)) == meanwhile


@few
@given(sets_of_names)
def test_a_server_that_comes_moves_clients_to_itself_only(names: list[str]) -> None:
    under_test, clients = hashing(names[1:]), CLIENTS[:300]
    before = places(under_test, clients)
    under_test.add(backend(names[0]))
    after = places(under_test, clients)
    assert {new for new, old in zip(after, before, strict=True) if new != old} <= {names[0]}


@few
@given(sets_of_names, st.integers(1, 20), st.integers(1, 20))
def test_a_new_weight_moves_clients_of_that_server_only_one_way(names: list[str], old: int, new: int) -> None:
    under_test, clients, turned = hashing(names), CLIENTS[:300], names[0]
    under_test.add(backend(turned, weight=old))
    before = places(under_test, clients)
    under_test.add(backend(turned, weight=new))
    moved = {pair for pair in zip(before, places(under_test, clients), strict=True) if pair[0] != pair[1]}
    assert all(pair[new > old] == turned for pair in moved)


def test_removing_one_of_ten_moves_at_most_12_percent_of_the_clients() -> None:
    clients = [client(number) for number in range(20_000)]
    before = Counter(places(hashing(TEN), clients))
    assert max(before.values()) <= 0.12 * len(clients)
    assert [count / len(clients) for name in TEN if (count := before[name])] == pytest.approx(shares(TEN), abs=0.01)


def test_this_holds_for_any_names_of_servers() -> None:
    of_many = [shares([f"set {number} server {server}" for server in range(10)]) for number in range(500)]
    assert max(map(max, of_many)) <= 0.12
    assert min(map(min, of_many)) >= 0.05
    assert sum(map(min, of_many)) / len(of_many) == pytest.approx(0.089, abs=0.002)
    assert sum(map(max, of_many)) / len(of_many) == pytest.approx(0.106, abs=0.002)


def test_clients_split_by_weight() -> None:
    seen = Counter(places(SelectorUnderTest("ip_hash", weighted_rows(a=100, b=50, c=50)), CLIENTS))
    assert [seen[name] / len(CLIENTS) for name in "abc"] == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


def test_weights_above_256_count_as_256() -> None:
    assert points_of("a", 1000) == points_of("a", 256)
    assert len(set(points_of("a", 256))) == 2048


def test_a_lighter_servers_points_are_among_those_of_the_heavier_it_becomes() -> None:
    assert points_of("a", 5)[: len(points_of("a", 3))] == points_of("a", 3)


@few
@given(st.lists(st.tuples(st.sampled_from(TEN), st.sampled_from(["add", "remove", "off", "on"])), max_size=30))
def test_the_circle_holds_exactly_the_points_of_placed_members(changes: list[tuple[str, str]]) -> None:
    under_test = hashing(TEN[:3])
    for name, change in changes:
        if change == "add":
            under_test.add(backend(name, weight=1 + len(under_test.members) % 2 * 9))
        elif name in under_test.members:
            {"remove": under_test.remove, "off": under_test.turn_off, "on": under_test.turn_on}[change](name)
        under_test.visit(CLIENTS[len(name)])
        placed = under_test.selector._placed  # type: ignore[attr-defined]
        assert placed >= {member for member in under_test.members.values() if member.takes_new_clients}
        points = sorted(p for m in placed for p in points_of(m.backend.id, m.backend.weight))
        assert under_test.selector._circle == points  # type: ignore[attr-defined]
