"""The table of open connections: counts, leases, bytes since the last report, successes of backends, timeouts."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import gevent
import pytest

from app.domain.client import Client
from app.domain.errors import Killed
from app.domain.model import Lease
from app.domain.outcome import Affinity, State
from app.inbound.connections import SWEPT_AT_ONCE, Connection, Connections
from app.inbound.frontend import LiveFrontend, OpenFrontend
from tests.unit.pools import backend

IDLE_SECONDS, LINGER_SECONDS = 100.0, 10.0


class Relay:
    """The progress of a connection, as the table reads it."""

    def __init__(self, bytes_up: int = 0, bytes_down: int = 0) -> None:
        self.bytes_up, self.bytes_down = bytes_up, bytes_down
        self.is_half_closed = self.awaits_client = False

    def unacknowledged(self) -> int:
        return 0

    def keep_alive(self) -> None: ...

    def notice_reset(self) -> None: ...


class Frontend:
    """The parts of a frontend that the table uses; `succeeded` are the leases with a reported success."""

    def __init__(self, name: str, pool: str) -> None:
        self.succeeded: list[Lease] = []
        tcp = SimpleNamespace(idle_timeout_seconds=IDLE_SECONDS, linger_timeout_seconds=LINGER_SECONDS)
        self.config = SimpleNamespace(name=name, tcp=tcp)
        self.service = SimpleNamespace(route=SimpleNamespace(pool=pool), traffic_succeeded=self.succeeded.append)


def live_frontend_of(name: str, pool: str) -> LiveFrontend:
    return LiveFrontend(cast(OpenFrontend, Frontend(name, pool)))


def succeeded(live: LiveFrontend) -> list[Lease]:
    return cast(Frontend, live.current).succeeded


WEB, API = live_frontend_of("web", "big"), live_frontend_of("api", "big")


@pytest.fixture(autouse=True)
def nothing_reported() -> None:
    for live in (WEB, API):
        succeeded(live).clear()


class Ended:
    """Replaces a connection's greenlet and records the exceptions thrown."""

    def __init__(self) -> None:
        self.states: list[State] = []

    def throw(self, killed: Killed) -> None:
        self.states.append(killed.state)


class Open:
    """A table with connections added by the test."""

    def __init__(self) -> None:
        self.table = Connections()
        self._lease_id = 0

    def connect(
        self, live: LiveFrontend = WEB, to: str | None = "a", relay: Relay | None = None, admission: int = 0
    ) -> Connection:
        connection = Connection(Ended(), live, ("192.0.2.1", 1234), "127.0.0.1:80", accepted_at=0.0)
        connection.client = connection.admitted = Client("192.0.2.1", "big 192.0.2.1", None)
        connection.admission = admission
        if not admission:
            connection.admitted = None
        if to is not None:
            self._lease_id += 1
            lease = Lease(self._lease_id, backend(to), None, Affinity.NEW, is_spotless=False)
            connection.lease = connection.last_lease = lease
        connection.progress = relay
        self.table.add(connection)
        return connection


@pytest.fixture
def opened() -> Open:
    return Open()


def states(connection: Connection) -> list[State]:
    """Return how a connection was ended, after a turn of the loop."""
    gevent.sleep(0)
    return cast(Ended, connection.greenlet).states


# Counts and leases


def test_connections_are_counted_open_and_accepted_by_frontend(opened: Open) -> None:
    first, _second, _other = opened.connect(), opened.connect(), opened.connect(API)
    opened.table.remove(first)
    assert (len(opened.table), dict(opened.table.open_at)) == (2, {"web": 1, "api": 1})
    assert opened.table.totals()[0] == {"web": 2, "api": 1}
    opened.table.forget_totals()
    opened.connect(API)
    assert opened.table.totals()[0] == {"api": 1}
    assert dict(opened.table.open_at) == {"web": 1, "api": 2}


def test_leases_held_now_are_listed_with_their_pool(opened: Open) -> None:
    opened.connect(to="a")
    opened.connect(live_frontend_of("old", "small"), to="b")
    opened.connect(to=None)
    opened.connect(to="c").lease = None
    assert sorted(opened.table.leases()) == [("big", 1, backend("a")), ("small", 2, backend("b"))]


def test_admissions_are_listed_by_frontend(opened: Open) -> None:
    opened.connect(WEB, admission=7)
    opened.connect(API, admission=8)
    opened.connect(WEB)
    assert opened.table.admissions("web") == [("big 192.0.2.1", 7)]
    assert opened.table.admissions("none") == []


def test_a_replaced_frontend_is_listed_while_it_has_connections(opened: Open) -> None:
    live = live_frontend_of("web", "big")
    old, new = live.current, live_frontend_of("web", "big").current
    inside = opened.connect(live)
    live.current = new
    newcomer = opened.connect(live)
    assert opened.table.frontends() == {old, new}
    opened.table.remove(inside)
    assert opened.table.frontends() == {new}
    opened.table.remove(newcomer)
    assert opened.table.frontends() == set()


def test_only_connections_to_these_backends_of_this_pool_are_ended(opened: Open) -> None:
    elsewhere = live_frontend_of("old", "small")
    one, two = opened.connect(WEB, "a"), opened.connect(API, "a")
    others = [opened.connect(WEB, "b"), opened.connect(elsewhere, "a"), opened.connect(WEB, None)]
    assert opened.table.end_backends("big", {"a", "c"}, "drain_deadline") == {"a": 2}
    assert [states(one), states(two)] == [[State.KILLED]] * 2
    assert [states(other) for other in others] == [[]] * 3


def test_a_connection_that_has_ended_meanwhile_is_not_ended_again(opened: Open) -> None:
    one = opened.connect()
    opened.table.end_all("drain_timeout")
    opened.table.remove(one)
    assert states(one) == []


# Bytes


def test_bytes_are_counted_by_pool_and_backend_each_byte_once(opened: Open) -> None:
    one, two = Relay(bytes_up=10, bytes_down=100), Relay(bytes_up=1, bytes_down=2)
    opened.connect(WEB, "a", one)
    opened.connect(API, "a", two)
    leaving = opened.connect(live_frontend_of("old", "small"), "a", Relay(bytes_up=5))
    opened.table.sweep(now=1.0)
    opened.table.sweep(now=2.0)
    opened.table.remove(leaving)
    assert opened.table.totals()[1] == {("big", "a"): (102, 11), ("small", "a"): (0, 5)}
    opened.table.forget_totals()
    one.bytes_down += 50
    opened.table.sweep(now=3.0)
    assert opened.table.totals()[1] == {("big", "a"): (50, 0)}


def test_bytes_after_the_last_sweep_are_counted_at_the_end_of_the_connection(opened: Open) -> None:
    relay = Relay()
    one = opened.connect(relay=relay)
    opened.table.sweep(now=1.0)
    relay.bytes_up, relay.bytes_down = 3, 4
    opened.table.remove(one)
    assert opened.table.totals()[1] == {("big", "a"): (4, 3)}


# Success


def test_a_success_is_reported_once_after_the_first_byte_of_the_backend(opened: Open) -> None:
    relay = Relay()
    one = opened.connect(relay=relay)
    opened.table.sweep(now=1.0)
    relay.bytes_up = 1000
    opened.table.sweep(now=2.0)
    one.report_success()
    assert succeeded(WEB) == [], "connected, and what a client sends is no merit of the backend"
    relay.bytes_down = 1
    opened.table.sweep(now=3.0)
    relay.bytes_down = 2
    opened.table.sweep(now=4.0)
    one.report_success()
    assert succeeded(WEB) == [one.lease]


def test_a_connection_too_short_for_a_sweep_reports_its_success_at_the_end(opened: Open) -> None:
    one = opened.connect(relay=Relay(bytes_down=1))
    one.report_success()
    assert succeeded(WEB) == [one.lease]


def test_without_a_lease_or_a_relay_no_success_is_reported(opened: Open) -> None:
    for one in (opened.connect(to=None, relay=Relay(bytes_down=1)), opened.connect(relay=None)):
        one.report_success()
    assert succeeded(WEB) == []


# Timeouts


def test_a_connection_is_ended_when_it_has_been_quiet_for_the_time_of_its_own_frontend(opened: Open) -> None:
    quiet, busy = opened.connect(relay=Relay()), opened.connect(relay=Relay())
    cast(Relay, busy.progress).bytes_up = 1
    opened.table.sweep(IDLE_SECONDS - 1)
    assert states(quiet) == []
    opened.table.sweep(IDLE_SECONDS)
    assert (states(quiet), states(busy)) == ([State.IDLE_TIMEOUT], [])
    opened.table.sweep(2 * IDLE_SECONDS)
    assert states(busy) == [State.IDLE_TIMEOUT]


def test_a_half_closed_connection_has_the_linger_time_from_when_that_was_noticed(opened: Open) -> None:
    relay = Relay()
    one = opened.connect(relay=relay)
    relay.is_half_closed = True
    opened.table.sweep(50.0)
    opened.table.sweep(50.0 + LINGER_SECONDS - 1)
    assert states(one) == []
    opened.table.sweep(50.0 + LINGER_SECONDS)
    assert states(one) == [State.LINGER_TIMEOUT]


def test_a_sweep_over_many_connections_yields(opened: Open) -> None:
    for _ in range(3 * SWEPT_AT_ONCE):
        opened.connect(relay=Relay(bytes_up=1))
    turns: list[int] = []
    gevent.spawn(lambda: turns.append(opened.table.totals()[1]["big", "a"][1]))
    opened.table.sweep(now=1.0)
    assert turns[0] < 3 * SWEPT_AT_ONCE == opened.table.totals()[1]["big", "a"][1]
