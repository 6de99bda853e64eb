"""A handler that blocks the event loop is named with its source line; one that waits through gevent is not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import gevent
import pytest

from app.gateway import blocking
from app.gateway.blocking import BlockingWatch
from app.gateway.handler_module import load_handler
from tests.harness import eventually

SPIN = """
import time

def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass

def handle(request, context):
    spin(request)
"""
SLEEP = "import time\n\ndef handle(request, context):\n    time.sleep(request)\n"


@pytest.fixture
def logged() -> Iterator[list[str]]:
    from loguru import logger

    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(str(message)), level="DEBUG", format="{message}")
    yield lines
    logger.remove(sink)


@pytest.fixture
def blocked() -> Iterator[list[tuple[str, float]]]:
    """What a watch reports during the test."""
    found: list[tuple[str, float]] = []
    watch = BlockingWatch(lambda endpoint_id, seconds: found.append((endpoint_id, seconds)))
    watch.start()
    gevent.sleep(0.03)
    yield found
    watch.stop()


def run(source: str, seconds: float, name: str = "slow v3") -> None:
    handler: Any = load_handler(name, source)
    gevent.spawn(handler, seconds, None).join()


def test_a_handler_that_blocks_the_loop_is_named_and_counted(blocked, logged):
    run(SPIN, 0.3)
    eventually(lambda: blocked)
    [(endpoint_id, seconds)] = blocked
    assert endpoint_id == "slow"
    assert 0.25 < seconds < 2
    [line] = logged
    assert line.startswith("endpoint slow: version 3 blocked the event loop for 0.")
    assert "line 10, in handle\n    spin(request)" in line
    assert "in spin" in line
    assert "test_blocking_watch.py" not in line, "the way to the handler is none of its author's affair"


def test_each_time_is_one(blocked):
    for name in ("a v1", "b v1"):
        run(SPIN, 0.25, name)
        gevent.sleep(0.05)
    assert [endpoint_id for endpoint_id, _ in blocked] == ["a", "b"]


def test_a_waiting_handler_does_not_block_the_loop(blocked):
    run(SLEEP, 0.3)
    gevent.sleep(0.05)
    assert blocked == []


def test_an_innocent_handler_is_not_named(blocked):
    namespace: dict[str, Any] = {}
    exec(compile(SPIN, "elsewhere.py", "exec"), namespace)
    gevent.spawn(namespace["spin"], 0.3).join()
    gevent.sleep(0.05)
    assert blocked == []


def test_an_endless_block_is_reported_on_standard_error(blocked, monkeypatch):
    said: list[bytes] = []
    monkeypatch.setattr(blocking, "STDERR_SECONDS", 0.2)
    monkeypatch.setattr(os, "write", lambda descriptor, text: said.append((descriptor, text)))
    run(SPIN, 0.5)
    [(descriptor, text)] = said
    assert descriptor == 2
    assert text.startswith(b"edgeproxy: endpoint slow: version 3 has blocked the event loop for 0 s\n")
    assert b"spin(request)" in text
