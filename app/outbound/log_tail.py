"""The newest lines of the log in memory, for those who look at them over the admin API."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

MOST_LINES: Final = 2000
MOST_BYTES: Final = 2 * 1024 * 1024
LONGEST_LINE_BYTES: Final = 64 * 1024
"""A longer one is not kept: it would push out all the others."""


class LogTail:
    """A bounded ring of JSON lines, each with a number that grows by one. Old lines go first."""

    def __init__(self, most_lines: int = MOST_LINES, most_bytes: int = MOST_BYTES) -> None:
        self._most_lines = most_lines
        self._most_bytes = most_bytes
        self._lines: deque[bytes] = deque()
        self._bytes = 0
        self.end = 0
        """The number that the next line will have."""

    def append(self, line: bytes) -> None:
        """Keep a line. Called for every line of the log, by the event loop's thread."""
        self.end += 1
        self._lines.append(line if len(line) <= LONGEST_LINE_BYTES else b'{"event":"(a line too long to be kept)"}')
        self._bytes += len(self._lines[-1])
        while len(self._lines) > self._most_lines or self._bytes > self._most_bytes:
            self._bytes -= len(self._lines.popleft())

    @property
    def first(self) -> int:
        """The number of the oldest line kept."""
        return self.end - len(self._lines)

    def since(self, number: int, at_most: int) -> list[tuple[int, bytes]]:
        """Return up to so many lines from this number on, with their numbers; those gone are left out."""
        start = max(number, self.first)
        return list(enumerate(islice(self._lines, start - self.first, start - self.first + at_most), start))
