"""A reset on one side arrives as a reset on the other, after everything that was read before it.

SO_LINGER 0 discards queued bytes on both hosts, so a peer here resets only after the edge's kernel has received all of
its bytes.
"""

import os
import socket

import gevent
import pytest
from gevent.event import Event

from tests.harness import eventually
from tests.integration.peers import (
    Stage,
    address_of,
    await_acknowledged,
    is_reset,
    read_exactly,
    read_to_end,
    read_until_reset,
    reset,
)

PAYLOAD = os.urandom(400_000)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("resets"))
    yield stage
    stage.close()


def send_and_reset(sock, data=PAYLOAD):
    sock.sendall(data)
    await_acknowledged(sock)
    reset(sock)


def test_a_clients_reset_reaches_the_backend_after_its_bytes(stage):
    backend = stage.play(read_until_reset)
    with stage.connect() as client:
        source = address_of(client)
        send_and_reset(client)
    assert backend() == PAYLOAD
    line = stage.line_of(source)
    assert (line["termination"], line["bytes_up"]) == ("CD", len(PAYLOAD))


def test_a_backends_reset_reaches_the_client_after_its_bytes(stage):
    stage.play(send_and_reset)
    with stage.connect() as client:
        source = address_of(client)
        assert read_until_reset(client) == PAYLOAD
    line = stage.line_of(source)
    assert (line["termination"], line["bytes_down"]) == ("SD", len(PAYLOAD))


def test_a_client_that_reads_slowly_gets_all_bytes_and_then_the_reset(stage):
    backend = stage.play(send_and_reset)
    with stage.connect() as client:
        assert backend() is None
        assert read_until_reset(client, pause=lambda: gevent.sleep(0.01)) == PAYLOAD


def test_a_backend_that_reads_slowly_gets_all_bytes_and_then_the_reset(stage):
    has_reset = Event()

    def part(sock):
        assert has_reset.wait(10)
        return read_until_reset(sock, pause=lambda: gevent.sleep(0.01))

    backend = stage.play(part)
    with stage.connect() as client:
        send_and_reset(client)
    has_reset.set()
    assert backend() == PAYLOAD


def narrow_client(stage, source):
    """Return a client whose kernel takes little before it reads."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.settimeout(10)
    client.bind((source, 0))
    client.connect(stage.edge.address)
    return client


def test_a_client_that_stops_reading_for_long_loses_no_byte_and_sees_the_reset(stage):
    backend = stage.play(send_and_reset)
    with narrow_client(stage, "127.9.9.9") as client:
        backend()
        gevent.sleep(2.5)  # nothing may end it meanwhile
        assert read_until_reset(client) == PAYLOAD
    assert stage.line_of("127.9.9.9")["termination"] == "SD"


def active(stage, of):
    """Return how many connections, or leases, the edge counts now."""
    samples = stage.edge.metrics()
    return sum(value for name, value in samples.items() if name.startswith(f"edgeproxy_{of}_active{{"))


def test_a_client_that_takes_what_is_left_slowly_holds_no_lease_and_may_reset_as_well(stage):
    backend = stage.play(send_and_reset)
    with narrow_client(stage, "127.9.9.8") as client:
        backend()
        eventually(lambda: (active(stage, "connections"), active(stage, "backend_connections")) == (1, 0))
        reset(client)
    assert stage.line_of("127.9.9.8")["termination"] == "SD"


def test_a_response_sent_before_the_request_was_read_reaches_a_client_that_still_sends(stage):
    """As with an HTTP server that sends 413 and closes with unread bytes, so that its kernel resets."""
    response = PAYLOAD[:100_000]

    def part(sock):
        read_exactly(sock, 1000)
        sock.sendall(response)
        await_acknowledged(sock)

    stage.play(part)
    received = bytearray()
    errors = []
    with stage.connect() as client:
        source = address_of(client)

        def send_on():
            try:
                while True:
                    client.sendall(PAYLOAD)
            except OSError as error:
                errors.append(error)

        sender = gevent.spawn(send_on)
        try:
            while data := client.recv(65536):
                received += data
        except ConnectionResetError as error:
            errors.append(error)
        sender.join(10)
    assert bytes(received) == response
    assert any(isinstance(error, ConnectionResetError) for error in errors)
    assert stage.line_of(source)["termination"] == "SD"


def test_a_client_that_resets_in_the_middle_of_a_download_ends_it_at_the_backend(stage):
    def send_for_ever(sock):
        while True:
            sock.sendall(PAYLOAD)

    backend = stage.play(send_for_ever)
    with stage.connect() as client:
        source = address_of(client)
        read_exactly(client, 5_000_000)
        reset(client)
    assert isinstance(backend(), ConnectionResetError)
    assert stage.line_of(source)["termination"] == "CD"


def test_a_client_that_resets_after_its_end_resets_the_backend_that_still_sends(stage):
    def part(sock):
        assert read_to_end(sock) == b"question"
        while True:
            sock.sendall(PAYLOAD)

    backend = stage.play(part)
    with stage.connect() as client:
        source = address_of(client)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        read_exactly(client, 1_000_000)
        reset(client)
    assert isinstance(backend(), BrokenPipeError)  # how the kernel reports a reset after an EOF
    assert stage.line_of(source)["termination"] == "CH"


def test_a_backend_that_resets_after_the_clients_end_resets_the_client(stage):
    def part(sock):
        read_to_end(sock)
        send_and_reset(sock)

    stage.play(part)
    with stage.connect() as client:
        source = address_of(client)
        client.shutdown(socket.SHUT_WR)
        assert read_until_reset(client) == PAYLOAD
    assert stage.line_of(source)["termination"] == "SH"


def test_a_backend_that_resets_at_once_resets_the_client(stage):
    stage.play(reset)
    with stage.connect() as client:
        source = address_of(client)
        assert is_reset(client)
    assert stage.line_of(source)["termination"] in ("SC", "SD")  # before or after the edge notices the connect


def test_a_backend_that_resets_after_some_bytes_resets_the_client(stage):
    stage.play(lambda sock: (sock.recv(100), reset(sock)))
    with stage.connect() as client:
        source = address_of(client)
        client.sendall(b"word")
        assert is_reset(client)
    line = stage.line_of(source)
    assert (line["termination"], line["bytes_up"], line["bytes_down"]) == ("SD", 4, 0)


def test_a_reset_of_a_client_that_had_ended_already_is_noticed_while_the_backend_is_silent(stage):
    has_ended, test_is_over = Event(), Event()

    def part(sock):
        read_to_end(sock)
        has_ended.set()
        test_is_over.wait(10)

    stage.play(part)
    with stage.connect() as client:
        source = address_of(client)
        client.shutdown(socket.SHUT_WR)
        assert has_ended.wait(10)
        reset(client)
    try:
        eventually(lambda: source in [line["client"] for line in stage.edge.access_lines()], seconds=3)
    finally:
        test_is_over.set()
