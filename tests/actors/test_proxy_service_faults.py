"""Leasing while actors are slow or die and connections are killed: no lease is lost, none is counted forever."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gevent
import pytest
from gevent.event import Event

from actors.messages import LeaseBackend
from actors.registry import RegistryActor
from actors.runtime import AskTimeoutError, Crash, GeventFuture, tell
from app import proxy_service
from app.domain.errors import Killed
from app.domain.model import Lease
from app.domain.outcome import State
from tests.actors.edge_actors import EdgeActors, Leasing, backend
from tests.harness import eventually

CLIENT = "10.0.0.1"


class Hold:
    """A registry that handles nothing from the first lease request until `let_go`, then everything in order."""

    def __init__(self) -> None:
        self.is_asked = is_asked = Event()
        self._is_let_go = False
        self._waiting: list[tuple[GeventFuture[Any], Callable[[], Any]]] = []
        hold = self

        class SlowRegistry(RegistryActor):
            def handle(self, message: Any) -> Any:
                if isinstance(message, LeaseBackend):
                    is_asked.set()
                if hold._is_let_go or not is_asked.is_set():
                    return super().handle(message)
                later: GeventFuture[Any] = GeventFuture()
                hold._waiting.append((later, partial(super().handle, message)))
                return later

        self.kind = SlowRegistry

    def let_go(self) -> None:
        self._is_let_go = True
        for response, handle in self._waiting:
            response.set(handle())


@pytest.mark.parametrize("has_affinity", [True, False])
def test_a_connection_killed_while_it_asks_leaves_no_lease_behind(has_affinity):
    hold = Hold()
    edge = EdgeActors([backend("a")], registry=hold.kind)
    leasing = Leasing(edge, has_affinity=has_affinity)
    asker = gevent.spawn(leasing.lease, leasing.client(CLIENT))
    assert hold.is_asked.wait(10)
    asker.kill(Killed(State.KILLED_EARLY, "drain_timeout"))
    hold.let_go()
    assert edge.leases() == {"a": 0}


def test_killing_the_leading_connection_lets_another_lead():
    hold = Hold()
    edge = EdgeActors([backend("a")], registry=hold.kind)
    leasing = Leasing(edge)
    client = leasing.client(CLIENT)
    leader = gevent.spawn(leasing.lease, client)
    assert hold.is_asked.wait(10)
    others = [gevent.spawn(leasing.lease, client) for _ in range(3)]
    gevent.sleep(0)
    leader.kill()
    hold.let_go()
    gevent.joinall(others, timeout=4, raise_error=True)
    assert edge.leases() == {"a": 3}


def test_killing_a_waiting_connection_leaves_no_lease_behind():
    hold = Hold()
    edge = EdgeActors([backend("a")], registry=hold.kind)
    leasing = Leasing(edge)
    client = leasing.client(CLIENT)
    leader = gevent.spawn(leasing.lease, client)
    assert hold.is_asked.wait(10)
    waiting = gevent.spawn(leasing.lease, client)
    gevent.sleep(0)
    waiting.kill()
    hold.let_go()
    assert isinstance(leader.get(timeout=10), Lease)
    assert edge.leases() == {"a": 1}


def test_a_lease_that_comes_too_late_is_given_back(monkeypatch):
    monkeypatch.setattr(proxy_service, "ASK_TIMEOUT_SECONDS", 0.02)
    hold = Hold()
    edge = EdgeActors([backend("a")], registry=hold.kind)
    leasing = Leasing(edge)
    with pytest.raises(AskTimeoutError):
        leasing.lease(leasing.client(CLIENT))
    hold.let_go()
    assert edge.leases() == {"a": 0}


def test_the_next_connection_does_not_wait_for_a_slow_selection(monkeypatch):
    monkeypatch.setattr(proxy_service, "ASK_TIMEOUT_SECONDS", 0.02)
    hold = Hold()
    edge = EdgeActors([backend("a")], registry=hold.kind)
    leasing = Leasing(edge)
    client = leasing.client(CLIENT)
    with pytest.raises(AskTimeoutError):
        leasing.lease(client)
    hold.let_go()
    monkeypatch.setattr(proxy_service, "ASK_TIMEOUT_SECONDS", 0.5)
    assert leasing.lease(client).backend.id == "a"
    assert edge.leases() == {"a": 1}


def test_a_lease_that_a_dying_registry_granted_is_counted_by_its_successor():
    edge = EdgeActors([backend("a")])

    class DiesAfterGranting(RegistryActor):
        """Its successor is there before the asker has heard, and was built without knowing of the lease."""

        def handle(self, message: Any) -> Any:
            response = super().handle(message)
            if isinstance(message, LeaseBackend):
                self.stop()
                edge.start_registry([backend("a")])
            return response

    edge.start_registry([backend("a")], kind=DiesAfterGranting)
    leasing = Leasing(edge)
    lease = leasing.lease(leasing.client(CLIENT))
    assert edge.leases() == {"a": 1}
    leasing.service.release(lease.lease_id)
    assert edge.leases() == {"a": 0}


def test_a_request_lost_with_a_dying_registry_is_served_and_counted_once_by_its_successor():
    edge = EdgeActors([backend("a")])
    leasing = Leasing(edge)
    client = leasing.client(CLIENT)
    leasing.bind(client)
    tell(edge.addresses.registry, Crash())
    asker = gevent.spawn(leasing.lease, client)
    eventually(lambda: not edge.addresses.registry.ref.is_alive())
    edge.start_registry([backend("a")])
    assert asker.get(timeout=4).backend.id == "a"
    assert edge.leases() == {"a": 1}


def test_fifty_connections_of_one_client_asking_while_the_bindings_die_are_all_served():
    hold = Hold()
    edge = EdgeActors([backend("a"), backend("b")], registry=hold.kind)
    leasing = Leasing(edge)
    client = leasing.client(CLIENT)
    askers = [gevent.spawn(leasing.lease, client) for _ in range(50)]
    assert hold.is_asked.wait(10)
    tell(edge.addresses.bindings, Crash())
    hold.let_go()  # the selection ends without an asker
    eventually(lambda: not edge.addresses.bindings.ref.is_alive())
    edge.start_bindings()
    gevent.joinall(askers, timeout=4, raise_error=True)
    assert sum(edge.leases().values()) == 50


def test_a_client_that_asks_while_the_metrics_are_dead_is_served():
    edge = EdgeActors([backend("a")])
    leasing = Leasing(edge)
    tell(edge.addresses.metrics, Crash())
    eventually(lambda: not edge.addresses.metrics.ref.is_alive())
    client = leasing.client(CLIENT)
    lease = leasing.lease(client)
    leasing.service.connected(lease, client, 0.001)
    leasing.service.closed(client, 0, State.NORMAL)
    assert edge.leases() == {"a": 1}
