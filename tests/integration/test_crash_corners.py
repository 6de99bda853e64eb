"""Crashes at the moments between an actor's answer and a connection's note of it, and nothing is left behind."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from actors import supervisor
from actors.runtime import Crash, tell
from tests.edge_in_process import EdgeInside, edge_in_process
from tests.harness import eventually, row

CRASHES_BEFORE_A_PAUSE = 4
"""The fifth start of an actor comes 0.2 s after its death: long enough to act in between."""


def greet(sock: socket.socket) -> None:
    sock.sendall(b"welcome")
    sock.recv(1)


def put_down(edge: EdgeInside, name: str) -> None:
    """Crash an actor until its supervisor waits with the restart, and return while it is dead."""
    actor = edge.actor(name)
    for epoch in range(1, 1 + CRASHES_BEFORE_A_PAUSE):
        eventually(lambda now=epoch: actor.epoch == now)
        tell(actor, Crash())
    eventually(lambda: not actor.ref.is_alive())


@contextmanager
def hanging_port() -> Iterator[int]:
    """Give a port that lets dials hang: its queue of connections is full and nobody accepts."""
    with socket.socket() as listener, socket.socket() as queued:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        queued.connect(listener.getsockname())
        yield int(listener.getsockname()[1])


@pytest.mark.parametrize("name", ["registry", "bindings", "metrics"])
def test_a_connection_that_arrives_while_an_actor_is_down_waits_for_it_and_is_served(tmp_path, origin, name):
    with edge_in_process(tmp_path, [row("a", origin(greet))]) as edge:
        put_down(edge, name)
        with edge.connect() as client:
            assert client.recv(100) == b"welcome"
        eventually(lambda: edge.leases() == 0)


def test_a_client_that_leaves_while_the_registry_is_down_leaves_no_lease_behind(tmp_path, origin):
    with edge_in_process(tmp_path, [row("a", origin(greet))]) as edge:
        with edge.connect() as client:
            assert client.recv(100) == b"welcome"
            put_down(edge, "registry")
        eventually(lambda: len(edge.parts.data_plane.connections) == 0)
        assert edge.leases() == 0


def test_connections_count_against_their_clients_limit_once_when_the_bindings_crash(tmp_path, origin):
    with (
        edge_in_process(tmp_path, [row("a", origin(greet))], MAX_CONNECTIONS_PER_CLIENT=3) as edge,
        ExitStack() as open_,
    ):

        def is_served() -> bool:
            client = open_.enter_context(edge.connect())
            try:
                return client.recv(100) == b"welcome"
            except ConnectionResetError:
                return False

        assert is_served()
        put_down(edge, "bindings")
        with edge.connect() as arrived_meanwhile:
            assert arrived_meanwhile.recv(100) == b"welcome"
        eventually(lambda: len(edge.parts.data_plane.connections) == 1)
        assert [is_served(), is_served(), is_served()] == [True, True, False]


def test_a_registry_built_between_two_attempts_counts_nothing_on_the_backend_that_did_not_answer(
    tmp_path, origin, monkeypatch
):
    monkeypatch.setattr(supervisor, "FIRST_BACKOFF_SECONDS", 1.0)
    with hanging_port() as port:
        rows = [row("hangs", port), row("far", origin(greet), country="FR", region="eu")]
        with edge_in_process(tmp_path, rows, CONNECT_TIMEOUT_SECS=0.5) as edge, edge.connect() as client:
            eventually(lambda: edge.leases() == 1)
            connection = next(iter(edge.parts.data_plane.connections))
            first_lease = connection.lease_id
            for epoch in (1, 2):  # the second restart waits for a second
                eventually(lambda now=epoch: edge.actor("bindings").epoch == now)
                tell(edge.actor("bindings"), Crash())
            eventually(lambda: connection.lease_id != first_lease)  # the dial has failed, the next lease is asked for
            tell(edge.actor("registry"), Crash())
            eventually(lambda: edge.actor("registry").epoch == 2)
            counted = edge.leases()
            assert client.recv(100) == b"welcome"
            assert (counted, connection.attempts) == (0, 2)
