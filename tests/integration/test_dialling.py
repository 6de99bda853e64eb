"""Backends that refuse, hang or are missing: which ones are tried instead, for how long, and what the client gets."""

import re
from contextlib import ExitStack

import pytest

from tests.harness import eventually, row
from tests.integration.peers import (
    await_idle,
    fresh_address,
    hanging_backend,
    is_refused,
    lines_of,
    load,
    name_heard,
    named,
    refusing_port,
    visit,
)

FAR = {"region": "eu", "country": "FR"}


@pytest.fixture
def refusing():
    """Yield ports that refuse connections."""
    with ExitStack() as stack:
        yield lambda: refusing_port(stack)


def errors(edge):
    """Return the failed connects by (backend, reason)."""
    found = {}
    for name, value in edge.metrics().items():
        if name.startswith("edgeproxy_backend_errors_total{"):
            labels = dict(re.findall(r'(\w+)="(.*?)"', name))
            assert labels["pool"] == "default"
            found[labels["backend"], labels["reason"]] = value
    return found


def test_a_refusing_backend_is_passed_over_for_the_next_best(edge, origin, refusing):
    proxy = edge([row("near", refusing()), row("far", origin(named("far")), **FAR)])
    source = fresh_address()
    assert visit(proxy, source) == "far"
    line = lines_of(proxy, source)[0]
    assert (line["backend"], line["attempts"], line["tier"], line["termination"]) == ("far", 2, 3, "--")
    assert errors(proxy) == {("near", "econnrefused"): 1}
    assert await_idle(proxy)['edgeproxy_backend_connections_total{backend="far",pool="default"}'] == 1


def test_a_hanging_backend_is_passed_over_after_the_connect_timeout(edge, origin):
    with hanging_backend() as port:
        proxy = edge([row("near", port), row("far", origin(named("far")), **FAR)], CONNECT_TIMEOUT_SECS=0.3)
        source = fresh_address()
        assert visit(proxy, source) == "far"
    line = lines_of(proxy, source)[0]
    assert (line["backend"], line["attempts"]) == ("far", 2)
    assert line["connect_ms"] >= 290
    assert errors(proxy) == {("near", "connect_timeout"): 1}


def test_if_no_backend_accepts_the_client_is_reset_after_a_bounded_number_of_attempts(edge, refusing):
    proxy = edge([row(f"b{n}", refusing()) for n in range(6)], CONNECT_ATTEMPTS=3)
    source = fresh_address()
    assert is_refused(proxy, source)
    line = lines_of(proxy, source)[0]
    assert (line["attempts"], line["termination"], line["reason"]) == (3, "SC", "econnrefused")
    assert list(errors(proxy).values()) == [1, 1, 1]
    assert await_idle(proxy)['edgeproxy_connections_ended_total{state="SC"}'] == 1


def test_all_attempts_together_take_no_longer_than_twice_the_connect_timeout(edge):
    with hanging_backend() as port:
        proxy = edge([row(f"b{n}", port) for n in range(9)], CONNECT_TIMEOUT_SECS=0.4, CONNECT_ATTEMPTS=9)
        source = fresh_address()
        assert is_refused(proxy, source)
    line = lines_of(proxy, source)[0]
    assert (line["termination"], line["reason"]) == ("sC", "connect_timeout")
    assert 790 <= line["connect_ms"] < 9 * 400  # the event loop's clock is coarser
    assert 2 <= line["attempts"] <= 3  # the last attempt may have had a millisecond left
    await_idle(proxy)


def test_a_backend_that_fails_three_times_in_a_row_is_ejected(edge, origin, refusing):
    proxy = edge([row("near", refusing()), row("far", origin(named("far")), **FAR)])
    sources = [fresh_address() for _ in range(4)]
    for number, source in enumerate(sources):
        assert visit(proxy, source) == "far"
        assert proxy.metrics()['edgeproxy_backend_available{backend="near",pool="default"}'] == (1 if number < 2 else 0)
    assert [lines_of(proxy, source)[0]["attempts"] for source in sources] == [2, 2, 2, 1]
    assert eventually(lambda: proxy.event("backend near is ejected for 10 s"))
    assert proxy.ready()["candidates"] == 1


def test_no_more_than_half_of_the_backends_are_ejected_and_never_the_last(edge, refusing):
    proxy = edge([row(f"b{n}", refusing()) for n in range(3)], CONNECT_ATTEMPTS=3)
    for _ in range(5):
        assert is_refused(proxy, fresh_address())
    assert proxy.ready()["candidates"] == 2


def test_the_only_backend_is_tried_again_and_again(edge, refusing):
    proxy = edge([row("only", refusing())])
    source = fresh_address()
    for _ in range(5):
        assert is_refused(proxy, source)
    for line in lines_of(proxy, source, at_least=5):
        assert (line["backend"], line["attempts"], line["termination"]) == ("only", 1, "SC")


def test_without_a_candidate_the_client_is_reset_and_the_reason_logged(edge, origin, routing_db):
    port = origin(named("a"))
    proxy = edge([row("a", port, deleted=1)])
    assert reason_of_refusal(proxy) == "no_backends"

    load(proxy, routing_db, [row("a", port, weight=0)])
    assert reason_of_refusal(proxy) == "none_available"

    load(proxy, routing_db, [row("a", port, hard_limit=1)])
    with proxy.connect() as first:
        assert name_heard(first) == "a"
        assert reason_of_refusal(proxy) == "all_full"
    samples = await_idle(proxy)
    assert samples['edgeproxy_leases_total{outcome="no_backends"}'] == 1
    assert samples['edgeproxy_leases_total{outcome="none_available"}'] == 1
    assert samples['edgeproxy_leases_total{outcome="all_full"}'] == 1


def reason_of_refusal(edge):
    source = fresh_address()
    assert is_refused(edge, source)
    line = lines_of(edge, source)[0]
    assert (line["backend"], line["attempts"], line["termination"]) == (None, 0, "PE")
    return line["reason"]


def test_the_backend_that_a_lease_was_for_is_freed_when_its_dial_fails(edge, origin, refusing):
    """With hard_limit 1, a leaked lease would make the backend full for ever."""
    near = row("near", refusing(), hard_limit=1)
    proxy = edge([near, row("far", origin(named("far")), **FAR)])
    sources = [fresh_address() for _ in range(2)]
    for source in sources:
        assert visit(proxy, source) == "far"
    assert [lines_of(proxy, source)[0]["attempts"] for source in sources] == [2, 2]
    await_idle(proxy)
