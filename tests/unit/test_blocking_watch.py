"""A handler that blocks the event loop is reported with its line, and ended; one that waits through gevent is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from app.gateway import blocking
from app.gateway.blocking import BlockingWatch
from app.gateway.handler_module import HandlerError, load_handler
from app.gateway.workers import Overrun, Workers
from tests.harness import ROOT, eventually

SPIN = """
import time

def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

def handle(request, context):
    spin(request)
"""
STUCK = """
from gevent import monkey
monkey.patch_all()
import gevent
from app.gateway import blocking
from app.gateway.handler_module import load_handler
from app.gateway.workers import Workers

blocking.LAST_RESORT_SECONDS = 0.3
workers = Workers()
workers.limits["stuck"] = 0.2
watch = blocking.BlockingWatch(print, print, workers)
watch.start()
gevent.sleep(0.05)
handle = load_handler("stuck v1", "def handle(lock, context):\\n    lock.acquire()\\n    lock.acquire()\\n")
handle(monkey.get_original("_thread", "allocate_lock")(), None)
"""
SLEEP = "import time\n\ndef handle(request, context):\n    time.sleep(request)\n"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{message}")
    yield lines
    logger.remove(sink)


class Watched:
    """A watch on the test's own loop, with what it reports."""

    def __init__(self) -> None:
        self.blocked: list[str] = []
        self.condemned: list[tuple[str, int]] = []
        self.workers = Workers()
        self.workers.limits["quick"] = 0.3
        self.watch = BlockingWatch(self.blocked.append, lambda *one: self.condemned.append(one), self.workers)


@pytest.fixture
def watched() -> Iterator[Watched]:
    scene = Watched()
    scene.watch.start()
    gevent.sleep(0.03)
    yield scene
    scene.watch.stop()


@pytest.fixture
def blocked(watched) -> list[str]:
    """The calls of `on_blocked` during the test."""
    return watched.blocked  # type: ignore[no-any-return]


def ended_by(handler: Any, *arguments: Any) -> BaseException | None:
    """Call a handler in a greenlet; return what it raised."""
    caught: list[BaseException] = []

    def call() -> None:
        try:
            handler(*arguments)
        except BaseException as error:
            caught.append(error)

    gevent.spawn(call).join()
    return caught[0] if caught else None


def run(source: str, seconds: float, name: str = "slow v3") -> None:
    handler: Any = load_handler(name, source)
    gevent.spawn(handler, seconds, None).join()


def test_a_blocking_handler_is_named_and_counted(blocked, logged):
    run(SPIN, 0.3)
    eventually(lambda: blocked)
    assert blocked == ["slow"]
    [line] = logged
    assert line.startswith("endpoint slow: version 3 blocked the event loop for 0.")
    assert "line 10, in handle\n    spin(request)" in line
    assert "in spin" in line
    assert "test_blocking_watch.py" not in line, "the way to the handler is none of its author's affair"


def test_each_block_is_reported_once(blocked):
    for name in ("a v1", "b v1"):
        run(SPIN, 0.25, name)
        gevent.sleep(0.05)
    assert blocked == ["a", "b"]


def test_a_waiting_handler_does_not_block(blocked):
    run(SLEEP, 0.3)
    gevent.sleep(0.05)
    assert blocked == []


def test_code_outside_handlers_is_not_named(blocked):
    namespace: dict[str, Any] = {}
    exec(compile(SPIN, "elsewhere.py", "exec"), namespace)
    gevent.spawn(namespace["spin"], 0.3).join()
    gevent.sleep(0.05)
    assert blocked == []


def test_a_handler_that_goes_on_beyond_its_limit_is_ended(watched):
    handler: Any = load_handler("quick v2", SPIN)
    started = time.monotonic()
    assert isinstance(ended_by(handler, 60, None), Overrun)
    assert 0.2 < time.monotonic() - started < 5
    eventually(lambda: watched.blocked == ["quick"])
    assert watched.workers.condemned == set(), "once is an accident"


def test_a_version_is_condemned_before_the_loop_runs_again_and_begins_anew_once_forgiven(watched):
    handler: Any = load_handler("quick v2", SPIN)
    for _ in range(2):
        for _ in range(2):
            assert watched.workers.condemned == set()
            with pytest.raises(Overrun):
                handler(60, None)
        assert watched.workers.condemned == {("quick", 2)}, "the loop did not run"
        started = time.monotonic()
        with pytest.raises(Overrun):
            handler(60, None)
        assert time.monotonic() - started < 0.2, "a call that had started has no time left"
        eventually(lambda: watched.condemned == [("quick", 2)])
        watched.condemned.clear()
        watched.watch.forgive("quick", 2)


def test_a_handler_that_catches_everything_is_ended_again_and_again(blocked, monkeypatch):
    monkeypatch.setattr(blocking, "AGAIN_SECONDS", 0.1)
    stubborn = f"{SPIN}\n\ndef handle(request, context):\n    for _ in range(3):\n        try:\n            spin(60)\n"
    handler: Any = load_handler("quick v2", f"{stubborn}        except BaseException:\n            pass\n")
    gevent.spawn(handler, None, None).join(20)
    eventually(lambda: blocked)


def test_many_short_calls_in_one_turn_of_the_loop_are_each_within_the_limit(watched):
    """Each takes 0.1 s of a limit of 0.3 s; the loop, which they hold together for 1 s, does not run between them."""
    handler: Any = load_handler("quick v2", SPIN)
    for _ in range(10):
        handler(0.1, None)
    eventually(lambda: watched.blocked == ["quick"])


def test_a_source_that_computes_for_ever_when_imported_is_ended(watched, monkeypatch):
    monkeypatch.setattr(blocking, "LONGEST_SECONDS", 0.3)
    for _ in range(2):
        with pytest.raises(HandlerError, match="held the event loop") as caught:
            load_handler("quick v2", "while True:\n    pass\n\ndef handle(request, context): ...\n")
    assert "line 1" in caught.value.traceback
    assert watched.workers.condemned == set()


def test_the_process_ends_where_nothing_else_helps(tmp_path):
    """A call in C that waits is not interrupted."""
    program = tmp_path / "program.py"
    program.write_text(STUCK)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, program], env=environment, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == blocking.EXIT_BLOCKED
    assert "endpoint stuck: version 1 has held the event loop for 1 s and does not end; exiting" in done.stderr
    assert "lock.acquire()" in done.stderr
