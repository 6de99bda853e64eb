"""Two edges in one program share no state: each writes its own databases and counts its own errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from actors.runtime import Request, ask
from app.domain.tokens import Scope, Token
from app.outbound.peewee_backends import SqliteBackendStore
from app.outbound.peewee_tokens import SqliteTokenStore
from tests.admin_client import Admin, admin_variables
from tests.edge_in_process import EdgeInside, edge_in_process
from tests.harness import PATIENCE_SECONDS
from tests.unit.pools import backend

NAMES = ("one", "other")
BACKENDS = 20


class Unknown(Request[None], frozen=True):
    """A message that no actor understands."""


@pytest.fixture
def edges(tmp_path: Path) -> Iterator[list[EdgeInside]]:
    folders = [tmp_path / name for name in NAMES]
    for folder in folders:
        folder.mkdir()
    with (
        edge_in_process(folders[0], [], **admin_variables(folders[0])) as one,
        edge_in_process(folders[1], [], **admin_variables(folders[1])) as other,
    ):
        yield [one, other]


def errors(edge: EdgeInside) -> dict[str, float]:
    return {name: value for name, value in edge.metrics().items() if "internal_errors" in name}


@pytest.mark.parametrize("failing", [0, 1], ids=NAMES)
def test_a_failed_message_is_counted_at_its_own_edge(edges, failing):
    with pytest.raises(RuntimeError):
        ask(edges[failing].actor("health"), Unknown(), timeout_s=PATIENCE_SECONDS)
    assert errors(edges[failing]) == {'edgeproxy_internal_errors_total{where="HealthActor"}': 1.0}
    assert errors(edges[1 - failing]) == {}


def test_the_survivor_still_counts_after_the_other_edge_has_stopped(tmp_path):
    (tmp_path / "other").mkdir()
    with edge_in_process(tmp_path, []) as survivor:
        with edge_in_process(tmp_path / "other", []):
            pass
        with pytest.raises(RuntimeError):
            ask(survivor.actor("registry"), Unknown(), timeout_s=PATIENCE_SECONDS)
        assert errors(survivor) == {'edgeproxy_internal_errors_total{where="RegistryActor"}': 1.0}


def test_backends_and_tokens_added_at_once_are_each_in_the_database_of_their_edge(edges, tmp_path):
    def add(edge: EdgeInside, name: str) -> None:
        address = edge.parts.admin.address
        admin = Admin((address.host, address.port), (tmp_path / name / "admin.token").read_text().strip())
        for number in range(BACKENDS):
            body = {"id": f"{name}.{number}", "wg_ip": "127.0.0.1", "port": 1}
            assert admin.call("POST", "/api/backends", body).status == 201
            admin.bearer(f"{name}.{number}", "read")

    gevent.joinall([gevent.spawn(add, edge, name) for edge, name in zip(edges, NAMES, strict=True)], raise_error=True)
    for name in NAMES:
        assert ids(tmp_path / name / "inside.db", "SELECT id FROM backends") == {name}
        assert ids(tmp_path / name / "gateway.db", "SELECT name FROM tokens WHERE name != 'first'") == {name}


def ids(database: Path, query: str) -> set[str]:
    """Return which edge the rows say that they are of; each must have written all of its own."""
    with sqlite3.connect(database) as connection:
        found = [text.split(".")[0] for (text,) in connection.execute(query)]
    connection.close()
    assert len(found) == BACKENDS
    return set(found)


def test_two_open_stores_write_each_to_its_own_file(tmp_path):
    with SqliteBackendStore(tmp_path / "one.db") as one, SqliteBackendStore(tmp_path / "other.db") as other:
        one.save([backend("a")])
        other.insert(backend("b"))
        one.drain(["a"], None)
        assert [row["id"] for row in one.rows()] == ["a"]
        assert [row["id"] for row in other.rows()] == ["b"]


def test_two_token_stores_write_each_to_its_own_file(tmp_path):
    stores = [SqliteTokenStore(tmp_path / name) for name in NAMES]

    def add(store: SqliteTokenStore, name: str) -> None:
        for number in range(BACKENDS):
            store.add(Token(f"{name}.{number}", f"{name}.{number}", frozenset({Scope.READ}), 0.0))

    pool = gevent.get_hub().threadpool
    for done in [pool.spawn(add, store, name) for store, name in zip(stores, NAMES, strict=True)]:
        done.get(timeout=PATIENCE_SECONDS)
    for store, name in zip(stores, NAMES, strict=True):
        assert {token.name.split(".")[0] for token in store.load()} == {name}
        assert len(store.load()) == BACKENDS
