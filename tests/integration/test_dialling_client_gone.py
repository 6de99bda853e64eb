"""A client that leaves during admission or connect: its lease is released, its counts and its access line are right.

The edge is stopped while clients connect and leave, so that it finds them gone at its first step.
"""

import signal

from tests.harness import eventually, row
from tests.integration.peers import (
    await_idle,
    echo,
    fresh_address,
    hanging_backend,
    is_reset,
    lines_of,
    named,
    paused,
    read_to_end,
    reset,
    visit,
)


def test_clients_that_reset_before_their_lease_leave_nothing_behind(edge, origin):
    proxy = edge([row("a", origin(named("a")), hard_limit=1)])
    source = fresh_address()
    with paused(proxy):
        for _ in range(50):
            client = proxy.connect(source)
            client.sendall(b"never mind")
            reset(client)
    eventually(lambda: proxy.metrics().get('edgeproxy_connections_total{frontend="edge"}') == 50)
    samples = await_idle(proxy)
    assert not [name for name in samples if name.startswith("edgeproxy_internal_errors_total{")]
    assert visit(proxy, fresh_address()) == "a"


def test_bytes_of_a_client_that_left_still_reach_the_backend(edge, origin):
    heard = []
    proxy = edge([row("a", origin(lambda sock: heard.append(read_to_end(sock))))])
    source = fresh_address()
    with paused(proxy), proxy.connect(source) as client:
        client.sendall(b"a message in a bottle")
    assert lines_of(proxy, source)[0]["termination"] == "--"
    assert heard == [b"a message in a bottle"]


def test_a_client_that_leaves_during_the_connect_leaves_nothing_behind(edge):
    with hanging_backend() as port:
        proxy = edge([row("a", port)], CONNECT_TIMEOUT_SECS=0.4)
        source = fresh_address()
        reset(proxy.connect(source))
        line = lines_of(proxy, source)[0]
    assert (line["backend"], line["termination"], line["bytes_up"]) == ("a", "sC", 0)
    await_idle(proxy)


def test_connections_that_outlive_the_drain_time_are_ended_in_every_phase(edge, origin):
    with hanging_backend() as port:
        far = row("far", origin(echo), region="eu", country="FR")
        proxy = edge([row("hanging", port, hard_limit=1), far], CONNECT_TIMEOUT_SECS=60, DRAIN_TIMEOUT_SECS=0)
        dialling, copying = fresh_address(), fresh_address()
        with proxy.connect(dialling) as early, proxy.connect(copying) as late:
            late.sendall(b"x")
            assert late.recv(1) == b"x"
            proxy.process.send_signal(signal.SIGTERM)
            assert is_reset(early)
            is_reset(late)
        assert proxy.wait() == 0
    killed = {client: lines_of(proxy, client)[0] for client in (dialling, copying)}
    assert (killed[dialling]["termination"], killed[dialling]["reason"]) == ("KC", "drain_timeout")
    assert (killed[copying]["termination"], killed[copying]["reason"]) == ("KD", "drain_timeout")
