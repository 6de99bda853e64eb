"""Says why SQLite or the file system failed, and translates their errors into RepositoryError or StoreError."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import peewee

from app.domain.stored import StoreError, StoreFull, StoreLocked
from app.outbound.full_disk import is_disk_full
from app.ports import RepositoryError, RepositoryFull

_MAY_NOT: Final = ("SQLITE_READONLY", "SQLITE_CANTOPEN")
"""SQLite says "attempt to write a readonly database" and "unable to open database file", whatever the cause."""
_LOCKED: Final = ("SQLITE_BUSY", "SQLITE_LOCKED")
_READ_VERSION: Final = 19
"""Offset in the file's header. https://www.sqlite.org/fileformat.html, section 1.3.3."""
_WAL: Final = 2


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
            kind = RepositoryFull if is_disk_full(error) else RepositoryError
            raise kind(f"{self._path}: {cause_of(error, self._path)}") from None


def store_error(error: Exception, path: Path) -> StoreError:
    """Return the error of the gateway's store at `path` for one of SQLite or the file system."""
    kind = StoreFull if is_disk_full(error) else StoreLocked if _is_locked(error) else StoreError
    return kind(f"{path}: {cause_of(error, path)}")


def _is_locked(error: Exception) -> bool:
    return getattr(_first_of(error), "sqlite_errorname", "").startswith(_LOCKED)


def cause_of(error: Exception, path: Path) -> str:
    """Return why a call on the database at `path` failed; SQLite's own text where that says it."""
    first = _first_of(error)
    if isinstance(first, OSError):
        return first.strerror or str(first)
    name = getattr(first, "sqlite_errorname", "")
    if name == "SQLITE_READONLY_ROLLBACK":
        return (
            "a writer was interrupted within a change, which only a user who may write the file can undo: "
            f"python -m app backends --db {path} list"
        )
    return (name.startswith(_MAY_NOT) and _missing_right(path)) or str(first)


def _first_of(error: BaseException) -> BaseException:
    """Return the first error: on a full disk, SQLite rolls back first, and peewee's rollback then fails too."""
    while isinstance(error.__context__, peewee.PeeweeException | sqlite3.Error):
        error = error.__context__
    return error


def _missing_right(path: Path) -> str:
    """Return what this user may not do with the file, or what is missing; empty if nothing is."""
    folder = path.absolute().parent
    if not folder.is_dir():
        return f"there is no folder {folder}"
    if path.exists() and not os.access(path, os.R_OK):
        return "this user may not read it"
    if not os.access(folder, os.W_OK):
        return _in_wal_mode(path, folder) or f"this user may not write in {folder}"
    return "" if os.access(path, os.W_OK) else "this user may not write it"


def _in_wal_mode(path: Path, folder: Path) -> str:
    """https://www.sqlite.org/wal.html, section 4: readers need the -shm file, which the first of them creates."""
    try:
        with path.open("rb") as file:
            header = file.read(_READ_VERSION + 1)
    except OSError:
        return ""
    if header[_READ_VERSION:] != bytes([_WAL]):
        return ""
    return (
        f"is in WAL mode, in which SQLite makes files beside it even to read, and this user may not write in {folder}: "
        f"allow that, or end WAL mode by sqlite3 {path} 'PRAGMA journal_mode = delete'"
    )
