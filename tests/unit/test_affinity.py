"""The binding table: a time to live that slides, checked at look-up; a sweep in slices; a capacity, oldest out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.affinity import SHARD_CLIENTS, AffinityTable, Binding

TTL = 60.0


@pytest.fixture
def table() -> AffinityTable:
    return AffinityTable(TTL, 100)


def clients(number: int) -> Iterator[str]:
    return (f"pool 10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}" for i in range(number))


def test_a_binding_is_looked_up_with_its_end_and_not_touched(table: AffinityTable) -> None:
    table.bind("c", "a", now=100.0)
    assert table.get("c", 130.0) == table.get("c", 159.9) == Binding("c", "a", 160.0)
    assert table.get("c", 160.0) is None
    assert table.get("stranger", 100.0) is None


def test_a_client_is_bound_until_its_time_is_over(table: AffinityTable) -> None:
    table.bind("c", "a", now=100.0)
    assert table.find("c", 159.9) == "a"
    assert table.find("c", 160.0) is None
    assert table.find("stranger", 100.0) is None


def test_an_expired_binding_is_absent_before_any_sweep_has_run(table: AffinityTable) -> None:
    table.bind("c", "a", now=0.0)
    assert (table.find("c", TTL), len(table)) == (None, 1)


def test_the_time_slides_with_every_touch(table: AffinityTable) -> None:
    for now in (0.0, 50.0, 100.0):
        table.bind("c", "a", now)
    assert table.find("c", 159.0) == "a"
    assert len(table) == 1


def test_looking_does_not_slide_the_time(table: AffinityTable) -> None:
    table.bind("c", "a", 0.0)
    table.find("c", 59.0)
    assert table.find("c", TTL) is None


def test_a_client_can_move(table: AffinityTable) -> None:
    table.bind("c", "a", 0.0)
    table.bind("c", "b", 1.0)
    assert (table.find("c", 2.0), len(table)) == ("b", 1)


def test_unbound_is_gone_and_unbinding_a_stranger_is_nothing(table: AffinityTable) -> None:
    table.bind("c", "a", 0.0)
    table.unbind("c")
    table.unbind("c")
    table.unbind("stranger")
    assert (table.find("c", 0.0), len(table)) == (None, 0)


# The sweep


def test_the_sweep_frees_the_expired_and_only_those(table: AffinityTable) -> None:
    table.bind("old", "a", 0.0)
    table.bind("touched", "a", 1.0)
    table.bind("young", "a", 30.0)
    table.bind("touched", "a", 31.0)
    assert table.sweep(61.0, 0) == 1
    assert [table.find(client, 61.0) for client in ("old", "touched", "young")] == [None, "a", "a"]
    assert len(table) == 2


def test_a_sweep_takes_one_shard_and_all_sweeps_together_take_everything() -> None:
    table = AffinityTable(TTL, 3 * SHARD_CLIENTS)
    for client in clients(3000):
        table.bind(client, "a", 0.0)
    assert table.shard_count == 3
    freed = [table.sweep(TTL, number) for number in range(3)]
    assert all(0 < one < 3000 for one in freed)
    assert (sum(freed), len(table)) == (3000, 0)


def test_shards_are_numbered_round_and_round() -> None:
    table = AffinityTable(TTL, 2 * SHARD_CLIENTS)
    for client in clients(100):
        table.bind(client, "a", 0.0)
    assert sum(table.sweep(TTL, number) for number in (6, 7)) == 100


# The capacity


def test_the_oldest_goes_when_the_table_is_full() -> None:
    table = AffinityTable(TTL, 3)
    for now, client in enumerate("abc"):
        table.bind(client, "x", now)
    table.bind("a", "x", 3)  # touched: b is the oldest now
    table.bind("d", "x", 4)
    assert [client for client in "abcd" if table.find(client, 5)] == ["a", "c", "d"]
    assert (len(table), table.evictions) == (3, 1)


def test_renewing_in_a_full_table_evicts_none() -> None:
    table = AffinityTable(TTL, 2)
    for client in "abab":
        table.bind(client, "x", 0.0)
    assert (len(table), table.evictions) == (2, 0)


@pytest.mark.parametrize("capacity", [0, -1])
def test_a_table_without_capacity_binds_no_client(capacity: int) -> None:
    table = AffinityTable(TTL, capacity)
    table.bind("c", "a", 0.0)
    table.restore(Binding("d", "a", 100.0))
    assert (table.find("c", 0.0), table.find("d", 0.0), len(table)) == (None, None, 0)
    assert table.sweep(0.0, 5) == 0


def test_a_table_of_one_remembers_the_last() -> None:
    table = AffinityTable(TTL, 1)
    for client in "abc":
        table.bind(client, "x", 0.0)
    assert [client for client in "abc" if table.find(client, 0.0)] == ["c"]


def test_a_large_table_keeps_to_its_capacity_and_drops_old_ones() -> None:
    capacity = 2 * SHARD_CLIENTS + 500
    table = AffinityTable(TTL, capacity)
    everyone = list(clients(3 * capacity))
    for now, client in enumerate(everyone):
        table.bind(client, "a", now * 1e-6)
        assert len(table) <= capacity
    found = [client for client in everyone if table.find(client, 1.0)]
    assert len(found) == len(table) == capacity
    assert table.evictions == 2 * capacity
    # Oldest within the new client's shard: not exact overall, but no recent binding is evicted before old ones.
    assert set(everyone[-capacity // 2 :]) <= set(found)
    assert not set(everyone[:capacity]) & set(found)


def test_a_full_table_makes_room_also_when_the_newcomers_shard_is_empty() -> None:
    table = AffinityTable(TTL, 2 * SHARD_CLIENTS)
    everyone = list(clients(8 * SHARD_CLIENTS))
    shard_of = {client: hash(client) % 2 for client in everyone}
    ones = [client for client in everyone if shard_of[client] == 0][: 2 * SHARD_CLIENTS]
    for client in ones:
        table.bind(client, "a", 0.0)
    newcomer = next(client for client in everyone if shard_of[client] == 1)
    table.bind(newcomer, "a", 1.0)
    assert (len(table), table.evictions) == (2 * SHARD_CLIENTS, 1)
    assert (table.find(newcomer, 1.0), table.find(ones[0], 1.0), table.find(ones[1], 1.0)) == ("a", None, "a")


# Copies


def test_a_copy_of_every_shard_restores_the_same_table() -> None:
    table = AffinityTable(TTL, 2 * SHARD_CLIENTS)
    for now, client in enumerate(clients(500)):
        table.bind(client, f"b{now % 3}", now * 0.01)
    copied = sorted(
        (binding for number in range(table.shard_count) for binding in table.shard_bindings(number)),
        key=lambda binding: binding.expires_at,
    )
    successor = AffinityTable(TTL, 2 * SHARD_CLIENTS)
    for binding in copied:
        successor.restore(binding)
    for now in (10.0, 62.0, 64.0):
        assert [successor.find(c, now) for c in clients(500)] == [table.find(c, now) for c in clients(500)]


def test_a_copy_is_oldest_first(table: AffinityTable) -> None:
    for now, client in enumerate(["a", "b", "c", "a"]):
        table.bind(client, "x", now)
    assert [binding.client for binding in table.shard_bindings(0)] == ["b", "c", "a"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["bind", "unbind", "sweep", "wait"]),
        st.sampled_from("abcdef"),
        st.sampled_from("xy"),
        st.floats(0, 40),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps, st.integers(1, 6))
def test_the_table_is_a_dictionary_with_an_end_date(steps: list[tuple[str, str, str, float]], capacity: int) -> None:
    table = AffinityTable(TTL, capacity)
    now, expected = 0.0, dict[str, tuple[str, float]]()
    for what, client, backend_id, seconds in steps:
        if what == "bind":
            table.bind(client, backend_id, now)
            if client not in expected and len(expected) >= capacity:
                del expected[next(iter(expected))]
            expected.pop(client, None)
            expected[client] = (backend_id, now + TTL)
        elif what == "unbind":
            table.unbind(client)
            expected.pop(client, None)
        elif what == "sweep":
            table.sweep(now, 0)
            expected = {one: held for one, held in expected.items() if now < held[1]}
        else:
            now += seconds
        assert len(table) == len(expected) <= capacity
        for one in "abcdef":
            held = expected.get(one)
            assert table.find(one, now) == (held[0] if held and now < held[1] else None)
