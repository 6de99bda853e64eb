"""Backends from etcd: what is put there serves at every POP, and goes on serving when etcd is gone."""

from __future__ import annotations

import pytest

from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, pops
from tests.traffic import named, who

GOOD_RECORDS = 'edgeproxy_replica_records{state="good"}'


@pytest.fixture(scope="module")
def etcd():
    with etcd_running() as one:
        yield one


@pytest.fixture
def pop(tmp_path):
    with pops(tmp_path) as make:
        yield make


@pytest.fixture
def clean(etcd):
    """The one etcd of this module, without any key."""
    from tests.integration.etcd_servers import text64

    etcd.call("/v3/kv/deleterange", {"key": text64("/"), "range_end": text64("0")})
    return etcd


def test_what_is_put_in_etcd_is_served_at_two_edges(clean, pop, origin):
    one, two = pop("gru", clean.endpoints).start(), pop("fra", clean.endpoints).start()
    clean.put_backend("a", origin(named("a")))
    for place in (one, two):
        eventually(lambda place=place: who(place.edge) == "a", what="it serves")
        eventually(lambda place=place: place.edge.metrics().get(GOOD_RECORDS) == 1, what="it knows how many there are")
        assert place.edge.metrics()["edgeproxy_replica_age_seconds"] < 5
        assert place.edge.ready()["replica"]["age_seconds"] < 5
    clean.delete("/edgeproxy/v1/backends/a")
    for place in (one, two):
        eventually(lambda place=place: who(place.edge) == "", what="it serves no more")


def test_what_registers_at_one_pop_is_served_at_the_other(clean, pop, origin):
    one, two = pop("gru", clean.endpoints).start(), pop("fra", clean.endpoints).start()
    service = {"host": "127.0.0.1", "port": origin(named("a")), "region": "sa", "country": "BR", "ttl_seconds": 5}
    first = one.admin.call("PUT", "/api/registrations/a", service)
    assert (first.status, first.json) == (200, {"ttl_seconds": 5, "is_new": True})
    eventually(lambda: who(two.edge) == "a", what="it serves")
    revision = clean.revision()
    assert one.admin.call("PUT", "/api/registrations/a", service).json == {"ttl_seconds": 5, "is_new": False}
    assert clean.get("/edgeproxy/v1/backends/a")["ttl_seconds"] == 5
    assert clean.revision() <= revision + 1, "a heartbeat writes nothing; there may be one of the replicators' own"
    two.admin.call("PUT", "/api/registrations/a", {**service, "draining": True})
    eventually(lambda: who(two.edge) == "", what="drained")
    assert one.admin.call("DELETE", "/api/registrations/a").status == 204
    eventually(lambda: not one.rows() and not two.rows(), what="gone")
    assert one.admin.call("DELETE", "/api/registrations/a").problem["detail"] == "no such registration: a"


def test_without_etcd_the_replicator_idles_with_one_line(pop):
    alone = pop("gru", "")
    alone.start_replicator()
    (line,) = eventually(alone.log, what="its line")
    assert line["event"] == "idle: EDGEPROXY_ETCD_ENDPOINTS is not set, so this machine is the only one"
    assert alone.replicator.poll() is None
    assert alone.stop_replicator() == 0
    assert alone.log() == [line]
    assert not alone.database.exists()
