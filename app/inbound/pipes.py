"""The shared pipes through which bulk directions are spliced."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from typing import Final

PIPE_BYTES: Final = 1 << 20


class PipePool:
    """At most `limit` pipes, in use or idle: each takes two of the process's descriptors."""

    def __init__(self, limit: int) -> None:
        self._idle: list[tuple[int, int]] = []
        self._left = limit

    def take(self) -> tuple[int, int] | None:
        """Return (read end, write end), or None if all are in use."""
        if self._idle:
            return self._idle.pop()
        if self._left <= 0:
            return None
        try:
            ends = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:  # out of descriptors: the caller copies instead
            return None
        self._left -= 1
        with suppress(OSError):  # an unprivileged user beyond pipe-user-pages-soft gets small pipes
            fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return ends

    def give_back(self, ends: tuple[int, int], *, is_empty: bool) -> None:
        if is_empty:
            self._idle.append(ends)
        else:
            os.close(ends[0])
            os.close(ends[1])
            self._left += 1
