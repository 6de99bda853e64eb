"""The status file of the replica, `<routing database>.replica`: written by the replicator, read by the edge.

The freshness changes every second. It is stored outside the routing database, which therefore does not change while
the control plane is idle.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import msgspec

from app.outbound.regular_file import read_regular
from app.outbound.watched_thread import WatchedThread

TICK_SECONDS: Final = 0.5
"""Between two checks of the file by an edge."""
MAX_LISTED: Final = 20
"""Suspects and bad records listed; the counts include all."""
SILENCE_SECONDS: Final = 5.0
"""After this without a write, the replicator is dead, frozen, or blocked by the routing database."""


class ReplicaStatus(msgspec.Struct, frozen=True):
    """State of the replica. `contact_at` is the Unix time when it was last known to equal etcd; 0 = never."""

    revision: int = 0
    contact_at: float = 0.0
    endpoint: str = ""
    error: str | None = None
    """Why there is no contact at present."""
    is_held: bool = False
    """Whether etcd has never had backends, so that the backends in the database are kept."""
    records: int = 0
    suspect_count: int = 0
    suspects: list[str] = []
    bad_count: int = 0
    bad: list[str] = []

    def age_seconds(self) -> float | None:
        """Return the seconds since the last contact, None if there never was one."""
        return max(0.0, time.time() - self.contact_at) if self.contact_at else None


def replica_file(database: Path) -> Path:
    """Return the path of the status file of a routing database."""
    return database.with_name(database.name + ".replica")


def write_replica_status(path: Path, status: ReplicaStatus) -> None:
    """Replace the file. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(msgspec.json.encode(status) + b"\n")
    os.replace(fresh, path)


def read_replica_status(path: Path) -> ReplicaStatus | None:
    """Read the file. Returns None if it is absent or invalid."""
    try:
        return msgspec.json.decode(read_regular(path), type=ReplicaStatus)
    except (OSError, msgspec.MsgspecError):
        return None


class ReplicaWatcher:
    """Reads the status file for the edge. `current` is the status at the last check."""

    def __init__(self, database: Path) -> None:
        self._path = replica_file(database)
        self._thread = WatchedThread("status of the replica")
        self._written: float | None = None
        self._changed_at = time.monotonic()
        self.current: ReplicaStatus | None = None

    def check(self) -> None:
        """Read the file, off the event loop."""
        try:
            written, status = self._thread.run(_written_and_status, self._path)
        except TimeoutError as error:
            self.current = msgspec.structs.replace(self.current or ReplicaStatus(), error=f"{self._path}: {error}")
            return
        if written != self._written:
            self._written, self._changed_at = written, time.monotonic()
        elif status is not None and time.monotonic() - self._changed_at > SILENCE_SECONDS:
            status = msgspec.structs.replace(status, error=status.error or "the replicator has stopped reporting")
        self.current = status


def _written_and_status(path: Path) -> tuple[float | None, ReplicaStatus | None]:
    try:
        return path.stat().st_mtime, read_replica_status(path)
    except OSError:
        return None, None
