"""Back-pressure: a peer that does not read stops the sender, with bounded memory, and no other connection."""

import os
from pathlib import Path

import gevent
import pytest
from gevent.event import Event

from tests.integration.peers import Stage, echo, read_exactly, read_to_end

MEGABYTE = os.urandom(1 << 20)
KERNEL_BUFFERS = (4 << 20) + 2 * sum(
    int(Path(f"/proc/sys/net/ipv4/{name}").read_text().split()[2]) for name in ("tcp_wmem", "tcp_rmem")
)
"""The most that a pipe and the buffers of two sockets in each of two hops hold."""
OUR_MEMORY = 8 << 20


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("backpressure"))
    yield stage
    stage.close()


def resident_bytes(stage):
    return int(Path(f"/proc/{stage.edge.process.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def send_until_stuck(sock):
    """Send until the kernel accepts nothing for a second. Returns the number of bytes sent."""
    sent = 0
    sock.settimeout(1)
    try:
        while sent < 1 << 30:
            sent += sock.send(MEGABYTE[: 65536 + sent % 1000])
    except TimeoutError:
        pass
    sock.settimeout(10)
    return sent


def test_a_client_that_does_not_read_stops_an_endless_stream(stage):
    backend = stage.play(send_until_stuck)
    with stage.connect() as client:
        read_exactly(client, 10 << 20)  # the stream is bulk by now, and the edge's memory warm
        before = resident_bytes(stage)
        sent = backend()
        assert sent < KERNEL_BUFFERS + (10 << 20)
        assert resident_bytes(stage) - before < OUR_MEMORY
        assert len(read_to_end(client)) == sent - (10 << 20)


def test_peers_that_both_send_and_never_read_stop_each_other(stage):
    backend = stage.play(lambda sock: (send_until_stuck(sock), gevent.sleep(0))[0])
    with stage.connect() as client:
        before = resident_bytes(stage)
        assert send_until_stuck(client) < KERNEL_BUFFERS
        assert backend() < KERNEL_BUFFERS
        assert resident_bytes(stage) - before < OUR_MEMORY


def test_many_slow_readers_together_cost_the_edge_little(stage):
    def part(sock):
        sock.sendall(MEGABYTE)
        sock.sendall(MEGABYTE)
        return read_to_end(sock)

    stage.play(part)
    before = resident_bytes(stage)
    clients = [stage.connect() for _ in range(20)]
    try:
        for client in clients:
            assert client.recv(1)
        assert resident_bytes(stage) - before < OUR_MEMORY
        for client in clients:
            assert len(read_exactly(client, (2 << 20) - 1)) == (2 << 20) - 1
    finally:
        for client in clients:
            client.close()


def test_a_blocked_direction_does_not_block_the_other(stage):
    may_read = Event()

    def part(sock):
        for _ in range(16):
            sock.sendall(MEGABYTE)
        assert may_read.wait(10)
        return len(read_to_end(sock))

    backend = stage.play(part)
    with stage.connect() as client:
        sent = send_until_stuck(client)  # the backend reads nothing yet
        assert read_exactly(client, 16 << 20) == MEGABYTE * 16
        may_read.set()
    assert backend() == sent


def test_bulk_that_pauses_without_an_end_arrives_to_its_last_byte(stage):
    """The backend confirms each complete message: bytes left in the edge would be a deadlock."""
    sizes = [(3 << 20) + 311_111 * n for n in range(24)]

    def part(sock):
        for size in sizes:
            left = size
            while left:
                data = sock.recv(min(left, 200_000))
                assert data, "the stream ended within a message"
                left -= len(data)
                gevent.sleep(0.0003)
            sock.sendall(b"k")

    backend = stage.play(part)
    message = MEGABYTE * 11
    with stage.connect(timeout=3) as client:
        try:
            for size in sizes:
                client.sendall(memoryview(message)[:size])
                assert client.recv(1) == b"k"
        finally:
            client.close()
            backend()


def test_other_clients_are_served_while_one_is_stuck(stage):
    backend = stage.play(send_until_stuck)
    with stage.connect() as stuck:
        assert stuck.recv(1)
        stage.play(echo)
        for _ in range(20):
            with stage.connect() as client:
                client.sendall(b"ping")
                assert read_exactly(client, 4) == b"ping"
    backend()
