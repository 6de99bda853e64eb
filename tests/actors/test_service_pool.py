"""The pool of a service: concurrent calls, a bounded backlog, distinct failures, and reconnection."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import pytest

from actors.services import pool as pooling
from actors.services.pool import ServicePool
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceError, ServiceTimeout
from tests.actors.service_fakes import FakeServer, fake_spec
from tests.harness import eventually


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def make(server) -> Iterator[Callable[..., ServicePool]]:
    """Make a pool of connections to the server; it has begun to connect."""
    made: list[ServicePool] = []

    def one(**settings: Any) -> ServicePool:
        pool = ServicePool(fake_spec(**settings), server.connect)
        made.append(pool)
        pool.start()
        return pool

    yield one
    for pool in made:
        pool.close(0.0)
    assert server.open == []


def call(pool: ServicePool, operation: object, seconds: float = 5.0) -> Any:
    return pool.submit(operation, time.monotonic() + seconds).get(timeout=10)


def calls(pool: ServicePool, operation: object, count: int) -> list[Any]:
    return [pool.submit(operation, time.monotonic() + 5.0) for _ in range(count)]


def test_a_call_gets_its_result(make):
    pool = make()
    assert pool.wait(5) is None
    assert call(pool, "hello") == "hello"
    counts = pool.counts()
    assert (counts.is_up, counts.reason, counts.served, counts.in_use, counts.depth) == (True, "", 1, 0, 0)


def test_calls_that_come_before_the_first_connection_wait_for_it(make):
    pool = make()
    assert not pool.counts().is_up
    assert pool.counts().reason == "not connected yet"
    assert call(pool, "early") == "early"


def test_as_many_calls_overlap_as_there_are_connections_and_the_rest_wait(make, server):
    pool = make()
    waiting = calls(pool, "wait", 5)
    eventually(lambda: len(server.asked) == 2)
    assert (pool.counts().in_use, pool.counts().depth) == (2, 3)
    server.gate.set()
    assert [one.get(timeout=5) for one in waiting] == ["wait"] * 5
    assert (pool.counts().in_use, pool.counts().depth) == (0, 0)


def test_beyond_the_backlog_a_call_is_refused_at_once(make, server):
    pool = make()
    waiting = calls(pool, "wait", 5)
    with pytest.raises(ServiceBusy, match="service main: its 2 connections and the backlog are full"):
        call(pool, "one too many")
    assert pool.counts().busy == 1
    server.gate.set()
    assert [one.get(timeout=5) for one in waiting] == ["wait"] * 5
    assert call(pool, "again") == "again"


def test_without_a_backlog_there_is_one_call_a_connection(make, server):
    pool = make(backlog=0)
    calls(pool, "wait", 2)
    with pytest.raises(ServiceBusy):
        call(pool, "one too many")
    server.gate.set()
    eventually(lambda: pool.counts().served == 2)
    assert call(pool, "again") == "again"


def test_a_call_that_takes_too_long_ends_at_its_deadline_and_costs_its_connection(make, server):
    pool = make(connections=1)
    began = time.monotonic()
    with pytest.raises(ServiceTimeout, match=r"service main: no response within 0\.0\d s") as caught:
        call(pool, "wait", 0.05)
    assert 0.04 < time.monotonic() - began < 1
    assert caught.value.may_have_happened
    assert call(pool, "next") == "next"
    assert (pool.counts().timeouts, pool.counts().opened, server.closed) == (1, 2, 1)


def test_a_server_that_no_longer_responds_is_down_after_three_calls(make):
    pool = make(connections=8)
    for _ in range(2):
        with pytest.raises(ServiceTimeout):
            call(pool, "wait", 0.02)
    assert call(pool, "between") == "between"
    for is_up in (True, True, False):
        with pytest.raises(ServiceTimeout):
            call(pool, "wait", 0.02)
        gevent.sleep(0)
        eventually(lambda is_up=is_up: pool.counts().is_up == is_up)
    assert pool.counts().reason == "no response to the last 3 calls"
    assert call(pool, "again") == "again"
    assert pool.counts().is_up
    assert pool.counts().reason == ""


def test_the_services_own_timeout_bounds_a_callers(make):
    pool = make(timeout_seconds=0.05)
    with pytest.raises(ServiceTimeout):
        call(pool, "wait", 1000)


def test_a_call_is_not_started_after_its_deadline(make, server):
    pool = make(connections=1)
    first = pool.submit("wait", time.monotonic() + 5)
    second = pool.submit("late", time.monotonic() + 0.02)
    gevent.sleep(0.03)
    server.gate.set()
    assert first.get(timeout=5) == "wait"
    with pytest.raises(ServiceTimeout, match="before a connection was free") as caught:
        second.get(timeout=5)
    assert not caught.value.may_have_happened
    assert server.asked == ["wait"]


def test_what_the_service_refuses_costs_no_connection(make, server):
    pool = make()
    with pytest.raises(ServiceError, match="service main: no such thing") as caught:
        call(pool, "refuse")
    assert type(caught.value) is ServiceError
    assert (pool.counts().errors, server.closed) == (1, 0)


def test_a_connection_lost_during_a_call_is_replaced(make, server):
    pool = make(connections=1)
    with pytest.raises(ServiceDown, match="reset by peer") as caught:
        call(pool, "lose")
    assert caught.value.may_have_happened
    assert call(pool, "next") == "next"
    assert (pool.counts().down, pool.counts().is_up, server.closed) == (1, True, 1)


def test_a_fault_of_the_adapter_is_logged_and_costs_the_connection_alone(make, server, logged):
    pool = make(connections=1)
    with pytest.raises(ServiceError, match="str failed unexpectedly: ZeroDivisionError"):
        call(pool, "break")
    assert any(line.startswith("ERROR: service main: str failed unexpectedly") for line in logged)
    assert call(pool, "next") == "next"


def test_while_it_is_down_calls_fail_at_once_with_the_reason(make, server, logged):
    server.down = "connection refused"
    pool = make()
    assert pool.wait(5) == "connection refused"
    with pytest.raises(ServiceDown, match="service main: connection refused") as caught:
        call(pool, "hello")
    assert not caught.value.may_have_happened
    assert logged.count("WARNING: service main is down: connection refused\n") == 1
    counts = pool.counts()
    assert (counts.is_up, counts.reason, counts.down, counts.connected) == (False, "connection refused", 1, 0)


def test_calls_that_wait_when_it_turns_out_to_be_down_fail_too(make, server):
    server.down = "connection refused"
    pool = make()
    early = calls(pool, "hello", 3)
    for one in early:
        with pytest.raises(ServiceDown):
            one.get(timeout=5)
    assert pool.counts().depth == 0


def test_one_greenlet_retries_for_all_with_growing_waits(make, server, monkeypatch):
    waits: list[float] = []
    backoff = pooling._backoff

    def recorded(failures: int) -> float:
        waits.append(backoff(failures))
        return 0.0

    monkeypatch.setattr(pooling.random, "uniform", lambda low, high: 1.0)
    monkeypatch.setattr(pooling, "_backoff", recorded)
    server.down = "connection refused"
    pool = make(connections=5)
    eventually(lambda: len(waits) >= 9)
    assert waits[:9] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0])
    assert server.attempts <= 5 + len(waits)
    server.down = None
    eventually(lambda: pool.counts().connected == 5)
    assert pool.counts().is_up


def test_a_back_off_is_spread():
    assert len({pooling._backoff(3) for _ in range(20)}) > 10
    assert all(0.32 <= pooling._backoff(3) <= 0.48 for _ in range(100))
    assert pooling._backoff(10**9) <= 6.0


def test_few_calls_at_a_time_use_few_connections(make, server):
    pool = make(connections=4)
    eventually(lambda: pool.counts().connected == 4)
    used = []
    for connection in server.open:
        connection.call = lambda operation, connection=connection: used.append(connection)
    for number in range(20):
        call(pool, number)
    assert len(used) == 20
    assert len(set(used)) == 1


def test_it_comes_back_by_itself(make, server, logged):
    pool = make()
    assert pool.wait(5) is None
    server.fall("gone")
    with pytest.raises(ServiceDown):
        call(pool, "hello")
    assert not pool.counts().is_up, "as its calls go, whatever is still connected"
    eventually(lambda: pool.counts().connected == 0)
    server.down = None
    eventually(lambda: pool.counts().connected == 2)
    assert call(pool, "hello") == "hello"
    assert "INFO: service main is up again\n" in logged


def test_idle_connections_that_were_ended_are_noticed_without_a_call(make, server, monkeypatch):
    monkeypatch.setattr(pooling, "IDLE_SECONDS", 0.01)
    pool = make()
    eventually(lambda: pool.counts().connected == 2)
    server.fall("gone")
    eventually(lambda: pool.counts().reason == "gone")


def test_a_call_on_a_connection_that_was_ended_meanwhile_gets_a_fresh_one(make, server):
    pool = make(connections=1)
    assert call(pool, "hello") == "hello"
    server.open[0].has_ended = True
    assert call(pool, "hello") == "hello"
    assert (pool.counts().down, server.closed, pool.counts().opened) == (0, 1, 2)


def test_a_server_that_has_room_for_some_connections_only_serves_with_those(make, server, logged):
    server.room = 1
    pool = make(connections=3)
    assert pool.wait(5) is None
    assert [call(pool, number) for number in range(5)] == list(range(5))
    assert pool.counts().is_up
    assert any("one of 3 connections: too many connections" in line for line in logged)


def test_a_connection_that_does_not_come_about_is_given_up_in_time(make, server):
    server.is_slow_to_connect = True
    pool = make(connect_timeout_seconds=0.02)
    assert pool.wait(5) == "no connection within 0.02 s"


def test_waiting_for_an_unknown_state_times_out(make, server):
    server.is_slow_to_connect = True
    assert make().wait(0.01) == "no connection within 0.01 s"


def test_opening_that_breaks_is_logged_once_and_tried_again(server, logged, monkeypatch):
    monkeypatch.setattr(pooling, "FIRST_BACKOFF_SECONDS", 0.001)
    attempts: list[int] = []

    def broken() -> Any:
        attempts.append(1)
        raise ZeroDivisionError("a fault of the adapter")

    pool = ServicePool(fake_spec(), broken)
    pool.start()
    eventually(lambda: len(attempts) > 5)
    assert "opening a connection failed unexpectedly: ZeroDivisionError" in pool.counts().reason
    assert sum(line.startswith("ERROR: service main: opening a connection failed unexpectedly") for line in logged) <= 2
    pool.close(0.0)


def test_a_test_uses_a_connection_of_its_own(make, server):
    pool = make(connections=1)
    pool.submit("wait", time.monotonic() + 5)
    eventually(lambda: server.asked == ["wait"])
    assert 0 <= pool.test() < 1
    assert (len(server.open), pool.counts().opened) == (1, 1)
    server.down = "connection refused"
    with pytest.raises(ServiceDown, match="connection refused"):
        pool.test()
    server.gate.set()


def test_a_test_of_a_silent_service_times_out(server):
    server.is_slow_to_connect = True
    pool = ServicePool(fake_spec(timeout_seconds=0.01, connect_timeout_seconds=0.01), server.connect)
    with pytest.raises(ServiceDown, match=r"no response within 0\.02 s"):
        pool.test()


def test_closing_lets_calls_end_and_takes_no_more(make, server):
    pool = make(connections=1)
    accepted = calls(pool, "wait", 3)
    eventually(lambda: server.asked)
    closing = gevent.spawn(pool.close, 5.0)
    gevent.sleep(0)
    with pytest.raises(ServiceDown, match="it is being closed"):
        call(pool, "hello")
    server.gate.set()
    assert [one.get(timeout=5) for one in accepted] == ["wait"] * 3
    closing.get(timeout=5)
    assert server.open == []


def test_closing_has_an_end_though_calls_and_connections_do_not(make, server):
    pool = make(connections=1)
    accepted = calls(pool, "wait", 3)
    eventually(lambda: server.asked)
    server.down = "and it does not close"
    began = time.monotonic()
    pool.close(0.05)
    assert time.monotonic() - began < 0.05 + 2 * pooling.CLOSE_SECONDS + 0.5
    for one, was_begun in zip(accepted, (True, False, False), strict=True):
        with pytest.raises(ServiceDown) as caught:
            one.get(timeout=5)
        assert caught.value.may_have_happened == was_begun


def test_a_thousand_calls_each_get_one_result(make, server):
    pool = make(connections=8, backlog=1000)
    futures = [pool.submit(number, time.monotonic() + 10) for number in range(1000)]
    assert [one.get(timeout=10) for one in futures] == list(range(1000))
    assert sorted(server.asked) == list(range(1000))
    assert pool.counts().served == 1000


def test_a_greenlet_that_breaks_begins_again_with_a_fresh_connection(make, server, monkeypatch, logged):
    monkeypatch.setattr(pooling, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(pooling, "FIRST_BACKOFF_SECONDS", 0.001)
    pool = make(connections=1)
    eventually(lambda: server.open)
    broken = server.open[0]
    monkeypatch.setattr(broken, "is_stale", lambda: 1 / 0)
    eventually(lambda: server.open and server.open[0] is not broken)
    assert call(pool, "hello") == "hello"
    assert any("a greenlet of service main failed unexpectedly" in line for line in logged)


def test_a_test_that_breaks_is_a_service_that_is_down(server, logged, monkeypatch):
    monkeypatch.setattr(server, "connect", lambda: 1 / 0)
    with pytest.raises(ServiceDown, match="the test failed unexpectedly: ZeroDivisionError"):
        ServicePool(fake_spec(), server.connect).test()
    assert any("its test failed unexpectedly" in line for line in logged)


def test_a_callers_own_timeout_is_not_taken_for_the_services(server):
    server.is_slow_to_connect = True
    pool = ServicePool(fake_spec(), server.connect)
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        pool.test()
