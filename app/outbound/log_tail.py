"""Keeps the newest lines of the log in memory, for the admin API."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

MAX_LINES: Final = 2000
MAX_BYTES: Final = 2 * 1024 * 1024
MAX_LINE_BYTES: Final = 64 * 1024
"""A longer line is replaced by a note, because it would displace too many others."""


class LogTail:
    """A bounded buffer of JSON lines, numbered consecutively. The oldest lines are dropped first."""

    def __init__(self, max_lines: int = MAX_LINES, max_bytes: int = MAX_BYTES) -> None:
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self.end = 0
        """The number of the next line."""

    def append(self, line: bytes) -> None:
        """Append a line. Called for every line of the log, in the event loop's thread."""
        self.end += 1
        self._lines.append(line if len(line) <= MAX_LINE_BYTES else b'{"event":"(line too long, not kept)"}')
        self._bytes += len(self._lines[-1])
        while len(self._lines) > self._max_lines or self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft())

    @property
    def first(self) -> int:
        """The number of the oldest line in the buffer."""
        return self.end - len(self._lines)

    def since(self, number: int, at_most: int) -> list[tuple[int, bytes]]:
        """Return up to `at_most` lines with their numbers, from `number` on, without those already dropped."""
        start = max(number, self.first)
        return list(enumerate(islice(self._lines, start - self.first, start - self.first + at_most), start))
