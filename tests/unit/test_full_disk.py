"""A full disk is told from other errors, for which a later attempt may succeed."""

from __future__ import annotations

import errno
import sqlite3

import pytest

from app.domain.model import parse_backend
from app.outbound.full_disk import is_disk_full
from app.outbound.peewee_backends import SqliteBackendStore
from app.ports import RepositoryError, RepositoryFull


def test_a_routing_database_that_cannot_grow_is_full_and_unchanged(tmp_path):
    many = [parse_backend({"id": f"b{number}", "wg_ip": "127.0.0.1", "port": 1}) for number in range(5000)]
    with SqliteBackendStore(tmp_path / "routing.db") as store:
        store._database.execute_sql("PRAGMA max_page_count = 20")
        with pytest.raises(RepositoryFull, match="database or disk is full"):
            store.save(many)
        store.save(many[:10])
        assert len(store.rows()) == 10


def test_a_locked_routing_database_is_not_full(tmp_path):
    with SqliteBackendStore(tmp_path / "routing.db") as store:
        store._database.execute_sql("PRAGMA busy_timeout = 0")
        other = sqlite3.connect(tmp_path / "routing.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(RepositoryError, match="locked") as caught:
            store.remove(["a"])
        assert not isinstance(caught.value, RepositoryFull)
        other.close()


def test_the_file_system_says_so_too():
    assert is_disk_full(OSError(errno.ENOSPC, "no space"))
    assert is_disk_full(OSError(errno.EDQUOT, "quota"))
    assert not is_disk_full(OSError(errno.EACCES, "no"))
