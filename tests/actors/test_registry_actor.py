"""The registry actor by its messages: leasing, releasing, replacing, health, and being built anew after a crash."""

from __future__ import annotations

import gevent
import pytest

from actors.messages import (
    DescribePool,
    DialFailed,
    DialSucceeded,
    LeaseBackend,
    ReleaseLease,
    ReplaceBackends,
    RestoreLease,
)
from actors.runtime import Crash, InvariantBrokenError, ask, tell
from app.domain.model import GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from tests.actors.edge_actors import EdgeActors, backend

BRAZIL = GeoInfo("BR", "sa")


def lease(
    edge: EdgeActors, number: int, preferred: str | None = None, excluded: tuple[str, ...] = ()
) -> Lease | Unleased:
    return ask(edge.addresses.registry, LeaseBackend(number, BRAZIL, preferred, excluded), timeout_s=5)


def test_a_lease_is_counted_when_it_is_granted_and_uncounted_when_it_is_released():
    edge = EdgeActors([backend("a")])
    granted = lease(edge, 1)
    assert isinstance(granted, Lease)
    assert (granted.lease_id, granted.backend, granted.tier, granted.affinity) == (1, backend("a"), 0, Affinity.NEW)
    assert edge.leases() == {"a": 1}
    tell(edge.addresses.registry, ReleaseLease(1))
    assert edge.leases() == {"a": 0}


def test_a_lease_asked_for_twice_under_one_id_counts_once():
    edge = EdgeActors([backend("a"), backend("b")])
    first = lease(edge, 1)
    assert [lease(edge, 1).backend for _ in range(5)] == [first.backend] * 5
    assert sum(edge.leases().values()) == 1


def test_a_lease_released_twice_or_never_granted_is_uncounted_once():
    edge = EdgeActors([backend("a")])
    lease(edge, 1)
    lease(edge, 2)
    for number in (1, 1, 99):
        tell(edge.addresses.registry, ReleaseLease(number))
    assert edge.leases() == {"a": 1}


def test_five_hundred_askers_at_once_never_pass_a_hard_limit():
    edge = EdgeActors([backend("a", hard_limit=100)])
    askers = [gevent.spawn(lease, edge, number) for number in range(500)]
    gevent.joinall(askers, timeout=30, raise_error=True)
    granted = [asker.value for asker in askers if isinstance(asker.value, Lease)]
    refused = [asker.value for asker in askers if isinstance(asker.value, Unleased)]
    assert len(granted) == 100
    assert refused == [Unleased(NoLease.FULL)] * 400
    assert edge.leases() == {"a": 100}


def test_the_bound_backend_is_preferred_and_when_full_overflows_and_when_gone_breaks_the_binding():
    edge = EdgeActors([backend("a", hard_limit=1), backend("b")])
    assert lease(edge, 1, preferred="a").affinity is Affinity.HIT
    overflow = lease(edge, 2, preferred="a")
    assert (overflow.backend.id, overflow.affinity) == ("b", Affinity.OVERFLOW)
    tell(edge.addresses.registry, ReplaceBackends((backend("b"),)))
    assert lease(edge, 3, preferred="a") == Unleased(NoLease.BINDING_BROKEN)


def test_an_excluded_backend_is_not_elected():
    edge = EdgeActors([backend("a"), backend("b")])
    assert {lease(edge, number, excluded=("a",)).backend.id for number in range(10)} == {"b"}
    assert lease(edge, 99, excluded=("a", "b")) == Unleased(NoLease.FULL)


def test_a_backend_that_leaves_the_set_keeps_its_count_until_its_last_lease_ends():
    edge = EdgeActors([backend("a"), backend("b")])
    held = lease(edge, 1)
    gone, other = held.backend.id, {"a": "b", "b": "a"}[held.backend.id]
    tell(edge.addresses.registry, ReplaceBackends((backend(other),)))
    assert edge.leases() == {gone: 1, other: 0}
    tell(edge.addresses.registry, ReleaseLease(1))
    assert edge.leases() == {other: 0}


def test_a_backend_that_comes_back_finds_its_leases_counted():
    edge = EdgeActors([backend("a", hard_limit=1)])
    lease(edge, 1)
    tell(edge.addresses.registry, ReplaceBackends(()))
    assert lease(edge, 2) == Unleased(NoLease.EMPTY)
    tell(edge.addresses.registry, ReplaceBackends((backend("a", hard_limit=1),)))
    assert lease(edge, 3) == Unleased(NoLease.FULL)
    tell(edge.addresses.registry, ReleaseLease(1))
    assert isinstance(lease(edge, 4), Lease)


def test_failed_dials_eject_a_backend_and_a_success_takes_it_back(logged):
    edge = EdgeActors([backend("a"), backend("b"), backend("c"), backend("d")])
    while all(view.is_available for view in ask(edge.addresses.registry, DescribePool(), timeout_s=5)):
        tell(edge.addresses.registry, DialFailed("a"))
    assert any(line.startswith("WARNING: backend a is ejected") for line in logged)
    assert lease(edge, 1, preferred="a") == Unleased(NoLease.BINDING_BROKEN)
    tell(edge.addresses.registry, DialSucceeded("a"))
    assert lease(edge, 2, preferred="a").affinity is Affinity.HIT


def test_dials_of_backends_unknown_to_the_registry_are_nobodys_business():
    edge = EdgeActors([backend("a")])
    tell(edge.addresses.registry, DialFailed("z"))
    tell(edge.addresses.registry, DialSucceeded("z"))
    assert edge.leases() == {"a": 0}


def test_a_successor_counts_the_leases_of_the_connections_open_when_it_was_built():
    edge = EdgeActors([backend("a", hard_limit=3)])
    held = [lease(edge, number) for number in (1, 2)]
    with pytest.raises(InvariantBrokenError):
        ask(edge.addresses.registry, Crash(), timeout_s=5)
    edge.start_registry([backend("a", hard_limit=3)], [(one.lease_id, one.backend) for one in held])
    assert edge.leases() == {"a": 2}
    assert isinstance(lease(edge, 3), Lease)
    assert lease(edge, 4) == Unleased(NoLease.FULL)
    for number in (1, 2, 3):
        tell(edge.addresses.registry, ReleaseLease(number))
    assert edge.leases() == {"a": 0}


def test_a_successor_counts_leases_on_backends_that_left_before_it_was_built():
    edge = EdgeActors()
    edge.start_registry([backend("b")], [(1, backend("a"))])
    assert edge.leases() == {"b": 0, "a": 1}
    assert lease(edge, 2).backend.id == "b"
    tell(edge.addresses.registry, ReleaseLease(1))
    assert edge.leases() == {"b": 1}


def test_a_restored_lease_is_counted_once_however_often_it_is_told():
    edge = EdgeActors([backend("a")])
    for _ in range(3):
        tell(edge.addresses.registry, RestoreLease(1, backend("a")))
    assert edge.leases() == {"a": 1}
    tell(edge.addresses.registry, ReleaseLease(1))
    assert edge.leases() == {"a": 0}
