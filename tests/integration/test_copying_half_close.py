"""An end of one direction is passed on as FIN, and the other direction lives on until it ends too."""

import os
import socket

import pytest

from tests.integration.peers import Stage, address_of, read_exactly, read_to_end

MEGABYTE = os.urandom(1 << 20)


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    stage = Stage(tmp_path_factory.mktemp("half_close"))
    yield stage
    stage.close()


def test_a_server_that_speaks_first_is_heard(stage):
    stage.play(lambda sock: (sock.sendall(b"220 ready\r\n"), read_to_end(sock)))
    with stage.connect() as client:
        assert client.recv(100) == b"220 ready\r\n"


def test_a_client_that_has_sent_eof_still_gets_the_response(stage):
    def part(sock):
        request = read_to_end(sock)
        sock.sendall(MEGABYTE)
        return request

    backend = stage.play(part)
    with stage.connect() as client:
        source = address_of(client)
        client.sendall(b"question")
        client.shutdown(socket.SHUT_WR)
        assert backend() == b"question"
        assert read_to_end(client) == MEGABYTE
    line = stage.line_of(source)
    assert (line["termination"], line["bytes_up"], line["bytes_down"]) == ("--", 8, 1 << 20)


def test_a_client_may_send_on_after_the_server_has_ended(stage):
    def part(sock):
        sock.sendall(b"that is all from me")
        sock.shutdown(socket.SHUT_WR)
        return read_to_end(sock)

    backend = stage.play(part)
    with stage.connect() as client:
        source = address_of(client)
        assert read_to_end(client) == b"that is all from me"
        client.sendall(MEGABYTE)
        client.shutdown(socket.SHUT_WR)
        assert backend() == MEGABYTE
    line = stage.line_of(source)
    assert (line["termination"], line["bytes_up"], line["bytes_down"]) == ("--", 1 << 20, 19)


def test_an_eof_without_a_byte_is_passed_on_both_ways(stage):
    backend = stage.play(read_to_end)
    with stage.connect() as client:
        client.shutdown(socket.SHUT_WR)
        assert backend() == b""
        assert client.recv(1) == b""


def test_a_conversation_goes_on_one_way_long_after_the_other_has_ended(stage):
    def part(sock):
        sock.shutdown(socket.SHUT_WR)
        return [read_exactly(sock, 3) for _ in range(5)]

    backend = stage.play(part)
    with stage.connect() as client:
        assert client.recv(1) == b""
        for _ in range(5):
            client.sendall(b"one")
    assert backend() == [b"one"] * 5


def test_the_access_line_has_the_whole_connection(stage):
    stage.play(lambda sock: (sock.sendall(b"hello"), read_to_end(sock)))
    with stage.connect() as client:
        source = address_of(client)
        assert read_exactly(client, 5) == b"hello"
        client.sendall(b"bye")
        client.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
    line = stage.line_of(source)
    assert line["event"] == "connection"
    assert (line["frontend"], line["listener"]) == ("edge", "{}:{}".format(*stage.edge.address))
    assert (line["backend"], line["affinity"], line["attempts"]) == ("a", "new", 1)
    assert (line["country"], line["region"], line["tier"]) == (None, None, 2)
    assert (line["bytes_up"], line["bytes_down"], line["reason"]) == (3, 5, None)
    assert 0 < line["lease_ms"] < line["duration_ms"]
    assert 0 < line["connect_ms"] < line["duration_ms"]
    assert line["ts"].endswith("Z")
