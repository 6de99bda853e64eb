"""The file of bindings: round trip, age, junk, changed clocks, two concurrent writers."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import gevent
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.bindings import BindingsActor
from actors.runtime import Address
from app.domain.affinity import SHARD_CLIENTS, AffinityTable, Binding
from app.domain.single_flight import SingleFlight
from app.edge.binding_snapshots import BindingSnapshots
from app.outbound.binding_file import FORMAT, BindingFile

TTL = 600.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bindings.jsonl"


def bindings(*seconds_left: float) -> list[Binding]:
    now = time.monotonic()
    return [Binding(f"pool 10.0.0.{number}", "a", now + left) for number, left in enumerate(seconds_left)]


def write(path: Path, *shards: list[Binding]) -> None:
    writer = BindingFile(path).rewrite()
    for shard in shards:
        writer.add(shard)
    writer.commit()


def write_lines(path: Path, *lines: Any) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def clients(path: Path, ttl_seconds: float = TTL) -> list[str]:
    return [binding.client for binding in BindingFile(path).read(ttl_seconds).bindings]


# There and back


def test_bindings_survive_a_round_trip(path: Path) -> None:
    kept = bindings(100, 200, 300)
    write(path, kept[:2], [], kept[2:])
    found = BindingFile(path).read(TTL).bindings
    assert [(one.client, one.backend_id) for one in found] == [(one.client, one.backend_id) for one in kept]
    assert [one.expires_at for one in found] == pytest.approx([one.expires_at for one in kept], abs=0.05)


def test_bindings_come_back_in_the_order_of_their_expiry(path: Path) -> None:
    one, two, three, four = bindings(300, 100, 400, 200)
    write(path, [one, two], [three, four])
    assert clients(path) == [two.client, four.client, one.client, three.client]


def test_a_new_file_replaces_the_old_one_and_leaves_nothing_beside_it(path: Path) -> None:
    write(path, bindings(100, 200))
    write(path, bindings(100))
    assert len(clients(path)) == 1
    assert list(path.parent.iterdir()) == [path]


def test_the_old_file_remains_until_the_new_one_is_complete(path: Path) -> None:
    write(path, bindings(100))
    writer = BindingFile(path).rewrite()
    writer.add(bindings(100, 200, 300))
    assert len(clients(path)) == 1
    writer.commit()
    assert len(clients(path)) == 3


def test_a_table_that_was_empty_comes_back_empty(path: Path) -> None:
    write(path)
    assert clients(path) == []


def test_a_missing_file_means_no_bindings(path: Path) -> None:
    assert clients(path) == []


@given(
    st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
)
def test_any_name_survives(tmp_path_factory: pytest.TempPathFactory, client: str, backend_id: str) -> None:
    path = tmp_path_factory.mktemp("names") / "bindings.jsonl"
    write(path, [Binding(client, backend_id, time.monotonic() + 60)])
    (found,) = BindingFile(path).read(TTL).bindings
    assert (found.client, found.backend_id) == (client, backend_id)


# Age and clocks


def test_expired_bindings_stay_behind(path: Path) -> None:
    gone, stays = bindings(-1, 100)
    write(path, [gone, stays])
    assert clients(path) == [stays.client]


def test_a_file_older_than_the_time_to_live_is_too_old(path: Path) -> None:
    now = time.time()
    head = {"format": FORMAT, "saved_at": now - TTL - 1}
    write_lines(path, head, ["pool 10.0.0.1", "a", now + 100])
    assert clients(path) == []


def test_a_file_from_a_minute_ago_is_good(path: Path) -> None:
    now = time.time()
    write_lines(path, {"format": FORMAT, "saved_at": now - 60}, ["c", "a", now + 540], ["d", "a", now - 1])
    (found,) = BindingFile(path).read(TTL).bindings
    assert found.client == "c"
    assert found.expires_at - time.monotonic() == pytest.approx(540, abs=1)


def test_a_clock_that_was_set_back_makes_no_binding_live_longer(path: Path) -> None:
    saved_at = time.time() + 3600
    write_lines(path, {"format": FORMAT, "saved_at": saved_at}, ["c", "a", saved_at + TTL], ["d", "a", saved_at + 1])
    assert all(one.expires_at <= time.monotonic() + TTL for one in BindingFile(path).read(TTL).bindings)


def test_a_clock_that_was_set_ahead_ends_bindings_early_and_breaks_nothing(path: Path) -> None:
    saved_at = time.time() - 3600
    write_lines(path, {"format": FORMAT, "saved_at": saved_at}, ["c", "a", saved_at + TTL])
    assert clients(path) == []


def test_a_shorter_time_to_live_than_at_the_writing_holds(path: Path) -> None:
    write(path, bindings(30, 500))
    assert all(one.expires_at <= time.monotonic() + 60 for one in BindingFile(path).read(60).bindings)


def test_a_file_of_another_format_is_left_alone(path: Path) -> None:
    write_lines(path, {"format": FORMAT + 1, "saved_at": time.time()}, {"what": "ever"})
    assert clients(path) == []


def test_what_is_left_out_is_said_with_its_cause(path: Path) -> None:
    def left_out() -> str:
        return BindingFile(path).read(TTL).left_out

    now = time.time()
    assert left_out() == f"{path} does not exist yet"
    write(path, bindings(100))
    assert left_out() == ""
    write(path, bindings(100, -1, -2))
    assert left_out() == "2 have expired"
    ahead = now + 86_400
    write_lines(path, {"format": FORMAT, "saved_at": ahead}, ["c", "a", ahead + TTL], ["d", "a", ahead + 1])
    why = r"the file is of a time 86[34]\d\d s ahead of the clock, 2 would live longer than the TTL of 600 s"
    assert re.fullmatch(why, left_out())
    write_lines(path, {"format": FORMAT, "saved_at": now - 3600}, ["c", "a", now])
    assert left_out() == f"{path} was written 3600 s ago, the TTL is 600 s"
    write_lines(path, {"format": FORMAT + 1, "saved_at": now}, {"what": "ever"})
    assert left_out() == f"{path} has format 2, this version reads 1"


# Junk


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n",
        b"not json\n",
        b"[1, 2]\n",
        b'{"format": "one", "saved_at": 0}\n',
        b'{"format": 1}\n',
        b"\x00" * 4096,
        b"\xff\xfe\n",
        b"SQLite format 3\x00",
    ],
)
def test_a_file_that_is_not_a_snapshot_is_refused(path: Path, junk: bytes) -> None:
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"bindings\.jsonl: is not a snapshot of bindings"):
        BindingFile(path).read(TTL)


def test_the_fault_of_a_file_is_named_with_its_path(path: Path) -> None:
    path.touch()
    with pytest.raises(ValueError, match=r"bindings\.jsonl: is not a snapshot of bindings: it is empty"):
        BindingFile(path).read(TTL)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(OSError, match=r"bindings\.jsonl: is not a regular file"):
        BindingFile(path).read(TTL)


@pytest.mark.parametrize(
    "line",
    [
        b'["c", "a"]',
        b'["c", 5, 1.0]',
        b'["c", "a", "soon"]',
        b'["c", "a", 1',
        b"",
        b'["\xff", "a", 1.0]',
        b'{"client": "c"}',
    ],
)
def test_a_snapshot_with_a_broken_line_is_named(path: Path, line: bytes) -> None:
    write(path, bindings(100))
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match="is not a snapshot of bindings"):
        BindingFile(path).read(TTL)


def test_a_snapshot_cut_short_is_named(path: Path) -> None:
    write(path, bindings(100, 200))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is not a snapshot of bindings"):
        BindingFile(path).read(TTL)


@given(st.binary(max_size=200))
def test_no_junk_is_taken_for_bindings(tmp_path_factory: pytest.TempPathFactory, junk: bytes) -> None:
    path = tmp_path_factory.mktemp("junk") / "bindings.jsonl"
    path.write_bytes(junk)
    with pytest.raises(ValueError, match="is not a snapshot of bindings"):
        BindingFile(path).read(TTL)


def test_a_path_that_cannot_be_written_is_an_oserror(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        BindingFile(tmp_path / "no" / "such" / "folder").rewrite()
    with pytest.raises(OSError, match="Is a directory"):
        BindingFile(tmp_path).read(TTL)


# The snapshots


def test_a_snapshot_at_exit_and_one_under_way_do_not_spoil_each_other(path: Path) -> None:
    table = AffinityTable(TTL, 16 * SHARD_CLIENTS)
    expected = {f"pool 10.0.{number >> 8}.{number & 255}" for number in range(5000)}
    for client in expected:
        table.bind(client, "backend-with-a-rather-long-name", time.monotonic())
    bindings_address = Address("bindings")
    actor = BindingsActor.start(table, {}, SingleFlight())
    bindings_address.publish(actor)
    snapshots = BindingSnapshots(BindingFile(path), bindings_address)
    try:
        writers = [gevent.spawn(snapshots.write) for _ in range(3)]
        gevent.joinall(writers, timeout=30, raise_error=True)
    finally:
        actor.stop(block=False)
    assert set(clients(path)) == expected
    assert list(path.parent.iterdir()) == [path]


def test_the_last_snapshot_leaves_alone_what_the_next_edge_has_written(path: Path) -> None:
    address = Address("bindings")
    table = AffinityTable(TTL, SHARD_CLIENTS)
    table.bind("pool 10.0.0.1", "a", time.monotonic())
    actor = BindingsActor.start(table, {}, SingleFlight())
    address.publish(actor)
    former = BindingSnapshots(BindingFile(path), address)
    try:
        former.hand_over()
        assert clients(path) == ["pool 10.0.0.1"]
        table.bind("pool 10.0.0.2", "a", time.monotonic())
        former.write_last()
        assert clients(path) == ["pool 10.0.0.1", "pool 10.0.0.2"]
        write(path, bindings(100))
        former.write_last()
        assert clients(path) == ["pool 10.0.0.0"]
    finally:
        actor.stop(block=False)
