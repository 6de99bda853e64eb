"""The gateway's file: round trips from any thread, errors on damage and locks, and file permissions."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from loguru import logger

from app.domain.endpoints import Endpoint, parse_endpoint
from app.domain.stored import ServiceRow, StoreError
from app.outbound import peewee_gateway
from app.outbound.peewee_gateway import VERSIONS_KEPT, SqliteGatewayStore
from app.outbound.worker_thread import WorkerThread
from tests.harness import eventually

HELLO = Endpoint("hello", "hello", "/hello")
FULL = parse_endpoint(
    {
        "id": "full",
        "name": "Everything said",
        "path": "/users/<int:id>",
        "domain": "*.example.com",
        "methods": ["GET", "POST"],
        "timeout_seconds": 1.5,
        "max_concurrency": 0,
        "max_body_bytes": 7,
        "is_enabled": False,
    }
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteGatewayStore]:
    opened = SqliteGatewayStore(path)
    yield opened
    opened.close()


def reopened(store: SqliteGatewayStore, path: Path) -> SqliteGatewayStore:
    store.close()
    return SqliteGatewayStore(path)


def test_endpoints_are_kept_as_they_are(store, path):
    assert store.endpoints() == []
    assert store.create_endpoint(HELLO)
    assert store.create_endpoint(FULL)
    again = reopened(store, path)
    assert again.endpoints() == [(FULL, None), (HELLO, None)]
    again.close()


def test_an_id_is_taken_once(store):
    assert store.create_endpoint(HELLO)
    assert not store.create_endpoint(replace(HELLO, path="/other"))
    assert store.endpoints() == [(HELLO, None)]


def test_an_endpoint_changes_and_its_versions_stay(store):
    store.create_endpoint(HELLO)
    store.add_version("hello", "one")
    store.set_deployed("hello", 1, 5.0, [1])
    changed = replace(HELLO, path="/other", methods=("PUT",))
    assert store.update_endpoint(changed)
    assert store.endpoints() == [(changed, 1)]
    assert not store.update_endpoint(FULL)


def test_deleting_an_endpoint_deletes_only_its_versions(store):
    for endpoint in (HELLO, FULL):
        store.create_endpoint(endpoint)
        store.add_version(endpoint.id, endpoint.id)
    assert store.remove_endpoint("hello")
    assert not store.remove_endpoint("hello")
    assert (store.versions("hello"), len(store.versions("full"))) == ([], 1)
    assert store.version("hello", 1) is None


def test_versions_are_numbered_within_their_endpoint_and_checksummed(store):
    for endpoint in (HELLO, FULL):
        store.create_endpoint(endpoint)
    made = [store.add_version("hello", "grüß\n"), store.add_version("full", "x"), store.add_version("hello", "grüß\n")]
    assert [(one.endpoint_id, one.number) for one in made] == [("hello", 1), ("full", 1), ("hello", 2)]
    assert made[0].checksum == hashlib.sha256("grüß\n".encode()).hexdigest()
    assert store.version("hello", 1) == made[0]
    assert [(one.number, one.source, one.deployed_at) for one in store.versions("hello")] == [
        (1, "", None),
        (2, "", None),
    ]
    assert store.add_version("nobody", "x") is None
    assert store.version("hello", 9) is None


def test_the_deployed_version_is_stored(store):
    store.create_endpoint(HELLO)
    for source in ("one", "two"):
        store.add_version("hello", source)
    assert store.set_deployed("hello", 2, 7.0, [2])
    assert store.endpoints() == [(HELLO, 2)]
    assert [one.deployed_at for one in store.versions("hello")] == [None, 7.0]
    assert not store.set_deployed("hello", 9, 8.0, [9])
    assert not store.set_deployed("nobody", None, 8.0, [])
    assert store.set_deployed("hello", None, 9.0, [])
    assert store.endpoints() == [(HELLO, None)]
    assert store.versions("hello")[1].deployed_at == 7.0


def test_old_versions_go_but_for_the_deployed_one_and_numbers_are_never_used_again(store):
    store.create_endpoint(HELLO)
    for number in range(VERSIONS_KEPT + 5):
        store.add_version("hello", f"source {number}")
        if number == 1:
            store.set_deployed("hello", 2, 1.0, [2])
    assert [one.number for one in store.versions("hello")] == [2, *range(6, VERSIONS_KEPT + 6)]
    with sqlite3.connect(store._path) as database:
        database.execute("DELETE FROM versions WHERE number > 20")
    database.close()
    assert store.add_version("hello", "new").number == VERSIONS_KEPT + 6


def test_the_history_has_the_deployments_in_order_without_versions_that_are_gone(store, path):
    store.create_endpoint(HELLO)
    for number in range(1, VERSIONS_KEPT + 3):
        store.add_version("hello", f"source {number}")
    store.set_deployed("hello", 5, 1.0, [1, 2, 4, 5, 4, 5])
    again = reopened(store, path)
    assert again.history("hello") == [4, 5, 4, 5]
    again.set_deployed("hello", 5, 2.0, [4, 5] * VERSIONS_KEPT)
    assert again.history("hello") == [4, 5] * (VERSIONS_KEPT // 2)
    again.remove_endpoint("hello")
    assert again.history("hello") == []
    again.close()


def test_without_a_recorded_history_the_times_of_the_deployments_tell(store):
    store.create_endpoint(HELLO)
    for number, at in ((1, 3.0), (2, 5.0), (3, 4.0)):
        store.add_version("hello", f"source {number}")
        store.set_deployed("hello", number, at, [])
    store.add_version("hello", "never deployed")
    with sqlite3.connect(store._path) as database:
        database.execute("DELETE FROM deployments")
    database.close()
    assert store.history("hello") == [1, 3, 2]


def test_services(store, path):
    db = ServiceRow("main", "db", {"url": "postgresql://u:secret@h/d", "connections": 4})
    store.save_service(db)
    store.save_service(ServiceRow("cache", "cache", {}))
    store.save_service(db._replace(settings={"url": "other"}))
    again = reopened(store, path)
    assert again.services() == [ServiceRow("cache", "cache", {}), ServiceRow("main", "db", {"url": "other"})]
    assert again.remove_service("main")
    assert not again.remove_service("main")
    again.close()


def test_the_file_is_its_owners_alone(store, path):
    store.save_service(ServiceRow("main", "db", {"password": "secret"}))
    modes = {found.name: stat.S_IMODE(os.stat(found).st_mode) for found in path.parent.iterdir()}
    assert modes
    assert set(modes.values()) == {0o600}, modes


def test_tables_of_others_stay(path):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE theirs (x)")
        database.execute("INSERT INTO theirs VALUES (7)")
    database.close()
    store = SqliteGatewayStore(path)
    store.create_endpoint(HELLO)
    store.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT x FROM theirs").fetchall() == [(7,)]
    database.close()


def test_two_stores_of_two_files_do_not_mix(tmp_path):
    one, other = SqliteGatewayStore(tmp_path / "one.db"), SqliteGatewayStore(tmp_path / "other.db")
    one.create_endpoint(HELLO)
    assert (one.endpoints(), other.endpoints()) == ([(HELLO, None)], [])
    one.close()
    other.close()


def test_it_works_in_a_worker_thread(path):
    worker = WorkerThread()
    store = worker.run(SqliteGatewayStore, path)
    assert worker.run(store.create_endpoint, HELLO)
    assert worker.run(store.endpoints) == [(HELLO, None)]
    worker.run(store.close)


def test_a_file_that_is_none_of_ours_is_refused(path):
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StoreError, match=r"gateway\.db"):
        SqliteGatewayStore(path)


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StoreError):
        SqliteGatewayStore(tmp_path / "no" / "gateway.db")


def test_a_locked_file_is_an_error_and_nothing_is_changed(path, monkeypatch):
    monkeypatch.setattr(peewee_gateway, "BUSY_SECONDS", 0)
    store = SqliteGatewayStore(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked"):
        store.create_endpoint(HELLO)
    other.execute("ROLLBACK")
    other.close()
    assert store.endpoints() == []
    assert store.create_endpoint(HELLO)
    store.close()


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE endpoints SET path = 'nowhere'",
        "UPDATE endpoints SET methods = 'FETCH'",
        "UPDATE endpoints SET timeout_seconds = 'soon'",
    ],
)
def test_a_damaged_row_is_left_out_and_named(store, path, damage):
    store.create_endpoint(HELLO)
    assert store.damaged() == {}
    with sqlite3.connect(path) as database:
        database.execute(damage)
    database.close()
    assert store.endpoints() == []
    assert list(store.damaged()) == [f"endpoint {HELLO.id}"]


def test_a_lost_table_is_an_error(store, path):
    with sqlite3.connect(path) as database:
        database.execute("DROP TABLE endpoints")
    database.close()
    with pytest.raises(StoreError):
        store.endpoints()


def test_damaged_settings_are_left_out_and_named(store, path):
    store.save_service(ServiceRow("main", "db", {}))
    for damage in ("[]", "{"):
        with sqlite3.connect(path) as database:
            database.execute("UPDATE services SET settings = ?", [damage])
        database.close()
        assert store.services() == []
        assert list(store.damaged()) == ["service main"]


def test_a_log_that_belongs_to_another_file_is_warned_about(path: Path, tmp_path: Path) -> None:
    store = SqliteGatewayStore(path)
    other = tmp_path / "other.db"
    SqliteGatewayStore(other).close()
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    store.create_endpoint(HELLO)
    log = tmp_path / "gateway.db-wal"
    eventually(lambda: time.time_ns() > log.stat().st_ctime_ns + 20_000_000)
    other.replace(path)
    SqliteGatewayStore(path).close()
    store.close()
    logger.remove(sink)
    assert len(lines) == 1
    assert "gateway.db-wal" in lines[0]
