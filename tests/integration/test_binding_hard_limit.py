"""A backend's hard limit is never exceeded, by not even one, under any burst, and every place is given back."""

from collections import Counter

from tests.harness import row
from tests.integration.peers import await_idle, crowd, fresh_address, name_heard, named

ACTIVE = 'edgeproxy_backend_connections_active{{backend="{}",pool="default"}}'
LIMITS = {"a": 30, "b": 20, "c": 1}


def burst(edge, sources):
    """Connect all at once, hold every connection that got a backend until all are answered; count who got whom."""
    with crowd(edge, sources) as clients:
        heard = Counter(name_heard(client) for client in clients)
        samples = edge.metrics()
    active = {name: samples[ACTIVE.format(name)] for name in LIMITS}
    assert active == {name: heard[name] for name in LIMITS}
    return dict(heard)


def test_five_hundred_clients_at_once_fill_every_backend_to_its_limit_and_not_beyond(edge, origin):
    proxy = edge([row(name, origin(named(name)), hard_limit=limit) for name, limit in LIMITS.items()])
    for _ in range(2):
        assert burst(proxy, [fresh_address() for _ in range(500)]) == {**LIMITS, "": 449}
        await_idle(proxy)


def test_five_hundred_connections_of_one_client_overflow_to_every_limit_and_not_beyond(edge, origin):
    proxy = edge([row(name, origin(named(name)), hard_limit=limit) for name, limit in LIMITS.items()])
    source = fresh_address()
    assert burst(proxy, [source] * 500) == {**LIMITS, "": 449}
    await_idle(proxy)
    assert burst(proxy, [source] * 500) == {**LIMITS, "": 449}
