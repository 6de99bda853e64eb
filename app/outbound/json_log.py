"""Writes the log to a file or stderr: one flat JSON object per line, in batches off the event loop.

Events come from loguru. Access lines bypass it, because a loguru call costs 11 µs and encoding a struct 0.8 µs. Lines
are written every 200 ms and at exit. On a full disk or with a stalled reader, lines are dropped and counted;
connections are not affected, because the buffer is bounded and a thread writes it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import time
import traceback
from pathlib import Path
from typing import Any, Final, Literal

import gevent
import msgspec
from gevent.threadpool import ThreadPool
from loguru import logger

from app.outbound.log_tail import LogTail

FLUSH_SECONDS: Final = 0.2
MAX_BUFFERED_BYTES: Final = 8 * 1024 * 1024
LAST_FLUSH_SECONDS: Final = 1.0
"""Time limit of the flush at exit, for a reader that has stalled."""

Format = Literal["json", "text"]

_encode = msgspec.json.Encoder().encode
_second_stamp: tuple[int, str] = (0, "")


def rfc3339(unix_seconds: float) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds. The part up to the second is cached."""
    global _second_stamp  # noqa: PLW0603 - formatting it costs more than the rest of an access line
    second = int(unix_seconds)
    if _second_stamp[0] != second:
        _second_stamp = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return f"{_second_stamp[1]}.{int((unix_seconds - second) * 1000):03d}Z"


class JsonLog:
    """The log sink. `path` None is stderr. After the file is moved away, it is reopened within a second."""

    def __init__(self, path: Path | None, format: Format = "json", *, keeps_tail: bool = True) -> None:
        """Open the log and create its directory if needed. Raises OSError if the file cannot be written.

        Set `keeps_tail` to False if nothing reads the tail, which costs a few percent of a small HTTP request.
        """
        self._path = path
        self._is_text = format == "text"
        self._keeps_tail = keeps_tail
        self._handler: int | None = None
        self._descriptor = self._open()
        self._lines: list[bytes] = []
        self._buffered = 0
        self._thread = ThreadPool(1)
        self._flusher: gevent.Greenlet[..., Any] | None = None
        self.lines_dropped = 0
        self.tail = LogTail()
        """The newest lines, always as JSON."""

    def _open(self) -> int:
        if self._path is None:
            return 2
        self._path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(self._path, flags | os.O_NONBLOCK, 0o644)  # an error for a FIFO without a reader
        os.set_blocking(descriptor, True)
        return descriptor

    def receive_events(self, level: str) -> None:
        """Become loguru's only sink, for events of this level and above."""
        logger.remove(self._handler)
        # diagnose would call repr() on the variables of a traceback, which takes 5 s for 16 MiB of bytes
        self._handler = logger.add(
            self.write_event, level=level.upper(), format="{message}", catch=False, backtrace=False, diagnose=False
        )

    def change(self, level: str, format: Format) -> None:
        """Change the format, and the level if this is loguru's sink."""
        self._is_text = format == "text"
        if self._handler is not None:
            self.receive_events(level)

    def start(self) -> None:
        """Flush in the background from now on. Before, access lines are only buffered."""
        self._flusher = gevent.spawn(self._flush_forever)

    def stop(self) -> None:
        """Write the buffer and stop flushing. Later events are written at once, in the caller's thread."""
        if self._flusher is None:
            return
        self._flusher.kill()
        lines, _ = self._take()
        # In the log's own thread, after a write that may still be running.
        with gevent.Timeout(LAST_FLUSH_SECONDS, False):
            self._thread.apply(self._write, (lines,))
        self._flusher = None

    def write_access(self, line: msgspec.Struct) -> None:
        """Append an access-log record as a line."""
        encoded = _encode(line) if self._keeps_tail or not self._is_text else b""
        if self._keeps_tail:
            self.tail.append(encoded)
        self._append(_text(msgspec.structs.asdict(line)) if self._is_text else encoded)

    def write_event(self, message: Any) -> None:
        """Append a loguru message as a line."""
        record = message.record
        fields = {
            "ts": rfc3339(record["time"].timestamp()),
            "level": record["level"].name,
            "event": record["message"],
            "where": f"{record['name']}:{record['line']}",
            **record["extra"],
        }
        if record["exception"] is not None:
            fields["traceback"] = "".join(traceback.format_exception(*record["exception"]))
        encoded = _json(fields)
        if self._keeps_tail:
            self.tail.append(encoded)
        self._append_event(_text(fields) if self._is_text else encoded)

    def _append_event(self, line: bytes) -> None:
        self._append(line)
        if self._flusher is None:
            self.flush()

    def _append(self, line: bytes) -> None:
        if self._buffered > MAX_BUFFERED_BYTES:
            self.lines_dropped += 1
            return
        self._lines.append(line)
        self._buffered += len(line)

    def _flush_forever(self) -> None:
        while True:
            gevent.sleep(FLUSH_SECONDS)
            if not self._lines:
                continue
            lines, buffered = self._take()
            try:
                self._thread.apply(self._write, (lines,))
            except Exception:  # the flusher must survive, and there is nowhere to log this
                self.lines_dropped += len(lines)
            finally:
                self._buffered -= buffered

    def flush(self) -> None:
        """Write the buffer now, in this thread."""
        lines, buffered = self._take()
        self._write(lines)
        self._buffered -= buffered

    def _take(self) -> tuple[list[bytes], int]:
        lines, self._lines = self._lines, []
        return lines, sum(map(len, lines))

    def _write(self, lines: list[bytes]) -> None:
        """Write whole lines; count those that fail as dropped."""
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        written = 0
        try:
            self._reopen_if_moved()
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:  # disk full, or reader gone
            whole = data.rfind(b"\n", 0, written) + 1
            self.lines_dropped += len(lines) - data.count(b"\n", 0, whole)
            if written > whole:
                self._truncate(written - whole)

    def _truncate(self, torn_bytes: int) -> None:
        """Remove a partly written line from the end of the file, so that the next line does not continue it."""
        with contextlib.suppress(OSError):
            found = os.fstat(self._descriptor)
            if stat.S_ISREG(found.st_mode):
                os.ftruncate(self._descriptor, found.st_size - torn_bytes)

    def _reopen_if_moved(self) -> None:
        if self._path is None:
            return
        mine = os.fstat(self._descriptor)
        try:
            there = os.stat(self._path)
        except FileNotFoundError:
            there = None
        if there is None or (there.st_dev, there.st_ino) != (mine.st_dev, mine.st_ino):
            try:
                fresh = self._open()
            except OSError:  # out of descriptors, or no directory: keep the old file until the next flush
                return
            os.close(self._descriptor)
            self._descriptor = fresh


class _Bridge(logging.Handler):
    """Forwards records of the standard logging (from pykka and gevent) to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO"
        logger.opt(depth=6, exception=record.exc_info).log(level, record.getMessage())


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields, enc_hook=str)
    except UnicodeEncodeError:  # a path or text from outside that is not UTF-8
        return json.dumps(fields, default=str).encode()


def _text(fields: dict[str, Any]) -> bytes:
    """Format an event for people: time, level, event, name=value pairs; a traceback below."""
    rest = dict(fields)
    head = [rest.pop("ts"), rest.pop("level", ""), rest.pop("event")]
    traceback_text = rest.pop("traceback", "")
    pairs = [f"{name}={value}" for name, value in rest.items() if value not in (None, "")]
    line = " ".join(filter(None, [*head, *pairs])).replace("\n", "\\n")
    return (line + ("\n" + traceback_text.rstrip() if traceback_text else "")).encode(errors="backslashreplace")


def configure(path: Path | None, *, level: str, format: Format, keeps_tail: bool = True) -> JsonLog:
    """Make a JsonLog the only sink of loguru and of the standard logging. Raises OSError."""
    log = JsonLog(path, format, keeps_tail=keeps_tail)
    log.receive_events(level)
    logging.root.handlers = [_Bridge()]
    logging.root.setLevel(logging.INFO)
    return log
