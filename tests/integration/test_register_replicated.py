"""`python -m app register` with replication: a service registered at one edge serves at all POPs."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from tests.harness import eventually
from tests.integration.etcd_servers import etcd_running, pops
from tests.integration.registered_services import named_server, start
from tests.traffic import free_ports, who

__all__ = ["start"]

KEY = "/edgeproxy/v1/backends/"


@pytest.fixture(scope="module")
def etcd():
    with etcd_running() as one:
        yield one


@pytest.fixture(scope="module")
def places(etcd, tmp_path_factory):
    """Two POPs, shared by the tests of this file."""
    with pops(tmp_path_factory.mktemp("pops")) as make:
        yield make("gru", etcd.endpoints).start(), make("fra", etcd.endpoints).start()


@pytest.fixture
def service(etcd, places, start):
    """A service registered at the first POP as "a", with a TTL of 3 s."""
    here = places[0]
    host, port = here.admin.address
    at = SimpleNamespace(url=f"http://{host}:{port}", token=here.folder / "admin.token")
    (port,) = free_ports(1)
    one = start(at, "--app", "web", "--id", "a", "--ttl", 3, "--port", port, command=named_server("a", port))
    one.wait_for("is registered at")
    yield one
    one.stop()
    eventually(lambda: not any(place.rows() for place in places), 40, "nothing is left")


def test_a_service_registered_at_one_pop_serves_at_all_and_is_removed_everywhere(etcd, places, service):
    here, there = places
    eventually(lambda: who(there.edge) == "a", what="it serves at the other")
    assert etcd.record(KEY + "a")["lease"]
    service.process.send_signal(signal.SIGTERM)
    service.wait_for("is draining")
    eventually(lambda: who(there.edge) == "", 2, "nobody is sent there any more")
    assert service.wait() == 128 + signal.SIGTERM
    assert etcd.get(KEY + "a") is None
    eventually(lambda: here.rows() == there.rows() == {}, what="gone everywhere")


def test_a_lease_that_was_revoked_is_granted_again(etcd, places, service):
    before = etcd.record(KEY + "a")["lease"]
    etcd.call("/v3/lease/revoke", {"ID": before})
    service.wait_for("a was lost at the edge and is registered again")
    assert etcd.record(KEY + "a")["lease"] != before
    eventually(lambda: who(places[1].edge) == "a", what="it serves at the other")


def test_a_program_that_is_killed_is_gone_everywhere_at_once(etcd, places, service):
    eventually(lambda: who(places[1].edge) == "a", what="it serves at the other")
    began = time.monotonic()
    os.kill(service.program, signal.SIGKILL)
    eventually(lambda: who(places[1].edge) == "", what="nobody is sent there any more")
    assert time.monotonic() - began < 3
    assert service.wait() == 128 + signal.SIGKILL


def test_it_lives_through_the_loss_of_its_replicator(etcd, places, service):
    here, there = places
    here.stop_replicator(signal.SIGKILL)
    service.wait_for("(503)")
    here.start_replicator()
    eventually(lambda: etcd.get(KEY + "a"), 15, "it is registered again")
    eventually(lambda: who(here.edge) == who(there.edge) == "a", what="it serves at both")
