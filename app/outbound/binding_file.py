"""Stores the bindings in a file across restarts: JSON lines, written to a temporary file and renamed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from app.domain.affinity import Binding
from app.outbound.regular_file import read_regular

FORMAT: Final = 1


class _Head(msgspec.Struct):
    """The first line. Times in the file are Unix seconds, so that they survive a reboot."""

    format: int
    saved_at: float


class _Line(msgspec.Struct, array_like=True):
    client: str
    backend_id: str
    expires_at: float


_encode = msgspec.json.Encoder().encode
_decode_line = msgspec.json.Decoder(_Line).decode
_decode_head = msgspec.json.Decoder(_Head).decode


class Stored(NamedTuple):
    """What a file has that holds now, and why the rest does not; empty if there is no rest."""

    bindings: list[Binding]
    left_out: str


class BindingFile:
    """Reads and writes bindings, whose times outside the file are monotonic. All calls block."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: tuple[int, int] | None = None

    def rewrite(self) -> BindingWriter:
        """Begin a new file, which replaces the old one on commit. Raises OSError."""
        return BindingWriter(self._path, self._set_written)

    def _set_written(self, identity: tuple[int, int]) -> None:
        self._written = identity

    def is_replaced(self) -> bool:
        """Return whether another process has replaced or removed the file since this one wrote it."""
        if self._written is None:
            return False
        try:
            return _identity(self._path.stat()) != self._written
        except OSError:
            return True

    def read(self, ttl_seconds: float) -> Stored:
        """Return the unexpired bindings, soonest expiry first, and why others are left out.

        Raises ValueError for another kind of file, OSError if it cannot be read.
        """
        try:
            lines = read_regular(self._path).splitlines()
        except FileNotFoundError:
            return Stored([], f"{self._path} does not exist yet")
        except OSError as error:
            raise OSError(f"{self._path}: {error.strerror or error}") from None
        if not lines:
            raise ValueError(f"{self._path}: is not a snapshot of bindings: it is empty")
        try:
            head = _decode_head(lines[0])
            if head.format != FORMAT:
                return Stored([], f"{self._path} has format {head.format}, this version reads {FORMAT}")
            age = time.time() - head.saved_at
            if age > ttl_seconds:
                return Stored([], f"{self._path} was written {age:.0f} s ago, the TTL is {ttl_seconds:g} s")
            decoded = [_decode_line(line) for line in lines[1:]]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise ValueError(f"{self._path}: is not a snapshot of bindings: {error}") from None
        now, to_monotonic = time.time(), time.monotonic() - time.time()
        # If the clock was set back, bindings must not live longer than the TTL.
        live = [b for b in decoded if now < b.expires_at <= now + ttl_seconds]
        live.sort(key=lambda b: b.expires_at)
        restored = [Binding(b.client, b.backend_id, b.expires_at + to_monotonic) for b in live]
        return Stored(restored, _why_left_out(decoded, now, ttl_seconds, -age))


def _why_left_out(stored: list[_Line], now: float, ttl_seconds: float, seconds_ahead: float) -> str:
    expired = sum(one.expires_at <= now for one in stored)
    too_long = sum(one.expires_at > now + ttl_seconds for one in stored)
    reasons = [f"{expired} have expired"] if expired else []
    if too_long:
        clock = f"the file is of a time {seconds_ahead:.0f} s ahead of the clock, " if seconds_ahead > 0 else ""
        reasons.append(f"{clock}{too_long} would live longer than the TTL of {ttl_seconds:g} s")
    return "; ".join(reasons)


class BindingWriter:
    """Writes a new file one shard at a time, so that a million bindings are never copied at once."""

    def __init__(self, path: Path, on_commit: Callable[[tuple[int, int]], None]) -> None:
        self._path = path
        self._on_commit = on_commit
        # Of this process alone: an edge that drains and the next one have the same file.
        self._temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
        self._to_unix = time.time() - time.monotonic()
        self._temporary.unlink(missing_ok=True)  # left over from a crash; or a FIFO, which would block
        self._file = self._temporary.open("xb")
        self._file.write(_encode(_Head(FORMAT, time.time())) + b"\n")

    def add(self, bindings: Iterable[Binding]) -> None:
        lines = [_encode(_Line(b.client, b.backend_id, b.expires_at + self._to_unix)) + b"\n" for b in bindings]
        self._file.write(b"".join(lines))

    def abandon(self) -> None:
        """Delete the unfinished file, which would take up space on a full disk."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()

    def commit(self) -> None:
        """Flush the new file to disk and replace the old one."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
            written = _identity(os.fstat(self._file.fileno()))
        self._temporary.replace(self._path)
        self._on_commit(written)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_ino, found.st_mtime_ns
