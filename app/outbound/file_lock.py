"""A lock that one process holds as long as it lives, and that names its holder."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class Held(Exception):
    """Another process holds the lock; the argument says which."""


class FileLock:
    """A lock file beside what it protects. The kernel releases it with the process, however that ends (flock(2))."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1

    def take(self, holder: str) -> None:
        """Take the lock and write who holds it. Raises Held, OSError."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said = os.read(descriptor, 1000).decode(errors="replace").strip()
            os.close(descriptor)
            raise Held(said or "another process") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, holder.encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Release the lock, if it is held. The file stays: removing it would race with the next holder."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
