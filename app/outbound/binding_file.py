"""The file that keeps the bindings over a restart: JSON lines, written whole beside it and renamed into place."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from app.domain.affinity import Binding

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


class BindingFile:
    """Reads and writes bindings, whose times outside the file are monotonic. All calls block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def rewrite(self) -> BindingWriter:
        """Begin a new file, which takes the old one's place when it is committed. Raises OSError."""
        return BindingWriter(self._path)

    def read(self, ttl_seconds: float) -> list[Binding]:
        """Return the bindings not yet expired, soonest expiry first; nothing when the file is absent or too old.

        Raises ValueError when it is no such file, OSError when it cannot be read.
        """
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return []
        try:
            head = _decode_head(lines[0])
            if head.format != FORMAT or time.time() - head.saved_at > ttl_seconds:
                return []
            decoded = [_decode_line(line) for line in lines[1:]]
        except (msgspec.DecodeError, UnicodeDecodeError, IndexError) as error:
            raise ValueError(f"{self._path}: no binding snapshot: {error}") from None
        now, to_monotonic = time.time(), time.monotonic() - time.time()
        # A clock that was set back must not make bindings live longer than they were given.
        live = [b for b in decoded if now < b.expires_at <= now + ttl_seconds]
        live.sort(key=lambda b: b.expires_at)
        return [Binding(b.client, b.backend_id, b.expires_at + to_monotonic) for b in live]


class BindingWriter:
    """Writes bindings beside the old file, a shard at a time, so that a million of them never exist twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = path.with_name(path.name + ".new")
        self._to_unix = time.time() - time.monotonic()
        self._file = self._temporary.open("wb")
        self._file.write(_encode(_Head(FORMAT, time.time())) + b"\n")

    def add(self, bindings: Iterable[Binding]) -> None:
        lines = [_encode(_Line(b.client, b.backend_id, b.expires_at + self._to_unix)) + b"\n" for b in bindings]
        self._file.write(b"".join(lines))

    def abandon(self) -> None:
        """Take the unfinished file away again: on a full disk it would sit in the way."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            self._temporary.unlink()

    def commit(self) -> None:
        """Make the new file durable and put it in the old one's place."""
        with self._file:
            self._file.flush()
            os.fsync(self._file.fileno())
        self._temporary.replace(self._path)
