"""Actors crash while 200 connections copy and new ones keep arriving: open ones notice nothing, new ones hardly."""

from __future__ import annotations

import itertools
import os
import random
import socket
import time

import gevent
import pytest

from actors.runtime import Crash, InvariantBrokenError, ask, tell
from tests.edge_in_process import EdgeInside, edge_in_process
from tests.harness import eventually, row

CONNECTIONS = 200
NEWCOMERS_AT_ONCE = 4
NOISE = os.urandom(64 * 1024)


def echo(sock: socket.socket) -> None:
    try:
        while data := sock.recv(65536):
            sock.sendall(data)
    except ConnectionError:
        pass


def exchange(sock: socket.socket, chance: random.Random) -> None:
    """Send some noise and insist on getting the same back."""
    start = chance.randrange(len(NOISE) - 4096)
    sent = NOISE[start : start + chance.randint(1, 4096)]
    sock.sendall(sent)
    got = b""
    while len(got) < len(sent):
        data = sock.recv(len(sent) - len(got))
        assert data, f"closed after {len(got)} of {len(sent)} bytes"
        got += data
    assert got == sent


class Copying:
    """One open connection that keeps exchanging until told to end."""

    def __init__(self, edge: EdgeInside, number: int) -> None:
        self.rounds = 0
        self._ends = False
        self._sock = edge.connect(f"127.0.{1 + number // 50}.{1 + number % 50}")
        self._greenlet = gevent.spawn(self._copy, random.Random(number))

    def _copy(self, chance: random.Random) -> None:
        with self._sock:
            while not self._ends:
                exchange(self._sock, chance)
                self.rounds += 1
                gevent.sleep(0.01)
            self._sock.shutdown(socket.SHUT_WR)
            assert self._sock.recv(1) == b""

    def end(self) -> None:
        self._ends = True

    def join(self) -> None:
        """Wait for the end; raises what went wrong."""
        self._greenlet.get(timeout=30)

    @property
    def is_open(self) -> bool:
        return not self._greenlet.ready()


class Newcomers:
    """Connections that come, exchange once and go: half of them of clients never seen before."""

    def __init__(self, edge: EdgeInside) -> None:
        self.delays: list[float] = []
        self._edge = edge
        self._ends = False
        self._numbers = itertools.count()
        self._greenlets = [gevent.spawn(self._come_and_go) for _ in range(NEWCOMERS_AT_ONCE)]

    def _come_and_go(self) -> None:
        while not self._ends:
            number = next(self._numbers)
            source = f"127.1.{number // 250}.{1 + number % 250}" if number % 2 else "127.2.0.1"
            started = time.monotonic()
            with self._edge.connect(source) as sock:
                exchange(sock, random.Random(number))
            self.delays.append(time.monotonic() - started)
            gevent.sleep(0.002)

    def end(self) -> None:
        """End them all; raises what went wrong with any."""
        self._ends = True
        gevent.joinall(self._greenlets, timeout=30, raise_error=True)

    def wait_for(self, count: int) -> None:
        """Wait until so many more have been served."""
        wanted = len(self.delays) + count
        eventually(lambda: len(self.delays) >= wanted or any(g.ready() for g in self._greenlets), seconds=30)


def crash(edge: EdgeInside, name: str) -> None:
    tell(edge.actor(name), Crash())


ALL = ("registry", "bindings", "metrics", "health")


@pytest.mark.parametrize(
    ("crashing", "times"),
    [(("registry",), 1), (("bindings",), 1), (("metrics",), 1), (("health",), 1), (ALL, 3)],
    ids=["registry", "bindings", "metrics", "health", "one after another, three times"],
)
def test_a_crash_breaks_no_connection_loses_no_lease_and_hardly_delays_newcomers(tmp_path, origin, crashing, times):
    rows = [row(name, origin(echo), weight=weight) for name, weight in (("a", 1), ("b", 1), ("c", 3))]
    with edge_in_process(tmp_path, rows) as edge:
        copying = [Copying(edge, number) for number in range(CONNECTIONS)]
        eventually(lambda: all(one.rounds for one in copying), seconds=30)
        newcomers = Newcomers(edge)
        newcomers.wait_for(50)
        undisturbed = max(newcomers.delays)

        for time_ in range(1, times + 1):
            rounds = [one.rounds for one in copying]
            for name in crashing:
                crash(edge, name)
                eventually(lambda name=name, n=time_: edge.actor(name).epoch == 1 + n)
            newcomers.wait_for(50)
            eventually(
                lambda before=rounds: all(
                    one.rounds > past + 2 or not one.is_open for one, past in zip(copying, before, strict=True)
                ),
                seconds=30,
            )

        assert all(one.is_open for one in copying)
        newcomers.end()
        assert max(newcomers.delays) - undisturbed < 1.0
        eventually(lambda: len(edge.parts.data_plane.connections) == CONNECTIONS)
        assert edge.leases() == CONNECTIONS

        for one in copying:
            one.end()
        for one in copying:
            one.join()
        eventually(lambda: edge.leases() == 0)

        for name in ALL:
            restarts = float(times if name in crashing else 0)
            assert edge.metrics().get(f'edgeproxy_actor_restarts_total{{actor="{name}"}}', 0.0) == restarts
            eventually(
                lambda event=f"actor {name} was restarted", n=restarts: (
                    [line["event"] for line in edge.logged()].count(event) == n
                )
            )
        ends = {line["termination"] for line in edge.logged() if line["event"] == "connection"}
        assert ends == {"--"}


def test_a_restart_is_counted_also_when_the_metrics_have_crashed_too(tmp_path):
    with edge_in_process(tmp_path, []) as edge:
        for name in ALL:
            crash(edge, name)
        eventually(lambda: all(edge.actor(name).epoch == 2 for name in ALL))
        metrics = edge.metrics()
        assert [metrics.get(f'edgeproxy_actor_restarts_total{{actor="{name}"}}', 0.0) for name in ALL] == [1.0] * 4


def test_a_hard_limit_holds_over_a_crash_of_the_registry(tmp_path, origin):
    with edge_in_process(tmp_path, [row("a", origin(echo), soft_limit=5, hard_limit=5)]) as edge:
        chance = random.Random(1)
        held = [edge.connect() for _ in range(5)]
        for sock in held:
            exchange(sock, chance)
        with pytest.raises(InvariantBrokenError):
            ask(edge.actor("registry"), Crash(), timeout_s=10)
        assert edge.leases() == 5
        with edge.connect() as sixth, pytest.raises(ConnectionResetError):
            sixth.recv(1)
        held.pop().close()
        eventually(lambda: edge.leases() == 4)
        with edge.connect() as another:
            exchange(another, chance)
        for sock in held:
            exchange(sock, chance)
            sock.close()
        eventually(lambda: edge.leases() == 0)


def test_a_client_stays_with_its_backend_over_a_crash_of_the_bindings(tmp_path, origin):
    def named(name: bytes):
        return lambda sock: sock.sendall(name)

    def responses(count: int) -> set[bytes]:
        found = set()
        for _ in range(count):
            with edge.connect("127.3.0.1") as sock:
                found.add(sock.recv(1))
        return found

    with edge_in_process(tmp_path, [row(name, origin(named(name.encode()))) for name in "abcd"]) as edge:
        before = responses(5)
        with pytest.raises(InvariantBrokenError):
            ask(edge.actor("bindings"), Crash(), timeout_s=10)
        assert responses(5) == before
        assert len(before) == 1


def test_a_burst_of_one_new_client_while_the_bindings_crash_is_served(tmp_path, origin):
    with edge_in_process(tmp_path, [row(name, origin(echo)) for name in "ab"]) as edge:

        def come(number: int) -> None:
            with edge.connect("127.3.0.1") as sock:
                exchange(sock, random.Random(number))

        burst = [gevent.spawn(come, number) for number in range(50)]
        for _ in range(3):
            gevent.sleep(0)
            crash(edge, "bindings")
        gevent.joinall(burst, timeout=4.5, raise_error=True)
        assert all(one.ready() for one in burst), "some waited for an election that nobody held"
        eventually(lambda: edge.leases() == 0)
