"""The log: one flat JSON object a line, to a file or stderr, written in batches off the event loop.

loguru owns the events; the access log takes a shorter way into the same sink, because a loguru call costs 11 µs and
an encoded struct 0.8. Lines are written at least every 200 ms and at exit. A full disk or a stalled reader costs
lines, which are counted, never connections: the buffer is bounded and the writing happens in a thread.
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
LAST_WORDS_SECONDS: Final = 1.0
"""At exit, for a reader that has stalled: then the process ends without it."""

Format = Literal["json", "text"]

_encode = msgspec.json.Encoder().encode
_second_stamp: tuple[int, str] = (0, "")


def rfc3339(unix_seconds: float) -> str:
    """Return a time as RFC 3339 in UTC with milliseconds. The part down to the second is kept between calls."""
    global _second_stamp  # noqa: PLW0603 - formatting it anew costs more than the rest of an access line
    second = int(unix_seconds)
    if _second_stamp[0] != second:
        _second_stamp = (second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)))
    return f"{_second_stamp[1]}.{int((unix_seconds - second) * 1000):03d}Z"


class JsonLog:
    """The sink. `path` None is stderr. A file that was moved away is reopened at its path within a second."""

    def __init__(self, path: Path | None, format: Format = "json", *, keeps_tail: bool = True) -> None:
        """Open the log, making its folder if need be. Raises OSError when the file cannot be written.

        `keeps_tail` is false where nothing reads the tail: keeping it costs some percent of a small HTTP request.
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
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def take_over(self, level: str) -> None:
        """Be where loguru writes events of this level and above, alone."""
        logger.remove(self._handler)
        self._handler = logger.add(self.write_event, level=level.upper(), format="{message}", catch=False)

    def change(self, level: str, format: Format) -> None:
        """Write in another format from now on, and events of another level if loguru's are written here."""
        self._is_text = format == "text"
        if self._handler is not None:
            self.take_over(level)

    def start(self) -> None:
        """Flush in the background from now on (events and access lines are only buffered before)."""
        self._flusher = gevent.spawn(self._flush_forever)

    def stop(self) -> None:
        """Write what is buffered and end. Events from now on are written at once, on the caller's thread."""
        if self._flusher is None:
            return
        self._flusher.kill()
        lines, _ = self._take()
        # In the log's own thread, after what it may be writing still.
        with gevent.Timeout(LAST_WORDS_SECONDS, False):
            self._thread.apply(self._write, (lines,))
        self._flusher = None

    def write_access(self, line: msgspec.Struct) -> None:
        """Append one encoded struct as a line."""
        encoded = _encode(line) if self._keeps_tail or not self._is_text else b""
        if self._keeps_tail:
            self.tail.append(encoded)
        self._append(_text(msgspec.structs.asdict(line)) if self._is_text else encoded)

    def write_event(self, message: Any) -> None:
        """Append a loguru message: the loguru sink."""
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
            except Exception:  # nothing may end the log; where should it be told, if not here
                self.lines_dropped += len(lines)
            finally:
                self._buffered -= buffered

    def flush(self) -> None:
        """Write what is buffered now, on this thread."""
        lines, buffered = self._take()
        self._write(lines)
        self._buffered -= buffered

    def _take(self) -> tuple[list[bytes], int]:
        lines, self._lines = self._lines, []
        return lines, sum(map(len, lines))

    def _write(self, lines: list[bytes]) -> None:
        """Write lines whole or count them as dropped."""
        if not lines:
            return
        data = b"\n".join(lines) + b"\n"
        written = 0
        try:
            self._reopen_if_moved()
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
        except OSError:  # disk full, reader gone
            whole = data.rfind(b"\n", 0, written) + 1
            self.lines_dropped += len(lines) - data.count(b"\n", 0, whole)
            if written > whole:
                self._cut(written - whole)

    def _cut(self, torn_bytes: int) -> None:
        """Take the beginning of a line that did not fit off the file again: the next one must not continue it."""
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
            except OSError:  # out of descriptors, no folder: better the old file than none, until the next flush
                return
            os.close(self._descriptor)
            self._descriptor = fresh


class _Bridge(logging.Handler):
    """Hands records of the standard logging (pykka's, gevent's) to loguru."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname if record.levelname in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL") else "INFO"
        logger.opt(depth=6, exception=record.exc_info).log(level, record.getMessage())


def _json(fields: dict[str, Any]) -> bytes:
    try:
        return msgspec.json.encode(fields, enc_hook=str)
    except UnicodeEncodeError:  # a path or a text from outside that is no UTF-8
        return json.dumps(fields, default=str).encode()


def _text(fields: dict[str, Any]) -> bytes:
    """Return a line for people: time, level, event, then name=value of what there is; a traceback below."""
    rest = dict(fields)
    head = [rest.pop("ts"), rest.pop("level", ""), rest.pop("event")]
    traceback_text = rest.pop("traceback", "")
    pairs = [f"{name}={value}" for name, value in rest.items() if value not in (None, "")]
    line = " ".join(filter(None, [*head, *pairs])).replace("\n", "\\n")
    return (line + ("\n" + traceback_text.rstrip() if traceback_text else "")).encode(errors="backslashreplace")


def configure(path: Path | None, *, level: str, format: Format, keeps_tail: bool = True) -> JsonLog:
    """Make loguru, and the standard logging behind it, write to a JsonLog alone. Raises OSError."""
    log = JsonLog(path, format, keeps_tail=keeps_tail)
    log.take_over(level)
    logging.root.handlers = [_Bridge()]
    logging.root.setLevel(logging.INFO)
    return log
