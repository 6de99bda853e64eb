"""Selects the adapter of the routing database: SQLite for a path, PostgreSQL for a URL."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.config import DatabaseUrl
from app.outbound.peewee_backends import SqlBackendTable, SqliteBackendRepository, SqliteBackendStore
from app.outbound.postgres_backends import PostgresBackendRepository, PostgresBackendStore
from app.ports import BackendRepository


def open_repository(location: Path | DatabaseUrl, pause: Callable[[float], object] = time.sleep) -> BackendRepository:
    """Return the repository that the edge reads. It connects on first use. `pause` is passed to RowParser."""
    if isinstance(location, Path):
        return SqliteBackendRepository(location, pause=pause)
    return PostgresBackendRepository(location, pause=pause)


def open_store(location: Path | DatabaseUrl) -> SqlBackendTable:
    """Open the store that commands and the admin API write. Creates the table if needed. Raises RepositoryError."""
    if isinstance(location, Path):
        return SqliteBackendStore(location)
    return PostgresBackendStore(location)
