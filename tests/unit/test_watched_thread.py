"""A thread whose call hangs: the call is given up and the thread replaced, again and again but ever more rarely."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from gevent.monkey import get_original
from loguru import logger

from app.outbound import watched_thread
from app.outbound.watched_thread import WatchedThread
from tests.harness import eventually


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    """Give the ends of a pipe: who reads hangs until something is written. Times are a hundredth."""
    monkeypatch.setattr(watched_thread, "SILENCE_SECONDS", 0.05)
    monkeypatch.setattr(watched_thread, "GIVE_UP_SECONDS", 0.3)
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    yield lines
    logger.remove(sink)


def test_a_call_that_hangs_is_logged_and_given_up_and_the_next_one_runs(pipe, warnings):
    thread = WatchedThread("the disk")
    with pytest.raises(TimeoutError, match="no response for"):
        thread.run(os.read, pipe[0], 1)
    assert [line for line in warnings if line.startswith("the disk: no response for")] == warnings != []
    assert thread.run(os.getpid) == os.getpid()
    os.write(pipe[1], b"x")


def test_a_disk_that_hangs_on_takes_few_threads_and_is_used_again_when_it_responds(pipe, warnings):
    thread = WatchedThread("the disk")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        with pytest.raises(TimeoutError):
            thread.run(os.read, pipe[0], 1)
    assert len(thread._hanging) <= 3, "after 0.3, 0.9 and 2.1 s"
    assert len(warnings) == 1
    os.write(pipe[1], b"x" * 100)
    eventually(lambda: thread.run(os.getpid) == os.getpid())


def test_a_call_that_is_only_slow_is_waited_for(pipe, warnings):
    thread = WatchedThread("the disk")
    assert thread.run(get_original("time", "sleep"), 0.15) is None
    assert len(warnings) == 1
    with pytest.raises(ZeroDivisionError):
        thread.run(lambda: 1 / 0)
