"""Databases behind service actors: the same calls have the same results in SQLite, PostgreSQL and MariaDB."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gevent
import pytest

from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.domain.services import ServiceSpec
from app.gateway.clients import Database, Execute, Query, ServiceError, ServiceTimeout
from app.outbound.service_connectors import connector
from tests.integration.service_peers import Mariadb, Peer, Postgresql, count_turns, running, sqlite_spec, start_up


@dataclass
class Dialect:
    """What differs between the databases."""

    mark: str
    slow: str
    """A query that takes a good part of a second."""


SQLITE_COUNTING = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT max(i) FROM n"
DIALECTS = {
    "sqlite": Dialect("?", SQLITE_COUNTING.format(1_500_000)),
    "postgresql": Dialect("%s", "SELECT pg_sleep(1)"),
    "mysql": Dialect("%s", "SELECT SLEEP(1)"),
}


@pytest.fixture(scope="module")
def peers() -> Iterator[dict[str, Peer]]:
    with running(Postgresql) as postgresql, running(Mariadb) as mariadb:
        yield {"postgresql": postgresql, "mysql": mariadb}


@pytest.fixture
def services() -> Iterator[Services]:
    supervisor = Supervisor(on_give_up=lambda name: None)
    every = Services(supervisor, connector)
    yield every
    every.stop_all(within_seconds=0.1)


class Shop:
    """A database with an empty table, and its client."""

    def __init__(self, spec: ServiceSpec, services: Services, dialect: Dialect) -> None:
        self.spec = spec
        self.dialect = dialect
        self.services = services
        start_up(services, spec)
        self.db = Database(spec.name, services.address("database", spec.name)[0], spec.timeout_seconds)
        self.db.execute("DROP TABLE IF EXISTS things")
        self.db.execute("CREATE TABLE things (name VARCHAR(40) PRIMARY KEY, price INTEGER)")

    def put(self, name: str, price: int | None) -> Execute:
        mark = self.dialect.mark
        return Execute(f"INSERT INTO things VALUES ({mark}, {mark})", (name, price))

    def names(self) -> list[str]:
        return [row["name"] for row in self.db.query("SELECT name FROM things ORDER BY name")]


@pytest.fixture(params=DIALECTS)
def shop(request, services, peers, tmp_path: Path) -> Shop:
    engine = request.param
    more = {"connections": 4, "timeout_seconds": 10.0, "max_rows": 100}
    spec = sqlite_spec(tmp_path, **more) if engine == "sqlite" else peers[engine].spec(**more)
    return Shop(spec, services, DIALECTS[engine])


def test_rows_come_as_dicts_and_changes_as_counts(shop):
    assert shop.db.execute(*shop.put("é'\"%s\\", 3)[:1], *shop.put("é'\"%s\\", 3)[1]) == 1
    assert shop.db.execute("INSERT INTO things VALUES ('b', NULL), ('c', 5)") == 2
    assert shop.db.query("SELECT name, price FROM things ORDER BY price DESC, name LIMIT 1 OFFSET 1") in (
        [{"name": "é'\"%s\\", "price": 3}],
        [{"name": "c", "price": 5}],  # PostgreSQL sorts NULL first
    )
    assert shop.db.query(f"SELECT price FROM things WHERE name = {shop.dialect.mark}", "é'\"%s\\") == [{"price": 3}]
    assert shop.db.query("SELECT price FROM things WHERE name LIKE 'b%'") == [{"price": None}]
    assert shop.db.query("SELECT * FROM things WHERE price > 100") == []
    assert shop.db.execute("DELETE FROM things") == 3


def test_a_transaction_happens_whole_or_not_at_all(shop):
    assert shop.db.transaction([shop.put("a", 1), Query("SELECT price FROM things"), shop.put("b", 2)]) == [
        1, [{"price": 1}], 1,
    ]  # fmt: skip
    with pytest.raises(ServiceError) as caught:
        shop.db.transaction([shop.put("c", 3), shop.put("a", 1)])
    assert type(caught.value) is ServiceError
    assert "main" in str(caught.value)
    assert shop.names() == ["a", "b"]
    assert shop.services.describe_one("main").counts.opened == 4, "no connection was lost over it"


def test_a_statement_refused_by_the_database_is_reported_and_the_connection_stays(shop):
    for statement in ("SELECT * FROM nowhere", "SELEKT 1", "INSERT INTO things VALUES ('x', 1), ('x', 1)"):
        with pytest.raises(ServiceError) as caught:
            shop.db.execute(statement)
        assert type(caught.value) is ServiceError
    with pytest.raises(ServiceError):
        shop.db.query(f"SELECT {shop.dialect.mark}", {})
    assert shop.names() == []
    counts = shop.services.describe_one("main").counts
    assert (counts.errors, counts.down, counts.is_up, counts.in_use, counts.depth) == (4, 0, True, 0, 0)


def test_a_transaction_begun_by_hand_is_refused_and_not_left_to_the_next(shop):
    for _ in range(8):
        with pytest.raises(ServiceError, match="must not leave a transaction open"):
            shop.db.execute("BEGIN")
    assert [shop.db.query("SELECT 1 AS one") for _ in range(8)] == [[{"one": 1}]] * 8


def test_a_result_with_too_many_rows_is_refused(shop):
    shop.db.transaction([shop.put(f"n{number:03}", number) for number in range(101)])
    with pytest.raises(ServiceError, match="more than 100 rows"):
        shop.db.query("SELECT * FROM things")
    assert len(shop.db.query("SELECT * FROM things WHERE price < 100")) == 100


def test_slow_queries_overlap_and_do_not_block_the_event_loop(shop):
    def one() -> float:
        began = time.monotonic()
        gevent.joinall([gevent.spawn(shop.db.query, shop.dialect.slow) for _ in range(count)], raise_error=True)
        return time.monotonic() - began

    count = 1
    alone = one()
    count = 4
    if shop.spec.engine == "sqlite":  # threads share the GIL and two cores: turns are counted, not time
        assert count_turns(one) > 10
    else:
        assert one() < 2 * alone


def test_a_query_that_takes_too_long_is_abandoned_and_its_connection_replaced(shop):
    began = time.monotonic()
    with pytest.raises(ServiceTimeout) as caught:
        shop.db.query(shop.dialect.slow, timeout=0.1)
    assert 0.1 <= time.monotonic() - began < 0.9
    assert caught.value.may_have_happened
    gevent.joinall([gevent.spawn(shop.names) for _ in range(20)], raise_error=True)
    counts = shop.services.describe_one("main").counts
    assert (counts.timeouts, counts.is_up) == (1, True)


def test_it_can_be_tested_without_disturbing_calls(shop):
    assert 0 < shop.services.test("main") < 5
    assert shop.services.describe_one("main").counts.opened == 4
