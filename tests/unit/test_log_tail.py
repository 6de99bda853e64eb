"""The newest log lines in memory: bounded, numbered, and always JSON, whatever the format of the log."""

from __future__ import annotations

import json

import msgspec
from loguru import logger

from app.outbound.json_log import JsonLog
from app.outbound.log_tail import MAX_LINE_BYTES, LogTail


def test_lines_are_numbered_and_read_from_any_number_on():
    tail = LogTail()
    for text in (b"a", b"b", b"c"):
        tail.append(text)
    assert tail.since(0, 10) == [(0, b"a"), (1, b"b"), (2, b"c")]
    assert tail.since(1, 1) == [(1, b"b")]
    assert tail.since(3, 10) == []
    assert (tail.first, tail.end) == (0, 3)


def test_the_oldest_go_when_there_are_too_many():
    tail = LogTail(max_lines=2)
    for text in (b"a", b"b", b"c"):
        tail.append(text)
    assert tail.since(0, 10) == [(1, b"b"), (2, b"c")]
    assert (tail.first, tail.end) == (1, 3)


def test_the_oldest_go_when_they_take_too_much_memory():
    tail = LogTail(max_bytes=10)
    for number in range(100):
        tail.append(b"%04d" % number)
    assert tail.since(0, 10) == [(98, b"0098"), (99, b"0099")]


def test_a_line_that_is_far_too_long_pushes_nothing_out():
    tail = LogTail()
    tail.append(b"a")
    tail.append(b"x" * (MAX_LINE_BYTES + 1))
    (first, long) = tail.since(0, 10)
    assert first == (0, b"a")
    assert "too long" in json.loads(long[1])["event"]


class Line(msgspec.Struct):
    ts: str
    event: str


def test_the_log_feeds_it_json_in_either_format(tmp_path):
    for log_format in ("json", "text"):
        log = JsonLog(tmp_path / log_format, log_format)  # type: ignore[arg-type]
        sink = logger.add(log.write_event, level="INFO", format="{message}", catch=False)
        try:
            log.write_access(Line("now", "connection"))
            logger.bind(pool="p").info("hello")
        finally:
            logger.remove(sink)
        lines = [json.loads(line) for _, line in log.tail.since(0, 10)]
        assert [line["event"] for line in lines] == ["connection", "hello"]
        assert lines[1]["pool"] == "p"
        written = (tmp_path / log_format).read_text()
        assert "hello" in written
        assert ('"event":"hello"' in written) == (log_format == "json")
