"""`print` in a handler: one event each, within a size and a rate."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger

from app.gateway.handler_module import load_handler
from app.gateway.handler_print import BURST, MAX_CHARACTERS, log_print

SOURCE = """print("imported")


def handle(request, context):
    print(*request, sep="-")
    print("to a file", file=context)
"""


@pytest.fixture
def records() -> Iterator[list[Any]]:
    """The records logged during the test."""
    found: list[Any] = []
    sink = logger.add(lambda message: found.append(message.record), level="DEBUG", format="{message}")
    yield found
    logger.remove(sink)


def test_a_print_is_an_event_with_endpoint_and_version(records, capsys):
    handler, file = load_handler("hello v3", SOURCE, log_print("hello", 3)), io.StringIO()
    handler(("a {} b", 7), file)
    assert [(one["message"], one["level"].name) for one in records] == [("imported", "INFO"), ("a {} b-7", "INFO")]
    assert [one["extra"] for one in records] == [{"endpoint": "hello", "version": 3}] * 2
    assert [one["line"] for one in records] == [1, 5]
    assert file.getvalue() == "to a file\n"
    assert capsys.readouterr().out == ""


def test_standard_error_goes_to_the_log_too(records):
    log_print("hello", 1)("oh", file=sys.stderr)
    assert [one["message"] for one in records] == ["oh"]


def test_a_long_text_is_cut(records):
    log_print("hello", 1)("x" * 1_000_000)
    assert len(records[0]["message"]) == MAX_CHARACTERS + 1


def test_a_flood_is_left_out_and_counted(records, monkeypatch):
    now = 0.0
    monkeypatch.setattr("app.gateway.handler_print.time.monotonic", lambda: now)
    say = log_print("hello", 1)
    for number in range(1000):
        say(number)
    assert len(records) == BURST
    now = 10.0
    say("later")
    assert (records[-1]["message"], records[-1]["extra"]["left_out"]) == ("later", 1000 - BURST)
    say("at last")
    assert "left_out" not in records[-1]["extra"]


def test_another_version_has_its_own_rate(records):
    for number in (1, 2):
        say = log_print("hello", number)
        for _ in range(int(BURST)):
            say("x")
    assert len(records) == 2 * BURST
