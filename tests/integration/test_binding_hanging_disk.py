"""A disk that hangs while bindings are written blocks nothing else, and waiting can be interrupted."""

import os

import gevent
import pytest

from actors.messages import ConfirmBinding
from actors.runtime import tell
from app.edge.binding_snapshots import BindingSnapshots
from app.outbound.binding_file import BindingFile
from tests.actors.edge_actors import EdgeActors
from tests.harness import eventually


def test_writing_the_bindings_can_be_given_up(tmp_path):
    edge = EdgeActors()
    for number in range(5_000):  # more than a pipe holds
        tell(edge.addresses.bindings, ConfirmBinding(f"default client {number}", "a"))
    path = tmp_path / "bindings.jsonl"
    pipe = tmp_path / "bindings.jsonl.new"
    os.mkfifo(pipe)
    stalled_reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    snapshots = BindingSnapshots(BindingFile(path), edge.addresses.bindings)
    try:
        # The first is the test's own patience: no Exception, so it is not taken for the caller's.
        with gevent.Timeout(10), pytest.raises(TimeoutError), gevent.Timeout(0.3, TimeoutError("no answer")):
            snapshots.write()
    finally:
        os.close(stalled_reader)  # the disk answers again
    eventually(lambda: not pipe.exists(), what="the unfinished file is tidied up")
    assert not path.exists()
