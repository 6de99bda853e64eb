"""Going down: everybody served who can be within the drain time, then an end with exit code 0, and nothing lost."""

from __future__ import annotations

import hashlib
import random
import signal
import socket

import gevent
import pytest

from tests.harness import eventually, row
from tests.traffic import ask, named, who


def is_refused(address):
    """Whether new connections are refused by the kernel."""
    try:
        socket.create_connection(address, 1).close()
    except ConnectionError:
        return True
    return False


def has_stopped_listening(edge):
    return is_refused(edge.address)


def drains(edge):
    return edge.event("draining: ")


@pytest.fixture
def served(edge, origin):
    """Start an edge with one backend that answers."""
    return lambda **variables: edge([row("a", origin(named("a")))], GEOIP_PATH="off", **variables)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_nobody_connected_it_ends_at_once_with_0(served, number):
    proxy = served(DRAIN_TIMEOUT_SECS=600)
    assert who(proxy) == "a"
    assert proxy.stop(number) == 0
    assert proxy.log()[-1]["event"] == "stopped"
    assert len(proxy.access_lines()) == 1, "the log was written to its end"


def test_open_connections_finish_within_the_drain_time_and_not_one_byte_is_lost(edge, origin):
    content = random.Random(7).randbytes(3_000_000)

    def slow_giver(sock):
        """Send half, wait for a word, send the rest."""
        half = len(content) // 2
        sock.sendall(content[:half])
        if sock.recv(100) == b"go on":
            sock.sendall(content[half:])

    proxy = edge([row("a", origin(slow_giver))], GEOIP_PATH="off", DRAIN_TIMEOUT_SECS=60)
    with proxy.connect() as client:
        received = client.recv(1000)
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: has_stopped_listening(proxy), what="the listeners close")
        assert proxy.process.poll() is None
        client.sendall(b"go on")
        while chunk := client.recv(65536):
            received += chunk
        client.close()
    assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()
    assert proxy.wait() == 0
    line = max(proxy.access_lines(), key=lambda line: line["bytes_down"])
    assert (line["bytes_up"], line["bytes_down"], line["termination"]) == (5, len(content), "--")


def test_connections_that_do_not_finish_are_ended_after_the_drain_time(served):
    proxy = served(DRAIN_TIMEOUT_SECS=0.5)
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        assert proxy.stop() == 0
        assert ask(staying) == ""
    assert [(line["termination"], line["reason"]) for line in proxy.access_lines()] == [("KD", "drain_timeout")]
    assert proxy.event("drain time is over: 1 connection ended")


def test_connections_queued_in_the_backlog_at_the_signal_are_served(edge, origin):
    """The process is stopped while clients connect, so that the signal and they arrive together."""

    def slow_response(sock):
        if sock.recv(100):
            gevent.sleep(0.7)
            sock.sendall(b"a\n")

    proxy = edge([row("a", origin(slow_response))], GEOIP_PATH="off", DRAIN_TIMEOUT_SECS=20)
    proxy.process.send_signal(signal.SIGSTOP)
    clients = [proxy.connect() for _ in range(100)]
    for client in clients:
        client.sendall(b"who?")
    proxy.process.send_signal(signal.SIGTERM)
    proxy.process.send_signal(signal.SIGCONT)
    responses = []
    for client in clients:
        try:
            responses.append(client.recv(100))
        except ConnectionError:
            responses.append(b"reset")
        client.close()
    assert responses == [b"a\n"] * 100
    assert proxy.wait() == 0


def test_a_second_signal_ends_it_at_once_with_1(served):
    proxy = served(DRAIN_TIMEOUT_SECS=600)
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: drains(proxy))
        proxy.process.send_signal(signal.SIGINT)
        assert proxy.wait() == 1
    assert proxy.event("second signal")


def test_while_it_withdraws_it_is_unready_and_still_serves_and_then_every_listener_closes(served):
    proxy = served(DRAIN_WITHDRAW_SECS=1.5, DRAIN_TIMEOUT_SECS=60)
    assert proxy.get("/ready")[0] == 200
    proxy.process.send_signal(signal.SIGTERM)
    eventually(lambda: proxy.get("/ready")[0] == 503, what="withdrawn")
    assert proxy.ready()["reasons"] == ["draining"]
    assert proxy.get("/live")[0] == 200
    with proxy.connect() as late:
        assert ask(late) == "a", "new ones are welcome still"
        assert proxy.metrics()['edgeproxy_connections_active{frontend="edge"}'] == 1
        eventually(lambda: has_stopped_listening(proxy), what="the listeners close")
        eventually(lambda: is_refused(proxy.metrics_address), what="the metrics listener closes, too")
        assert ask(late) == "a"
    assert proxy.wait() == 0


def test_under_load_every_accepted_connection_is_served(served):
    """Clients go on until the kernel refuses them; not one connection that was taken is reset."""
    proxy = served(DRAIN_TIMEOUT_SECS=20)
    outcomes = []

    def client():
        while True:
            try:
                sock = proxy.connect()
            except ConnectionError:
                return
            with sock:
                outcomes.append(ask(sock))

    clients = [gevent.spawn(client) for _ in range(8)]
    eventually(lambda: len(outcomes) >= 100)
    proxy.process.send_signal(signal.SIGTERM)
    assert gevent.joinall(clients, timeout=20, raise_error=True) and all(one.ready() for one in clients)
    assert proxy.wait() == 0
    assert outcomes == ["a"] * len(outcomes)
    assert sum(line["termination"] == "--" for line in proxy.access_lines()) == len(outcomes)


def test_the_load_that_stays_is_ended_and_everybody_is_accounted_for(served):
    proxy = served(DRAIN_TIMEOUT_SECS=0.3)
    staying = [proxy.connect(f"127.0.2.{number + 1}") for number in range(50)]
    assert [ask(one) for one in staying] == ["a"] * 50
    assert proxy.stop() == 0
    for one in staying:
        assert ask(one) == ""
        one.close()
    assert sorted(line["client"] for line in proxy.access_lines()) == sorted(f"127.0.2.{n + 1}" for n in range(50))
    assert {line["bytes_up"] for line in proxy.access_lines()} == {4}


def test_a_stopped_edge_leaves_its_ports_to_the_next_at_once(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert proxy.stop() == 0
    host, port = proxy.address
    assert who(edge(listen=f"{host}:{port}", GEOIP_PATH="off")) == "a"
