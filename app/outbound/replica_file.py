"""The replica's status file, `<routing database>.replica`: written by the replicator, read by the edge.

How fresh the replica is changes every second. It stands beside the routing database and not in it, so that a quiet
control plane leaves that alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

import msgspec

from app.outbound.worker_thread import WorkerThread

TICK_SECONDS: Final = 0.5
"""Between looks of an edge at the file."""
MOST_NAMED: Final = 20
"""Suspects and bad records named; the counts say how many there are."""
SILENT_SECONDS: Final = 5.0
"""A replicator that has not written the file for so long is dead, frozen, or held up by the routing database."""


class ReplicaStatus(msgspec.Struct, frozen=True):
    """How the replica is. `contact_at` is Unix seconds at which it was last known to be as etcd has it; 0 = never."""

    revision: int = 0
    contact_at: float = 0.0
    endpoint: str = ""
    error: str | None = None
    """Why there is no contact now."""
    is_held: bool = False
    """etcd has no backends and never had for us, so what was here before stays."""
    records: int = 0
    suspect_count: int = 0
    suspects: list[str] = []
    bad_count: int = 0
    bad: list[str] = []

    def age_seconds(self) -> float | None:
        """Return for how long nothing is known of changes, None when there never was contact."""
        return max(0.0, time.time() - self.contact_at) if self.contact_at else None


def replica_file(database: Path) -> Path:
    """Return where the status of a routing database is."""
    return database.with_name(database.name + ".replica")


def write_replica_status(path: Path, status: ReplicaStatus) -> None:
    """Replace the file. Raises OSError."""
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_bytes(msgspec.json.encode(status) + b"\n")
    os.replace(fresh, path)


def read_replica_status(path: Path) -> ReplicaStatus | None:
    """Return what the file says, None when there is none or it says nothing sensible."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=ReplicaStatus)
    except (OSError, msgspec.MsgspecError):
        return None


class ReplicaWatch:
    """What the edge knows of the replicator: the status file as it was when looked at last."""

    def __init__(self, database: Path) -> None:
        self._path = replica_file(database)
        self._thread = WorkerThread()
        self._written: float | None = None
        self._changed_at = time.monotonic()
        self.current: ReplicaStatus | None = None

    def look(self) -> None:
        """Read the file, off the event loop."""
        written, status = self._thread.run(_written_and_status, self._path)
        if written != self._written:
            self._written, self._changed_at = written, time.monotonic()
        elif status is not None and time.monotonic() - self._changed_at > SILENT_SECONDS:
            status = msgspec.structs.replace(status, error=status.error or "the replicator says nothing any more")
        self.current = status


def _written_and_status(path: Path) -> tuple[float | None, ReplicaStatus | None]:
    try:
        return path.stat().st_mtime, read_replica_status(path)
    except OSError:
        return None, None
