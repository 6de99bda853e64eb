"""The newest log lines, as a list and as a stream of server-sent events."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from flask import Response, request
from gevent.event import Event
from pydantic import Field

from app.admin.access import Authenticator
from app.admin.api import Api, Model, current_token
from app.admin.problems import Problem
from app.domain.tokens import Scope, Token
from app.outbound.log_tail import LogTail

TAG = "logs"
MOST_STREAMS: Final = 8
LINES_AT_ONCE: Final = 200
"""Lines sent before yielding to the event loop."""
POLL_SECONDS: Final = 0.2
HEARTBEAT_SECONDS: Final = 10.0
"""Time without a line after which a comment is sent: otherwise a vanished reader would not be noticed."""


class LogQuery(Model):
    """Selects log lines."""

    since: int | None = Field(
        default=None, ge=0, le=2**53, description="Number of the first line; the newest lines by default"
    )
    count: int = Field(default=100, ge=1, le=1000, description="Maximum number of lines to return")


class LogLine(Model):
    """A line of the log."""

    number: int = Field(description="Increases by one with each line")
    line: dict[str, Any] = Field(description="The line in the log: ts, event, and the event's fields")


class LogLines(Model):
    """Lines of the log, oldest first."""

    items: list[LogLine]
    first_kept: int = Field(description="Number of the oldest line still in memory")
    next: int = Field(description="`since` for the lines that follow")


class StreamQuery(Model):
    """Selects the start of a stream. A `Last-Event-ID` header takes precedence."""

    since: int | None = Field(
        default=None, ge=0, le=2**53, description="Number of the first line; the newest 100 lines by default"
    )


def add_routes(api: Api, tail: LogTail, authenticator: Authenticator, has_stopped: Event) -> None:
    """Add the routes of this subject. Streams end when `has_stopped` is set."""
    open_streams: set[object] = set()

    @api.get("/api/logs", Scope.READ, tag=TAG, response=LogLines)
    def list_log_lines(query: LogQuery) -> LogLines:
        """List log lines."""
        lines = tail.since(_start(tail, query.since, query.count), query.count)
        items = [LogLine(number=number, line=msgspec.json.decode(line)) for number, line in lines]
        following = items[-1].number + 1 if items else max(query.since or 0, tail.end)
        return LogLines(items=items, first_kept=tail.first, next=following)

    @api.get_stream("/api/logs/stream", Scope.READ, tag=TAG)
    def stream_log_lines(query: StreamQuery) -> Response:
        """Follow the log: an event `line` for each line, with its number as id; `lost` counts missed lines."""
        if len(open_streams) >= MOST_STREAMS:
            raise Problem(503, f"all {MOST_STREAMS} log streams are in use", headers={"Retry-After": "10"})
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
        while not has_stopped.is_set() and authenticator.is_valid(token):
            if number < tail.first:
                yield b"event: lost\ndata: %d\n\n" % (tail.first - number)
            lines = tail.since(number, LINES_AT_ONCE)
            if lines:
                yield b"".join(b"id: %d\nevent: line\ndata: %s\n\n" % line for line in lines)
                number, sent_at = lines[-1][0] + 1, time.monotonic()
            elif time.monotonic() - sent_at > HEARTBEAT_SECONDS:
                yield b": still here\n\n"
                sent_at = time.monotonic()
            has_stopped.wait(0 if len(lines) == LINES_AT_ONCE else POLL_SECONDS)


def _start(tail: LogTail, since: int | None, count: int) -> int:
    """Return the number of the first line to send: `since`, or that of the newest `count` lines."""
    return max(tail.first, tail.end - count) if since is None else min(since, tail.end)
