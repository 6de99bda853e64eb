"""Timeouts: the connect timeout does not stay on a connection; idle and linger timeouts end only silent connections.

The sweep runs four times within a timeout, so a timer may fire late, but never early.
"""

import socket
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from tests.harness import eventually
from tests.integration.peers import (
    Stage,
    address_of,
    await_acknowledged,
    echo,
    fresh_address,
    read_exactly,
    read_to_end,
    read_until_reset,
    reset,
)


@pytest.fixture(scope="module")
def idle(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("idle"), CONNECT_TIMEOUT_SECS=0.3, IDLE_TIMEOUT_SECS=1.2)
    yield stage
    stage.close()


@pytest.fixture(scope="module")
def linger(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("linger"), LINGER_TIMEOUT_SECS=1)
    yield stage
    stage.close()


def ends(sock):
    """Wait until a connection ends, by EOF or reset."""
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True


def test_a_connection_idle_for_longer_than_the_connect_timeout_lives_on(idle):
    idle.play(lambda sock: (gevent.sleep(0.6), sock.sendall(b"late"), echo(sock)))
    with idle.connect() as client:
        assert read_exactly(client, 4) == b"late"
        client.sendall(b"and still")
        assert read_exactly(client, 9) == b"and still"


def test_a_silent_connection_is_ended_on_both_sides_after_the_idle_timeout(idle):
    backend = idle.play(ends)
    with idle.connect() as client:
        source = address_of(client)
        assert ends(client)
        assert backend() is True
    line = idle.line_of(source)
    assert (line["termination"], line["reason"]) == ("tD", "idle_timeout")
    assert line["duration_ms"] >= 1200


def test_bytes_one_way_keep_the_silent_way_open(idle):
    def drip(sock):
        for _ in range(15):
            sock.sendall(b".")
            gevent.sleep(0.1)
        return sock.recv(10)

    backend = idle.play(drip)
    with idle.connect() as client:
        assert read_exactly(client, 15) == b"." * 15
        client.sendall(b"thanks")
        assert backend() == b"thanks"


def test_a_client_that_takes_nothing_after_a_reset_is_reset_after_the_linger_timeout(linger):
    def part(sock):
        sock.sendall(bytes(400_000))
        await_acknowledged(sock)
        reset(sock)

    backend = linger.play(part)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        client.settimeout(10)
        client.bind((fresh_address(), 0))
        client.connect(linger.edge.address)
        source = address_of(client)
        backend()
        line = linger.line_of(source)
        assert (line["termination"], line["reason"]) == ("tH", "linger_timeout")
        assert read_until_reset(client)


def test_a_peer_that_never_closes_after_an_eof_is_closed_after_the_linger_timeout(linger):
    has_ended = Event()
    linger.play(lambda sock: (read_to_end(sock), has_ended.wait(10)))
    with linger.connect() as client:
        source = address_of(client)
        client.shutdown(socket.SHUT_WR)
        assert ends(client)
        has_ended.set()
    line = linger.line_of(source)
    assert (line["termination"], line["reason"]) == ("tH", "linger_timeout")
    assert line["duration_ms"] >= 1000


def test_a_long_response_without_pauses_outlives_the_linger_timeout(linger):
    def drip(sock):
        read_to_end(sock)
        for _ in range(13):
            sock.sendall(b".")
            gevent.sleep(0.1)

    linger.play(drip)
    with linger.connect() as client:
        client.shutdown(socket.SHUT_WR)
        assert read_to_end(client) == b"." * 13


def test_the_linger_timeout_begins_with_the_end_of_a_direction_and_not_before(linger):
    may_answer = Event()
    backend = linger.play(lambda sock: (read_to_end(sock), may_answer.wait(10), sock.sendall(b"answer")))
    with linger.connect() as client:
        client.sendall(b"question")
        gevent.sleep(1.2)  # silent for longer than the linger timeout, before any end
        client.shutdown(socket.SHUT_WR)
        client.settimeout(0.6)
        try:
            with pytest.raises(TimeoutError):  # within the linger timeout nothing may end
                client.recv(1)
        finally:
            may_answer.set()
            backend()


def test_the_kernel_probes_both_silent_peers(linger):
    """In /proc/net/tcp, a socket with timer 2 sends keepalive probes."""

    def timer(local, remote):
        ends = [f"{int.from_bytes(socket.inet_aton(host), 'little'):08X}:{port:04X}" for host, port in (local, remote)]
        rows = (line.split() for line in Path("/proc/net/tcp").read_text().splitlines())
        return next((fields[5].partition(":")[0] for fields in rows if fields[1:3] == ends), "not in this reading")

    def part(sock):
        ends.append((sock.getpeername(), sock.getsockname()))
        sock.sendall(b"!")
        read_to_end(sock)

    ends = []
    linger.play(part)
    with linger.connect() as client:
        assert client.recv(1) == b"!"
        ends.append((client.getpeername(), client.getsockname()))
        eventually(lambda: [timer(*pair) for pair in ends] == ["02", "02"], what="keepalive on both sides")
