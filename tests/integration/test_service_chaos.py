"""Services that are killed, frozen and restarted under load: calls fail quickly with a reason, and service resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.gateway.clients import ServiceClients, ServiceDown, ServiceError, ServiceTimeout
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
    start_up,
)

CALLS: dict[type[Peer], Callable[[Any], object]] = {
    Postgresql: lambda db: db.query("SELECT 1"),
    Mariadb: lambda db: db.query("SELECT 1"),
    Redis: lambda cache: cache.incr("n"),
    Memcached: lambda cache: cache.incr("n"),
    S3: lambda storage: storage.put("n", b"n"),
    Mail: lambda email: email.send("ann@example.com", "x", "y"),
}
"""A short call for each kind."""
SLOW: dict[type[Peer], Callable[[Any], object]] = {
    Postgresql: lambda db: db.query("SELECT pg_sleep(20)"),
    Mariadb: lambda db: db.query("SELECT SLEEP(20)"),
}


@pytest.fixture
def services() -> Iterator[Services]:
    every = Services(Supervisor(on_give_up=lambda name: None), connector)
    yield every
    every.stop_all(within_seconds=0.1)


def client_of(services: Services, kind: str, name: str) -> Any:
    return ServiceClients(services.address).get(kind, name)


@pytest.mark.parametrize("make", CALLS, ids=lambda make: make.engine)
def test_a_server_is_killed_and_comes_back(services, make):
    call = CALLS[make]
    with running(make) as peer:
        start_up(services, peer.spec(connections=3, timeout_seconds=5.0))
        client = client_of(services, peer.kind, "main")
        call(client)
        peer.kill()
        with pytest.raises(ServiceDown) as caught:
            call(client)
        assert caught.value.may_have_happened == (make is S3), "the end is seen before the call is sent"
        if make is S3:  # its client connects only for a call
            for _ in range(2):
                with pytest.raises(ServiceDown):
                    call(client)
        eventually(lambda: not services.describe_one("main").counts.is_up)
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(ServiceDown, match="service main: "):
                call(client)
        assert time.monotonic() - began < 0.5, "while it is down nobody waits"
        peer.start()
        eventually(lambda: services.describe_one("main").counts.is_up)
        call(client)
        eventually(lambda: services.describe_one("main").counts.connected == 3)


@pytest.mark.parametrize("make", [Postgresql, Mariadb], ids=lambda make: make.engine)
def test_a_server_is_killed_in_the_middle_of_queries(services, make):
    with running(make) as peer:
        start_up(services, peer.spec(connections=3, timeout_seconds=30.0))
        db = client_of(services, "database", "main")
        asking = [gevent.spawn(SLOW[make], db) for _ in range(5)]
        eventually(lambda: services.describe_one("main").counts.depth == 2)
        began = time.monotonic()
        peer.kill()
        gevent.joinall(asking, timeout=10)
        assert time.monotonic() - began < 2
        errors = [one.exception for one in asking]
        assert all(isinstance(error, ServiceDown) for error in errors), errors
        assert sorted(error.may_have_happened for error in errors) == [False, False, True, True, True]


@pytest.mark.parametrize("make", CALLS, ids=lambda make: make.engine)
def test_a_server_freezes_and_thaws(services, make):
    call = CALLS[make]
    with running(make) as peer:
        start_up(services, peer.spec(connections=2, timeout_seconds=0.3, connect_timeout_seconds=0.3))
        client = client_of(services, peer.kind, "main")
        call(client)
        peer.freeze()
        with pytest.raises(ServiceTimeout):
            call(client)
        failing = [gevent.spawn(call, client) for _ in range(10)]
        gevent.joinall(failing, timeout=10)
        assert all(isinstance(one.exception, ServiceError) for one in failing)
        eventually(lambda: not services.describe_one("main").counts.is_up)
        began = time.monotonic()
        with pytest.raises(ServiceDown, match=r"no connection within 0\.3 s"):
            call(client)
        assert time.monotonic() - began < 0.1
        peer.thaw()
        eventually(lambda: services.describe_one("main").counts.connected == 2)
        call(client)


@pytest.mark.parametrize("make", [Postgresql, Mariadb, Redis, Memcached, Mail], ids=lambda make: make.engine)
def test_a_restart_of_an_idle_server_fails_no_call(services, make):
    call = CALLS[make]
    with running(make) as peer:
        start_up(services, peer.spec(connections=3))
        client = client_of(services, peer.kind, "main")
        call(client)
        peer.kill()
        peer.start()
        eventually(lambda: services.describe_one("main").counts.is_up, what="a pool that saw it down opens again")
        for _ in range(6):
            call(client)
        counts = services.describe_one("main").counts
        assert (counts.down, counts.timeouts, counts.errors) == (0, 0, 0)


def test_a_service_that_is_down_does_not_affect_others(services, tmp_path):
    with running(Redis) as redis:
        start_up(services, redis.spec("sessions"))
        start_up(services, sqlite_spec(tmp_path, "shop"))
        cache, db = client_of(services, "cache", "sessions"), client_of(services, "database", "shop")
        redis.freeze()
        stuck = [gevent.spawn(cache.get, "x") for _ in range(100)]
        for _ in range(20):
            began = time.monotonic()
            assert db.query("SELECT 1 AS one") == [{"one": 1}]
            assert time.monotonic() - began < 0.5
        assert not any(one.ready() for one in stuck)
        redis.thaw()
        gevent.joinall(stuck, timeout=10, raise_error=True)


def test_an_abandoned_query_ends_on_the_server_too(services):
    with running(Postgresql) as peer:
        start_up(services, peer.spec(connections=1, timeout_seconds=0.5))
        start_up(services, peer.spec("other"))
        with pytest.raises(ServiceTimeout):
            client_of(services, "database", "main").query("SELECT pg_sleep(20)", timeout=0.2)
        other = client_of(services, "database", "other")
        sleeping = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'"
        assert other.query(sleeping)
        eventually(lambda: not other.query(sleeping))
