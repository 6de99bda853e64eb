"""A disk that hangs while bindings are written blocks nothing else, and waiting can be interrupted."""

import os
from pathlib import Path

import gevent
import pytest

from actors.messages import ConfirmBinding
from actors.runtime import tell
from app.edge.binding_snapshots import BindingSnapshots
from app.outbound.binding_file import BindingFile, BindingWriter
from tests.actors.edge_actors import EdgeActors
from tests.harness import eventually, row
from tests.traffic import named, who


class FileOnHangingDisk(BindingFile):
    """What is written goes into a pipe that nobody reads."""

    def __init__(self, path: Path, pipe: int) -> None:
        super().__init__(path)
        self._pipe = pipe

    def rewrite(self) -> BindingWriter:
        writer = super().rewrite()
        writer._file.close()
        writer._file = os.fdopen(self._pipe, "wb")
        return writer


def test_writing_the_bindings_can_be_given_up(tmp_path):
    edge = EdgeActors()
    for number in range(5_000):  # more than a pipe holds
        tell(edge.addresses.bindings, ConfirmBinding(f"default client {number}", "a"))
    path = tmp_path / "bindings.jsonl"
    stalled_reader, pipe = os.pipe()
    snapshots = BindingSnapshots(FileOnHangingDisk(path, pipe), edge.addresses.bindings)
    try:
        # The first is the test's own patience: no Exception, so it is not taken for the caller's.
        with gevent.Timeout(10), pytest.raises(TimeoutError), gevent.Timeout(0.3, TimeoutError("no answer")):
            snapshots.write()
    finally:
        os.close(stalled_reader)  # the disk answers again
    eventually(lambda: not list(tmp_path.iterdir()), what="the unfinished file is tidied up")


def test_a_fifo_where_the_bindings_are_written_first_is_removed(tmp_path):
    os.mkfifo(tmp_path / f"bindings.jsonl.{os.getpid()}.new")
    edge = EdgeActors()
    with gevent.Timeout(10):
        BindingSnapshots(BindingFile(tmp_path / "bindings.jsonl"), edge.addresses.bindings).write()
    assert [path.name for path in tmp_path.iterdir()] == ["bindings.jsonl"]


def test_a_fifo_in_place_of_the_bindings_is_logged_at_the_start_and_replaced_at_the_end(edge, origin, tmp_path):
    snapshot = tmp_path / "bindings.jsonl"
    os.mkfifo(snapshot)
    proxy = edge([row("a", origin(named("a")))], BINDING_SNAPSHOT=snapshot, GEOIP_PATH="off")
    assert "is not a regular file" in eventually(lambda: proxy.event("bindings not restored: "))["event"]
    assert who(proxy) == "a"
    assert proxy.stop() == 0
    assert snapshot.is_file()
