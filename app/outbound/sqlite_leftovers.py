"""Finds what an interrupted writer has left of another file: SQLite would mix it into the file that lies there now.

Nothing in a write-ahead log or a journal says to which file it belongs; only its name does
(https://www.sqlite.org/howtocorrupt.html, section 1.4).
"""

from __future__ import annotations

import os
from pathlib import Path


def left_over(database: Path, *, is_replaced: bool = False) -> Path | None:
    """Return the log or journal beside a database that seems to belong to another file, None without one.

    It was last written before the database was moved here: a rename sets a file's ctime, a write its mtime as well.
    Owner, mode and links set the ctime, too; `is_replaced` says that the file is known to be another than before.
    Raises OSError without a database.
    """
    here = os.stat(database)
    if not is_replaced and here.st_ctime_ns == here.st_mtime_ns:
        return None
    for ending in ("-wal", "-journal"):
        side = database.with_name(database.name + ending)
        try:
            found = os.stat(side)
        except FileNotFoundError:
            continue
        if found.st_size and found.st_ctime_ns < here.st_ctime_ns:
            return side
    return None


def warning_of(database: Path, left: Path) -> str:
    """Say what is wrong with a database and what was left beside it, and what to do."""
    others = f"{left} and {database.name}-shm" if left.name.endswith("-wal") else str(left)
    return (
        f"{database} was moved here, or changed its owner or mode, after {left.name} was written, and SQLite mixes the "
        f"two: if the latter belongs to another file, stop the writers and remove {others}; if it does not, touch it"
    )
