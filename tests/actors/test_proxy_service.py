"""Client -> lease through the real actors: what the binding does for a lease, and what becomes of failed dials."""

from __future__ import annotations

import random

import gevent
import pytest

from actors.messages import ReplaceBackends, TakeSnapshot
from actors.runtime import ask, tell
from app.domain import metric_names as names
from app.domain.errors import DownstreamError, NoBackendError
from app.domain.model import Backend, GeoInfo, Lease
from app.domain.outcome import Affinity, NoLease, Refusal, State
from app.proxy_service import Client
from tests.actors.edge_actors import EdgeActors, Leasing, backend


def four(**columns: object) -> list[Backend]:
    return [backend(name, **columns) for name in "abcd"]


def lease_all(leasing: Leasing, clients: list[Client]) -> list[Lease]:
    """Let these connections ask all at once."""
    askers = [gevent.spawn(leasing.lease, client) for client in clients]
    gevent.joinall(askers, timeout=30, raise_error=True)
    return [asker.value for asker in askers]


def test_a_client_is_known_by_pool_and_address_and_by_where_it_is():
    leasing = Leasing(EdgeActors(), places={"200.160.2.3": GeoInfo("BR", "sa")})
    client = leasing.client("200.160.2.3")
    assert (client.address, client.geo) == ("200.160.2.3", GeoInfo("BR", "sa"))
    assert client.key == leasing.client("200.160.2.3").key != leasing.client("200.160.2.4").key
    assert leasing.client("203.0.113.1").geo is None


def test_ipv6_clients_of_one_prefix_are_one_client():
    leasing = Leasing(EdgeActors(), ipv6_prefix=64)
    assert leasing.client("2001:db8::1").key == leasing.client("2001:db8::2").key
    assert leasing.client("2001:db8::1").key != leasing.client("2001:db8:0:1::1").key


def test_the_first_connection_of_a_client_is_new_and_the_next_ones_hit_its_binding():
    leasing = Leasing(EdgeActors(four()))
    client = leasing.client("10.0.0.1")
    first = leasing.lease(client)
    leasing.service.connected(first, client, 0.001)
    later = [leasing.lease(client) for _ in range(5)]
    assert first.affinity is Affinity.NEW
    assert {lease.affinity for lease in later} == {Affinity.HIT}
    assert {lease.backend.id for lease in later} == {first.backend.id}


def test_geography_decides_where_a_new_client_goes():
    far = backend("fr", country="FR", region="eu")
    leasing = Leasing(EdgeActors([*four(), far]), places={"90.0.0.1": GeoInfo("FR", "eu")})
    lease = leasing.lease(leasing.client("90.0.0.1"))
    assert (lease.backend.id, lease.tier) == ("fr", 0)


def test_fifty_first_connections_of_one_client_land_on_one_backend():
    leasing = Leasing(EdgeActors(four()))
    leases = lease_all(leasing, [leasing.client("10.0.0.1")] * 50)
    assert len({lease.backend.id for lease in leases}) == 1
    assert sorted(lease.affinity for lease in leases) == ["hit"] * 49 + ["new"]


def test_fifty_first_connections_of_fifty_clients_are_spread():
    leasing = Leasing(EdgeActors(four()))
    lease_all(leasing, [leasing.client(f"10.0.0.{number}") for number in range(50)])
    assert sorted(leasing.edge.leases().values()) == [12, 12, 13, 13]


def test_a_client_whose_backend_has_gone_is_bound_to_another():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    gone = leasing.bind(client)
    tell(edge.addresses.registry, ReplaceBackends(tuple(one for one in four() if one.id != gone)))
    moved = leasing.lease(client)
    assert (moved.affinity, moved.backend.id != gone) == (Affinity.REBIND, True)
    leasing.service.connected(moved, client, 0.001)
    again = leasing.lease(client)
    assert (again.affinity, again.backend) == (Affinity.HIT, moved.backend)


@pytest.mark.parametrize(
    "state", [{"is_healthy": False}, {"is_deleted": True}], ids=["unhealthy in the database", "deleted"]
)
def test_fifty_connections_of_a_client_whose_backend_went_away_rebind_to_one_backend(state):
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    gone = leasing.bind(client)
    changed = tuple(backend(one.id, **(state if one.id == gone else {})) for one in four())
    tell(edge.addresses.registry, ReplaceBackends(changed))
    leases = lease_all(leasing, [client] * 50)
    assert len({lease.backend.id for lease in leases}) == 1
    assert gone not in {lease.backend.id for lease in leases}
    assert Affinity.NEW not in {lease.affinity for lease in leases}


def test_fifty_connections_that_could_not_reach_their_backend_try_the_same_one_next():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    first = lease_all(leasing, [client] * 50)
    refused = first[0].backend.id

    def again(failed: Lease) -> Lease:
        leasing.service.dial_failed(failed, client, "econnrefused")
        return leasing.lease(client, tried=(refused,))

    askers = [gevent.spawn(again, failed) for failed in first]
    gevent.joinall(askers, timeout=30, raise_error=True)
    assert len({asker.value.backend.id for asker in askers} | {refused}) == 2
    assert sum(edge.leases().values()) == 50


def test_a_full_backend_lets_one_connection_overflow_and_keeps_its_client():
    edge = EdgeActors(four(hard_limit=1))
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    home = leasing.lease(client)
    leasing.service.connected(home, client, 0.001)
    elsewhere = leasing.lease(client)
    leasing.service.connected(elsewhere, client, 0.001)
    assert (elsewhere.affinity, elsewhere.backend != home.backend) == (Affinity.OVERFLOW, True)
    leasing.service.release(home.lease_id)
    back = leasing.lease(client)
    assert (back.affinity, back.backend) == (Affinity.HIT, home.backend)


def test_a_bound_client_still_comes_to_a_backend_of_weight_0_and_a_new_one_does_not():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    old = leasing.client("10.0.0.1")
    home = leasing.bind(old)
    tell(edge.addresses.registry, ReplaceBackends(tuple(backend(x.id, weight=int(x.id != home)) for x in four())))
    assert leasing.lease(old).backend.id == home
    newcomers = lease_all(leasing, [leasing.client(f"10.0.1.{number}") for number in range(20)])
    assert home not in {lease.backend.id for lease in newcomers}


def test_nobody_to_lease_is_an_error_with_its_reason_and_is_counted():
    edge = EdgeActors()
    leasing = Leasing(edge)
    for backends, reason in (
        ((), NoLease.EMPTY),
        ((backend("a", is_healthy=False),), NoLease.DOWN),
    ):
        tell(edge.addresses.registry, ReplaceBackends(backends))
        with pytest.raises(NoBackendError) as caught:
            leasing.lease(leasing.client("10.0.0.1"))
        assert (caught.value.state, caught.value.reason) == (State.NO_BACKEND, reason)
        assert counted(edge)[names.LEASES][(reason,)] == 1


def test_fifty_connections_of_a_client_that_finds_nobody_all_hear_so():
    leasing = Leasing(EdgeActors())
    askers = [gevent.spawn(outcome, leasing, leasing.client("10.0.0.1")) for _ in range(50)]
    gevent.joinall(askers, timeout=4, raise_error=True)
    assert [asker.value for asker in askers] == [NoLease.EMPTY] * 50


def test_a_client_over_its_limit_is_refused_and_counted_and_takes_no_lease():
    edge = EdgeActors(four(), max_connections_per_client=2)
    leasing = Leasing(edge, has_client_limits=True)
    client = leasing.client("10.0.0.1")
    assert [outcome(leasing, client) for _ in range(3)] == ["leased", "leased", Refusal.CLIENT_CONNECTIONS]
    assert sum(edge.leases().values()) == 2
    assert counted(edge)[names.CONNECTIONS_REFUSED] == {(Refusal.CLIENT_CONNECTIONS,): 1}
    leasing.service.closed(client, 1, State.NORMAL)
    assert outcome(leasing, client) == "leased"


def test_a_retry_of_the_same_connection_does_not_count_against_the_limit():
    edge = EdgeActors(four(), max_connections_per_client=1)
    leasing = Leasing(edge, has_client_limits=True)
    client = leasing.client("10.0.0.1")
    first = leasing.lease(client)
    leasing.service.dial_failed(first, client, "econnrefused")
    assert leasing.lease(client, tried=(first.backend.id,), admission=first.lease_id).backend != first.backend


def test_a_broken_binding_is_not_counted_twice_against_the_limit():
    edge = EdgeActors(four(), max_connections_per_client=1)
    leasing = Leasing(edge, has_client_limits=True)
    client = leasing.client("10.0.0.1")
    edge.table.bind(client.key, "gone", 1e12)
    lease = leasing.lease(client)
    assert lease.affinity is Affinity.REBIND
    leasing.service.closed(client, lease.lease_id, State.NORMAL)
    assert outcome(leasing, client) == "leased"


def test_a_failed_dial_gives_its_lease_back_unbinds_the_client_and_is_counted():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    failed = leasing.lease(client)
    leasing.service.dial_failed(failed, client, "econnrefused")
    assert sum(edge.leases().values()) == 0
    assert counted(edge)[names.BACKEND_ERRORS] == {(failed.backend.id, "econnrefused"): 1}
    other = leasing.lease(client, tried=(failed.backend.id,))
    assert (other.affinity, other.backend != failed.backend) == (Affinity.REBIND, True)


def test_what_connected_is_counted_by_backend_affinity_and_time():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    lease = leasing.lease(client)
    leasing.service.connected(lease, client, 0.003)
    leasing.service.closed(client, 0, State.NORMAL)
    leasing.service.failed("connection")
    assert counted(edge)[names.BACKEND_CONNECTIONS] == {(lease.backend.id,): 1}
    assert counted(edge)[names.LEASES] == {("new",): 1}
    assert counted(edge)[names.CONNECTIONS_ENDED] == {("--",): 1}
    assert counted(edge)[names.INTERNAL_ERRORS] == {("connection",): 1}


def test_after_any_coming_going_and_failing_of_many_clients_every_count_returns_to_zero():
    edge = EdgeActors(four(hard_limit=8))
    leasing = Leasing(edge)
    chance = random.Random(7)

    def live(client: Client) -> None:
        try:
            lease = leasing.lease(client)
        except NoBackendError:
            return
        gevent.sleep(chance.random() / 100)
        if chance.random() < 0.3:
            leasing.service.dial_failed(lease, client, "econnrefused")
        else:
            leasing.service.connected(lease, client, 0.001)
            gevent.sleep(chance.random() / 100)
        leasing.service.release(lease.lease_id)

    lives = [gevent.spawn(live, leasing.client(f"10.0.0.{number % 20}")) for number in range(300)]
    gevent.sleep(0.02)
    assert max(edge.leases().values()) <= 8
    gevent.joinall(lives, timeout=30, raise_error=True)
    assert set(edge.leases().values()) == {0}


def counted(edge: EdgeActors) -> dict[str, dict[tuple[str, ...], float]]:
    return dict(ask(edge.addresses.metrics, TakeSnapshot(), timeout_s=5).counters)


def outcome(leasing: Leasing, client: Client) -> str:
    try:
        leasing.lease(client)
    except (NoBackendError, DownstreamError) as ended:
        return ended.reason
    return "leased"
