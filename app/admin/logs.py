"""The newest log lines: as a list, and as a stream of server-sent events that goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from flask import Response, request
from gevent.event import Event
from pydantic import Field

from app.admin.access import Gate
from app.admin.api import Api, Model, current_token
from app.admin.problems import Problem
from app.domain.tokens import Scope, Token
from app.outbound.log_tail import LogTail

TAG = "logs"
MOST_STREAMS: Final = 8
LINES_AT_ONCE: Final = 200
"""Sent before the event loop gets its turn."""
LOOK_SECONDS: Final = 0.2
HEARTBEAT_SECONDS: Final = 10.0
"""Without a line something is sent all the same: else nobody would notice that the reader is gone."""


class LogQuery(Model):
    """Which lines."""

    since: int | None = Field(default=None, ge=0, le=2**53, description="From this number on; left out: the newest")
    count: int = Field(default=100, ge=1, le=1000, description="Return so many at most")


class LogLine(Model):
    """A line of the log."""

    number: int = Field(description="Grows by one from line to line")
    line: dict[str, Any] = Field(description="As in the log: ts, event, and what the event says")


class LogLines(Model):
    """Lines of the log, oldest first."""

    items: list[LogLine]
    first_kept: int = Field(description="Number of the oldest line still in memory")
    next: int = Field(description="`since` of the lines that will follow")


class StreamQuery(Model):
    """Where the stream begins. A `Last-Event-ID` header goes before it."""

    since: int | None = Field(default=None, ge=0, le=2**53, description="From this line on; left out: the newest 100")


def add_routes(api: Api, tail: LogTail, gate: Gate, has_stopped: Event) -> None:
    """Add the routes of this subject. Streams end when `has_stopped` is set."""
    open_streams: set[object] = set()

    @api.get("/api/logs", Scope.READ, tag=TAG, response=LogLines)
    def list_log_lines(query: LogQuery) -> LogLines:
        """List lines of the log."""
        lines = tail.since(_start(tail, query.since, query.count), query.count)
        items = [LogLine(number=number, line=msgspec.json.decode(line)) for number, line in lines]
        following = items[-1].number + 1 if items else max(query.since or 0, tail.end)
        return LogLines(items=items, first_kept=tail.first, next=following)

    @api.get_stream("/api/logs/stream", Scope.READ, tag=TAG)
    def stream_log_lines(query: StreamQuery) -> Response:
        """Follow the log: an event `line` for each line, its number as id; `lost` says how many were missed."""
        if len(open_streams) >= MOST_STREAMS:
            raise Problem(503, f"{MOST_STREAMS} streams are open already", headers={"Retry-After": "10"})
        last = request.headers.get("Last-Event-ID", "")
        since = int(last) + 1 if last.isascii() and last.isdigit() and len(last) < 16 else query.since
        stream = object()
        open_streams.add(stream)
        response = Response(follow(current_token(), _start(tail, since, 100)), mimetype="text/event-stream")
        response.call_on_close(lambda: open_streams.discard(stream))
        return response

    def follow(token: Token, number: int) -> Iterator[bytes]:
        yield b": the log\n\n"
        sent_at = time.monotonic()
        while not has_stopped.is_set() and gate.is_valid(token):
            if number < tail.first:
                yield b"event: lost\ndata: %d\n\n" % (tail.first - number)
            lines = tail.since(number, LINES_AT_ONCE)
            if lines:
                yield b"".join(b"id: %d\nevent: line\ndata: %s\n\n" % line for line in lines)
                number, sent_at = lines[-1][0] + 1, time.monotonic()
            elif time.monotonic() - sent_at > HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                sent_at = time.monotonic()
            has_stopped.wait(0 if len(lines) == LINES_AT_ONCE else LOOK_SECONDS)


def _start(tail: LogTail, since: int | None, count: int) -> int:
    """Return the number to begin at: of the newest so many lines, where none is asked for; never one to come."""
    return max(tail.first, tail.end - count) if since is None else min(since, tail.end)
