"""The handlers actor by its messages: grants, crashes, and ten thousand requests during fifty swaps."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import gevent
import pytest
from gevent.pool import Pool

from actors.handler_messages import (
    AcquireHandler,
    DeployHandler,
    DescribeEndpoints,
    ReplaceEndpoints,
    UndeployHandler,
)
from actors.handlers import HandlersActor
from actors.runtime import Address, AskTimeoutError, Crash, InvariantBrokenError, Ping, ask
from actors.supervisor import Supervisor
from app.domain.endpoints import Endpoint, MethodNotAllowed
from app.domain.handler_table import (
    Busy,
    EndpointView,
    Grant,
    HandlerTable,
    NoEndpoint,
    NotDeployed,
    Version,
)
from app.gateway.dispatch import Dispatch
from app.gateway.handler_module import LoadedHandler, load_handler
from app.gateway.module_garbage import MOST_DROPPED, ModuleGarbage
from app.gateway.router import Router
from tests.harness import eventually

HELLO = Endpoint("hello", "hello", "/hello/<name>", max_concurrency=0)
TIGHT = Endpoint("tight", "tight", "/tight", methods=("POST",), max_concurrency=1)


class Gateway:
    """A supervised handlers actor with two endpoints, and the way of a request to it."""

    def __init__(self) -> None:
        self.address = Address("handlers")
        self.dropped: list[int] = []
        self.garbage = ModuleGarbage()
        table = HandlerTable(Router())
        self.supervisor = Supervisor(lambda _name: None)
        self.supervisor.supervise(self.address, lambda: HandlersActor.start(table, self._on_drop))
        ask(self.address, ReplaceEndpoints((HELLO, TIGHT), Router([HELLO, TIGHT])), timeout_s=5)
        self.dispatch = Dispatch(self.address)

    def _on_drop(self) -> None:
        self.dropped.append(1)
        self.garbage.dropped()

    def deploy(self, number: int, endpoint_id: str = "hello") -> weakref.ref[LoadedHandler]:
        """Deploy a version that answers with its number, twice; returns a weak reference to its function."""
        source = (
            f"import time\nNUMBER = {number}\nDATA = bytes(20_000)\n\ndef handle(request, context):\n"
            "    first = NUMBER\n    time.sleep(request)\n    return first, NUMBER\n"
        )
        handler = load_handler(f"{endpoint_id} v{number}", source)
        message = DeployHandler(endpoint_id, Version(number, "sum", float(number)), handler)
        assert ask(self.address, message, timeout_s=5)
        return weakref.ref(handler.module.handle)

    def view(self, endpoint_id: str = "hello") -> EndpointView:
        views = ask(self.address, DescribeEndpoints(), timeout_s=5)
        return next(view for view in views if view.endpoint.id == endpoint_id)

    def acquire(self, path: str = "/hello/you", method: str = "GET") -> object:
        return self.dispatch.acquire("example.com", path, method)

    def grant(self) -> Grant:
        found = self.acquire()
        assert isinstance(found, Grant)
        return found


@pytest.fixture
def gateway():
    made = Gateway()
    yield made
    made.supervisor.stop()


def test_a_request_gets_what_serves_it(gateway):
    gateway.deploy(1)
    grant = gateway.grant()
    assert (grant.endpoint, grant.params, grant.version.number) == (HELLO, {"name": "you"}, 1)
    assert grant.handler(0, None) == (1, 1)
    gateway.dispatch.release(grant.grant_id, failed=False)
    assert (gateway.view().active, gateway.view().served) == (0, 1)


def test_requests_without_a_handler(gateway):
    assert gateway.acquire("/nothing") == NoEndpoint()
    assert gateway.acquire(method="POST") == MethodNotAllowed(("GET", "HEAD"))
    assert gateway.acquire() == NotDeployed("hello")


def test_over_the_limit(gateway):
    gateway.deploy(1, "tight")
    first = gateway.acquire("/tight", "POST")
    assert isinstance(first, Grant)
    assert gateway.acquire("/tight", "POST") == Busy("tight", 1)
    gateway.dispatch.release(first.grant_id, failed=True)
    assert isinstance(gateway.acquire("/tight", "POST"), Grant)
    assert gateway.view("tight").refused == 1


def test_a_swap_lets_the_old_version_finish(gateway, logged):
    gateway.deploy(1)
    old = gateway.grant()
    gateway.deploy(2)
    assert gateway.grant().version.number == 2
    assert old.handler(0, None) == (1, 1)
    assert gateway.dropped == []
    gateway.dispatch.release(old.grant_id, failed=False)
    assert gateway.dropped == [1]
    assert "INFO: endpoint hello: version 1 was dropped: no request uses it\n" in logged


def test_undeploying_and_endpoints_that_are_not_there(gateway):
    gateway.deploy(1)
    assert ask(gateway.address, UndeployHandler("hello"), timeout_s=5)
    assert gateway.acquire() == NotDeployed("hello")
    assert not ask(gateway.address, UndeployHandler("nobody"), timeout_s=5)
    assert not ask(gateway.address, DeployHandler("nobody", Version(1, "", 0.0), print), timeout_s=5)


def crash(gateway: Gateway) -> None:
    with pytest.raises(InvariantBrokenError):
        ask(gateway.address, Crash(), timeout_s=5)


def test_a_crash_costs_nothing(gateway):
    gateway.deploy(1)
    old = gateway.grant()
    crash(gateway)
    assert gateway.grant().version.number == 1
    gateway.deploy(2)
    crash(gateway)
    gateway.dispatch.release(old.grant_id, failed=False)
    assert [one.version.number for one in gateway.view().draining] == [1], "the other grant of version 1"
    assert gateway.view().served == 1


def test_a_grant_asked_for_again_after_a_crash_is_the_same(gateway):
    gateway.deploy(1)
    message = AcquireHandler(77, "example.com", "/hello/you", "GET")
    first = ask(gateway.address, message, timeout_s=5)
    crash(gateway)
    assert ask(gateway.address, message, timeout_s=5) is first
    assert gateway.view().active == 1


def test_a_request_that_gives_up_asking_holds_nothing():
    address = Address("handlers")
    dispatch = Dispatch(address)
    table = HandlerTable(Router())
    with gevent.Timeout(0.05), pytest.raises(gevent.Timeout):
        dispatch.acquire("h", "/", "GET")  # no actor has been published yet
    address.publish(HandlersActor.start(table))
    assert ask(address, Ping(), timeout_s=5)
    assert isinstance(dispatch.acquire("h", "/", "GET"), NoEndpoint)


def test_a_release_that_is_interrupted_is_made_up_for(gateway):
    gateway.deploy(1)
    grant = gateway.grant()
    nowhere = Address("handlers")
    dispatch = Dispatch(nowhere)
    with gevent.Timeout(0.05), pytest.raises(gevent.Timeout):
        dispatch.release(grant.grant_id, failed=False)
    nowhere.publish(gateway.address.ref)
    eventually(lambda: gateway.view().active == 0)


def test_a_release_without_an_actor_gives_up_silently(monkeypatch):
    monkeypatch.setattr("app.gateway.dispatch.ASK_TIMEOUT_SECONDS", 0.05)
    dispatch = Dispatch(Address("handlers"))
    dispatch.release(1, failed=False)
    with pytest.raises(AskTimeoutError):
        dispatch.acquire("h", "/", "GET")


REQUESTS, SWAPS, CRASHES, AT_ONCE = 10_000, 50, 3, 100


def test_ten_thousand_requests_during_fifty_swaps_and_three_crashes(gateway):
    gateway.deploy(0)
    responses: list[tuple[int, tuple[int, int]]] = []

    def serve(number: int) -> None:
        grant = gateway.grant()
        responses.append((grant.version.number, grant.handler(0.001 if number % 3 else 0, None)))
        gateway.dispatch.release(grant.grant_id, failed=False)

    old: list[weakref.ref[LoadedHandler]] = []
    pool = Pool(AT_ONCE)
    for number in range(REQUESTS):
        if number % (REQUESTS // SWAPS) == REQUESTS // SWAPS - 1:
            old.append(gateway.deploy(len(old) + 1))
        if number % 3000 == 1500:
            crash(gateway)
        pool.spawn(serve, number)
    pool.join()

    assert len(responses) == REQUESTS, "none fails"
    assert all(response == (version, version) for version, response in responses), (
        "each is answered wholly by one version"
    )
    assert {version for version, _ in responses} >= set(range(SWAPS)), "every version has served"
    view = gateway.view()
    assert (view.active, view.served, view.errors, view.draining) == (0, REQUESTS, 0, ())
    assert len(gateway.dropped) == SWAPS
    assert gateway.supervisor.children[0].restart_count == CRASHES
    gc.collect()
    assert [reference() is not None for reference in old] == [False] * (SWAPS - 1) + [True], "only the last one is left"


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_thousand_swaps_leave_memory_flat_though_old_garbage_is_not_collected(gateway):
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000, 2, 2**31 - 1)  # as app.edge.garbage does in a busy edge
    try:
        for number in range(200):
            gateway.deploy(number)
        before = resident_bytes()
        for number in range(200, 1200):
            gateway.deploy(number)
            gc.collect(1)  # what has served for a while is old
            gevent.sleep(0)
        grown = resident_bytes() - before
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()
    assert len(gateway.dropped) == 1199
    assert grown < 2 << 20, f"{grown} bytes more"


def test_dropped_versions_are_collected_when_they_are_many(monkeypatch):
    collections: list[int] = []
    monkeypatch.setattr(gc, "collect", lambda: collections.append(1))
    garbage = ModuleGarbage()
    for _ in range(MOST_DROPPED - 1):
        garbage.dropped()
    gevent.sleep(0)
    assert collections == []
    garbage.dropped()
    eventually(lambda: collections)
    assert collections == [1]
