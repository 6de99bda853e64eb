"""Caches behind service actors: Redis and memcached give the same results for the same calls."""

from __future__ import annotations

from collections.abc import Iterator

import gevent
import pytest

from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.gateway.clients import Cache, ServiceError
from app.outbound.service_connectors import connector
from tests.harness import eventually
from tests.integration.service_peers import Memcached, Peer, Redis, running, start_up


@pytest.fixture(scope="module", params=[Redis, Memcached], ids=["redis", "memcached"])
def peer(request) -> Iterator[Peer]:
    with running(request.param) as one:
        yield one


@pytest.fixture
def services() -> Iterator[Services]:
    every = Services(Supervisor(on_give_up=lambda name: None), connector)
    yield every
    every.stop_all(within_seconds=0.1)


@pytest.fixture
def cache(services, peer) -> Cache:
    spec = peer.spec("sessions", connections=2)
    start_up(services, spec)
    client = Cache(spec.name, services.address("cache", spec.name)[0], spec.timeout_seconds)
    for key in ("key", "numbers"):
        client.delete(key)
    return client


def test_a_value_can_be_read_until_it_is_deleted(cache):
    assert cache.get("key") is None
    cache.set("key", b"\x00\xff\r\nSTORED\r\n")
    assert cache.get("key") == b"\x00\xff\r\nSTORED\r\n"
    cache.set("key", "schön")
    assert cache.get("key") == "schön".encode()
    cache.set("key", b"")
    assert cache.get("key") == b""
    assert (cache.delete("key"), cache.delete("key"), cache.get("key")) == (True, False, None)


def test_a_key_may_be_any_text_without_spaces(cache):
    cache.set("schlüssel:1/2", b"x")
    assert cache.get("schlüssel:1/2") == b"x"


def test_numbers_are_counted_from_nothing_and_by_many_at_once(cache):
    assert [cache.incr("numbers"), cache.incr("numbers", 4), cache.incr("numbers", -2)] == [1, 5, 3]
    gevent.joinall([gevent.spawn(cache.incr, "numbers") for _ in range(100)], raise_error=True)
    assert cache.incr("numbers", 0) == 103


def test_a_value_expires_after_its_ttl(cache):
    cache.set("key", b"x", ttl=1)
    assert cache.expire("numbers", 1) is False
    cache.set("numbers", b"7")
    assert cache.expire("numbers", 1) is True
    assert (cache.get("key"), cache.get("numbers")) == (b"x", b"7")
    eventually(lambda: cache.get("key") is None and cache.get("numbers") is None)


def test_a_value_may_stay_longer_than_a_month(cache):
    cache.set("key", b"x", ttl=40 * 24 * 3600)
    assert cache.get("key") == b"x"


def test_an_operation_refused_by_the_cache_is_an_error_and_the_service_stays_up(cache, services):
    cache.set("key", b"no number")
    with pytest.raises(ServiceError) as caught:
        cache.incr("key")
    assert type(caught.value) is ServiceError
    assert cache.get("key") == b"no number"
    counts = services.describe_one("sessions").counts
    assert (counts.is_up, counts.errors, counts.down) == (True, 1, 0)


def test_it_can_be_tested(cache, services):
    assert 0 < services.test("sessions") < 5


def test_a_key_that_memcached_cannot_have_is_refused(services, peer, cache):
    if peer.engine != "memcached":
        assert cache.get("a key " + "x" * 300) is None
        return
    for key in ("a key", "x" * 300):
        with pytest.raises(ServiceError):
            cache.get(key)
    with pytest.raises(ServiceError):
        cache.set("key", b"x" * 2_000_000)
    assert cache.get("key") is None
