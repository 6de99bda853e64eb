"""Translates errors of SQLite and the file system into RepositoryError, with their cause."""

from __future__ import annotations

import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path

import peewee

from app.ports import RepositoryError


class translated(AbstractContextManager[None]):
    """Translates errors of SQLite and the file system into RepositoryError."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if isinstance(error, FileNotFoundError):
            raise RepositoryError(f"{self._path} does not exist; create it with scripts/seed_backends.py") from None
        # peewee translates errors of executing but not of fetching, where damage to later rows may show.
        if isinstance(error, peewee.PeeweeException | sqlite3.Error | OSError):
            raise RepositoryError(f"{self._path}: {_root_cause(error)}") from None


def _root_cause(error: BaseException) -> BaseException:
    """Return the first error: on a full disk, SQLite rolls back first, and peewee's rollback then fails too."""
    while isinstance(error.__context__, peewee.PeeweeException | sqlite3.Error):
        error = error.__context__
    return error
