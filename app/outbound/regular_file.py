"""Reads files that were possibly replaced by something else, such as a FIFO, whose open or read would never return."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def require_regular(path: Path) -> os.stat_result:
    """Return the status of a regular file, through symbolic links. Raises OSError, also if it is anything else.

    For libraries that open the path themselves. What replaces the file between the two still blocks: call them in a
    WatchedThread.
    """
    return _required(os.stat(path))


def read_regular(path: Path) -> bytes:
    """Return the content of a regular file. Raises OSError, also if it is anything else."""
    with open(path, "rb", opener=_open_without_waiting) as file:
        _required(os.fstat(file.fileno()))
        return file.read()


def _required(found: os.stat_result) -> os.stat_result:
    if not stat.S_ISREG(found.st_mode):
        raise OSError("is not a regular file")
    return found


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)
