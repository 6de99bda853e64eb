"""Which adapter has the routing database: a file is SQLite's, a URL is PostgreSQL's."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.config import DatabaseUrl
from app.outbound.peewee_backends import SqlBackendTable, SqliteBackendRepository, SqliteBackendStore
from app.outbound.postgres_backends import PostgresBackendRepository, PostgresBackendStore
from app.ports import BackendRepository


def open_repository(place: Path | DatabaseUrl, pause: Callable[[float], object] = time.sleep) -> BackendRepository:
    """Return what the edge reads; it connects when it is asked. `pause` is RowParser's."""
    if isinstance(place, Path):
        return SqliteBackendRepository(place, pause=pause)
    return PostgresBackendRepository(place, pause=pause)


def open_store(place: Path | DatabaseUrl) -> SqlBackendTable:
    """Open what commands and the admin API write, making the table if needed. Raises RepositoryError."""
    if isinstance(place, Path):
        return SqliteBackendStore(place)
    return PostgresBackendStore(place)
