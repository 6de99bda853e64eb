"""Limits on all connections, and on those of one client by its real address."""

import pytest

from tests.harness import eventually, row
from tests.integration.peers import (
    await_idle,
    crowd,
    fresh_address,
    is_refused,
    is_reset,
    lines_of,
    name_heard,
    named,
    visit,
)


def refused(edge, reason):
    return edge.metrics().get(f'edgeproxy_connections_refused_total{{reason="{reason}"}}', 0)


def test_no_more_than_max_connections_are_open_at_once(edge, origin):
    proxy = edge([row("a", origin(named("a")))], MAX_CONNECTIONS=3)
    with crowd(proxy, [fresh_address() for _ in range(8)]) as clients:
        assert sorted(name_heard(client) for client in clients) == [""] * 5 + ["a"] * 3
        source = fresh_address()
        assert is_refused(proxy, source)
        line = lines_of(proxy, source)[0]
        assert (line["termination"], line["reason"], line["backend"]) == ("PL", "max_connections", None)
        assert refused(proxy, "max_connections") == 6
    await_idle(proxy)
    assert visit(proxy, fresh_address()) == "a"


def test_the_open_connections_of_one_client_are_limited(edge, origin):
    proxy = edge([row("a", origin(named("a")))], MAX_CONNECTIONS_PER_CLIENT=2)
    source = fresh_address()
    with crowd(proxy, [source] * 6) as clients:
        assert sorted(name_heard(client) for client in clients) == [""] * 4 + ["a"] * 2
        assert visit(proxy, fresh_address()) == "a"
        assert refused(proxy, "client_connections") == 4
    lines = lines_of(proxy, source, at_least=6)
    assert [(x["termination"], x["reason"]) for x in lines].count(("PL", "client_connections")) == 4
    await_idle(proxy)
    assert visit(proxy, source) == "a"


def test_new_connections_of_one_client_are_limited_in_rate(edge, origin):
    proxy = edge([row("a", origin(named("a")))], CONNECTION_RATE_PER_CLIENT=1)
    source = fresh_address()
    with crowd(proxy, [source] * 5) as clients:
        heard = [name_heard(client) for client in clients]
    assert heard.count("a") == 1
    assert refused(proxy, "client_rate") == 4
    assert ("PL", "client_rate") in [(x["termination"], x["reason"]) for x in lines_of(proxy, source, at_least=5)]
    assert visit(proxy, fresh_address()) == "a"
    assert eventually(lambda: visit(proxy, source)) == "a"


def test_a_connection_without_a_backend_is_no_longer_counted_after_its_end(edge, routing_db):
    proxy = edge([], MAX_CONNECTIONS_PER_CLIENT=1)
    source = fresh_address()
    for _ in range(3):
        assert is_refused(proxy, source)
    assert {line["termination"] for line in lines_of(proxy, source, at_least=3)} == {"PE"}


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS_PER_CLIENT", "CONNECTION_RATE_PER_CLIENT"])
def test_clients_behind_a_trusted_proxy_are_limited_each_by_its_own_address(edge, origin, limit):
    proxy = edge([row("a", origin(named("a")))], PROXY_PROTOCOL_FROM="127.0.0.0/8", **{limit: 1})
    with crowd(proxy, ["127.0.0.2"] * 4) as clients:
        for client, real in zip(clients, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.1"], strict=True):
            client.sendall(f"PROXY TCP4 {real} 192.0.2.9 1000 80\r\n".encode())
        heard = [name_heard(client) for client in clients]
    assert sorted(heard) == ["", "a", "a", "a"]
    assert heard[1] == heard[2] == "a"
    assert len(lines_of(proxy, "192.0.2.1", at_least=2)) == 2


def test_a_refused_flood_is_summarised_in_the_log_and_counted_exactly(edge, routing_db):
    proxy = edge([])
    with crowd(proxy, [fresh_address() for _ in range(200)]) as clients:
        assert all(is_reset(client) for client in clients)
    assert proxy.metrics()['edgeproxy_leases_total{outcome="no_backends"}'] == 200
    eventually(lambda: logged_refusals(proxy) == 200, what="the log tells of each, alone or in a sum")
    assert len(proxy.access_lines()) < 100


def logged_refusals(edge):
    """Return how many refused connections the log has, as lines or in summaries."""
    return len(edge.access_lines()) + sum(line.get("refused_no_backends", 0) for line in edge.log())
