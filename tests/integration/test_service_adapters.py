"""The adapters without a pool: errors for operations and servers of another kind."""

from __future__ import annotations

import os
from collections.abc import Iterator

import gevent
import pytest

from app.domain.service_calls import CacheGet, Execute, GetObject, HeadObject, Ping, PutObject, Query, SendEmail
from app.domain.service_errors import ConnectionLost, OperationRefused
from app.domain.services import parse_service
from app.outbound.service_connectors import connector
from tests.harness import eventually
from tests.integration.service_peers import (
    S3,
    Mail,
    Mariadb,
    Memcached,
    Peer,
    Postgresql,
    Redis,
    running,
    sqlite_spec,
)
from tests.traffic import free_ports


@pytest.fixture(scope="module", params=[Postgresql, Mariadb, Redis, Memcached, S3, Mail], ids=lambda make: make.engine)
def peer(request) -> Iterator[Peer]:
    with running(request.param) as one:
        yield one


def test_an_operation_of_another_kind_is_refused_and_the_connection_stays(peer):
    connection = connector(peer.spec())()
    operation = CacheGet("x") if peer.kind != "cache" else Query("SELECT 1")
    with pytest.raises(OperationRefused, match="does not support"):
        connection.call(operation)
    assert connection.call(Ping()) is None
    assert not connection.is_stale()
    connection.close()
    connection.close()


def test_a_server_that_ends_during_a_call_is_a_lost_connection(peer):
    connection = connector(peer.spec())()
    peer.kill()
    operation = {
        "database": Query("SELECT 1"), "cache": CacheGet("x"), "storage": HeadObject("x"),
        "email": SendEmail(("a@example.com",), "x", "y"),
    }[peer.kind]  # fmt: skip
    with pytest.raises(ConnectionLost):
        connection.call(operation)
    connection.close()
    with pytest.raises(ConnectionLost):
        connector(peer.spec())()
    peer.start()


def test_a_wrong_password_is_a_connection_that_cannot_be_opened(peer):
    if peer.engine in ("memcached", "s3"):
        pytest.skip("asks for none here")
    with pytest.raises(ConnectionLost) as caught:
        connector(peer.spec(password="open sesame"))()
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_absent_server_is_a_lost_connection(peer, host):
    settings = peer.spec().stored()["settings"]
    (port,) = free_ports(1)
    where = {"endpoint": f"http://{host}:{port}"} if peer.engine == "s3" else {"host": host, "port": port}
    spec = parse_service({"name": "main", "kind": peer.kind, "settings": {**settings, **where}})
    with pytest.raises(ConnectionLost):
        connector(spec)()


def test_exceptions_thrown_into_a_call_pass_through(peer):
    if peer.engine == "smtp":
        pytest.skip("the same code as the others'")
    connection = connector(peer.spec())()
    operation = {"database": Query("SELECT 1"), "cache": CacheGet("x"), "storage": GetObject("x")}[peer.kind]
    peer.freeze()
    try:
        with pytest.raises(gevent.Timeout), gevent.Timeout(0.1):
            connection.call(operation)
        connection.close()
    finally:
        peer.thaw()


def test_a_statement_without_rows_has_none_and_one_with_many_comes_whole_or_is_refused(peer):
    if peer.kind != "database":
        pytest.skip("no database")
    connection = connector(peer.spec(max_rows=1000))()
    assert connection.call(Query("SET TIME ZONE 'UTC'" if peer.engine == "postgresql" else "SET @x = 1")) == []
    many = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"
    if peer.engine == "mysql":
        connection.call(Execute("SET SESSION max_recursive_iterations = 10000"))
    assert connection.call(Query(many.format(1000))) == [{"i": number} for number in range(1, 1001)]
    with pytest.raises(OperationRefused, match="more than 1000 rows"):
        connection.call(Query(many.format(3000)))
    assert connection.is_stale() == (peer.engine == "mysql"), "PyMySQL would have to read the rest"
    connection.close()


def test_a_key_that_cannot_be_one_is_refused(peer):
    if peer.kind != "storage":
        pytest.skip("no storage")
    connection = connector(peer.spec())()
    for operation in (GetObject(""), PutObject("x", b"", "text/plain\r\nX-Evil: 1")):
        with pytest.raises(OperationRefused):
            connection.call(operation)
    connection.close()


def test_an_sqlite_file_that_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(ConnectionLost, match="no/such/folder"):
        connector(sqlite_spec(tmp_path, path=str(tmp_path / "no/such/folder/shop.db")))()
    (tmp_path / "shop.db").write_bytes(b"this is no database" * 1000)
    with pytest.raises(ConnectionLost, match="not a database"):
        connector(sqlite_spec(tmp_path))()


def test_the_thread_of_an_sqlite_connection_ends_with_it(tmp_path):
    def threads() -> int:
        return len(os.listdir("/proc/self/task"))

    before = threads()
    for _ in range(5):
        connection = connector(sqlite_spec(tmp_path))()
        with pytest.raises(OperationRefused, match="does not support"):
            connection.call(CacheGet("x"))
        connection.close()
    eventually(lambda: threads() <= before)
