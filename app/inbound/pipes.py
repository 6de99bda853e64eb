"""The pipes through which bulk directions are spliced: few, shared, and counted as descriptors."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final

PIPE_BYTES: Final = 1 << 20


class PipePool:
    """Pipes for bulk directions, at most `limit` in all (they count as descriptors)."""

    def __init__(self, limit: int) -> None:
        self._idle: list[tuple[int, int]] = []
        self._left = limit

    def take(self) -> tuple[int, int] | None:
        """Return (read end, write end), or None when all are in use."""
        if self._idle:
            return self._idle.pop()
        if self._left <= 0:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # out of descriptors: copying works too
            return None
        self._left -= 1
        with suppress(OSError):  # beyond pipe-user-pages-soft an ordinary user gets small pipes
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return ends

    def give_back(self, ends: tuple[int, int], *, is_empty: bool) -> None:
        if is_empty:
            self._idle.append(ends)
        else:
            os.close(ends[0])
            os.close(ends[1])
            self._left += 1
