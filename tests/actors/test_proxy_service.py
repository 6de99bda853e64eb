"""Client -> lease through the real actors: the effect of bindings on leases, and failed dials."""

from __future__ import annotations

import random

import gevent
import pytest

from actors.messages import DescribePool, ReplaceBackends, ReplaceLimits, TakeSnapshot
from actors.runtime import ask, tell
from app.domain import metric_names as names
from app.domain.client import Client
from app.domain.errors import DownstreamError, NoBackendError
from app.domain.health import HealthRules, HealthState
from app.domain.limits import LimitRules
from app.domain.model import Backend, GeoInfo, Lease
from app.domain.outcome import Affinity, NoLease, Refusal, State
from app.domain.plan import PoolPlan, SelectorPlan
from tests.actors.edge_actors import FRONTEND, POOL, EdgeActors, Leasing, backend


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


def test_a_client_of_a_removed_backend_is_bound_to_another():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    gone = leasing.bind(client)
    tell(edge.addresses.registry, ReplaceBackends(POOL, tuple(one for one in four() if one.id != gone)))
    moved = leasing.lease(client)
    assert (moved.affinity, moved.backend.id != gone) == (Affinity.REBIND, True)
    leasing.service.connected(moved, client, 0.001)
    again = leasing.lease(client)
    assert (again.affinity, again.backend) == (Affinity.HIT, moved.backend)


@pytest.mark.parametrize(
    "state", [{"is_healthy": False}, {"is_deleted": True}], ids=["unhealthy in the database", "deleted"]
)
def test_fifty_connections_of_a_client_of_a_removed_backend_rebind_to_one(state):
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    gone = leasing.bind(client)
    changed = tuple(backend(one.id, **(state if one.id == gone else {})) for one in four())
    tell(edge.addresses.registry, ReplaceBackends(POOL, changed))
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
    tell(edge.addresses.registry, ReplaceBackends(POOL, tuple(backend(x.id, weight=int(x.id != home)) for x in four())))
    assert leasing.lease(old).backend.id == home
    newcomers = lease_all(leasing, [leasing.client(f"10.0.1.{number}") for number in range(20)])
    assert home not in {lease.backend.id for lease in newcomers}


def test_a_refused_lease_is_an_error_with_its_reason_and_is_counted():
    edge = EdgeActors()
    leasing = Leasing(edge)
    for backends, reason in (
        ((), NoLease.EMPTY),
        ((backend("a", is_healthy=False),), NoLease.DOWN),
    ):
        tell(edge.addresses.registry, ReplaceBackends(POOL, backends))
        with pytest.raises(NoBackendError) as caught:
            leasing.lease(leasing.client("10.0.0.1"))
        assert (caught.value.state, caught.value.reason) == (State.NO_BACKEND, reason)
        assert counted(edge)[names.LEASES][(reason,)] == 1


def test_fifty_connections_of_a_client_without_a_backend_all_fail():
    leasing = Leasing(EdgeActors())
    askers = [gevent.spawn(outcome, leasing, leasing.client("10.0.0.1")) for _ in range(50)]
    gevent.joinall(askers, timeout=4, raise_error=True)
    assert [asker.value for asker in askers] == [NoLease.EMPTY] * 50


def test_a_client_over_its_limit_is_refused_and_counted_until_one_of_its_connections_ends():
    edge = EdgeActors(four(), max_connections_per_client=2)
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    assert [admission(leasing, client, number) for number in (1, 2, 3)] == [None, None, Refusal.CLIENT_CONNECTIONS]
    assert counted(edge)[names.CONNECTIONS_REFUSED] == {(Refusal.CLIENT_CONNECTIONS,): 1}
    leasing.service.closed(client, 1, State.NORMAL)
    assert admission(leasing, client, 4) is None


def test_a_connection_that_never_counted_against_a_limit_frees_none():
    edge = EdgeActors(four(), max_connections_per_client=1)
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    assert admission(leasing, client, 1) is None
    leasing.service.closed(client, 0, State.NORMAL)
    leasing.service.closed(None, 1, State.CLIENT_GONE_IN_HEADER)
    assert admission(leasing, client, 2) is Refusal.CLIENT_CONNECTIONS


def test_a_retry_of_the_same_connection_does_not_count_against_the_limit():
    edge = EdgeActors(four(), max_connections_per_client=1)
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    assert admission(leasing, client, 1) is None
    first = leasing.lease(client)
    leasing.service.dial_failed(first, client, "econnrefused")
    assert leasing.lease(client, tried=(first.backend.id,)).backend != first.backend
    assert admission(leasing, client, 1) is None
    assert admission(leasing, client, 2) is Refusal.CLIENT_CONNECTIONS


def test_the_limits_of_one_frontend_are_not_those_of_another():
    edge = EdgeActors(four())
    tell(edge.addresses.bindings, ReplaceLimits({name: LimitRules(1) for name in (FRONTEND, "other")}))
    one, other = Leasing(edge), Leasing(edge, frontend="other")
    client = one.client("10.0.0.1")
    assert [admission(leasing, client, number) for number, leasing in enumerate((one, other), start=1)] == [None, None]
    assert admission(one, client, 3) is Refusal.CLIENT_CONNECTIONS
    other.service.closed(client, 2, State.NORMAL)
    assert admission(one, client, 4) is Refusal.CLIENT_CONNECTIONS


def test_a_binding_that_is_broken_is_replaced():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    edge.table.bind(client.key, "gone", 1e12)
    assert leasing.lease(client).affinity is Affinity.REBIND


# Without affinity


def test_without_affinity_every_connection_selects_and_no_client_is_bound():
    edge = EdgeActors(four())
    leasing = Leasing(edge, has_affinity=False)
    client = leasing.client("10.0.0.1")
    leases = lease_all(leasing, [client] * 40)
    for lease in leases:
        leasing.service.connected(lease, client, 0.001)
        leasing.service.release(lease.lease_id)
    assert {lease.affinity for lease in leases} == {Affinity.NEW}
    assert len({lease.backend.id for lease in leases}) == 4
    edge.settle()
    assert len(edge.table) == 0


def test_without_affinity_a_failed_dial_leaves_the_bindings_of_others_alone():
    edge = EdgeActors(four())
    bound, free = Leasing(edge), Leasing(edge, has_affinity=False)
    client = bound.client("10.0.0.1")
    home = bound.bind(client)
    failed = free.lease(client, tried=tuple(name for name in "abcd" if name != home))
    assert failed.backend.id == home
    free.service.dial_failed(failed, client, "econnrefused")
    assert bound.lease(client).affinity is Affinity.HIT


def test_a_client_is_bound_to_one_backend_in_each_pool():
    rules = HealthRules()
    plans = [PoolPlan(pool, rules, (SelectorPlan(f"to {pool}", "geo"),)) for pool in (POOL, "other")]
    edge = EdgeActors(four(), plans=plans)
    tell(edge.addresses.registry, ReplaceBackends("other", (backend("x"), backend("y"))))
    one, other = Leasing(edge, frontend=f"to {POOL}"), Leasing(edge, frontend="to other", pool="other")
    client, same = one.client("10.0.0.1"), other.client("10.0.0.1")
    homes = one.bind(client), other.bind(same)
    assert homes[1] in ("x", "y")
    assert (one.lease(client).backend.id, other.lease(same).backend.id) == homes
    assert (one.lease(client).affinity, other.lease(same).affinity) == (Affinity.HIT, Affinity.HIT)


def test_frontends_of_one_pool_share_their_clients_bindings():
    plan = PoolPlan(POOL, HealthRules(), (SelectorPlan("web", "round_robin"), SelectorPlan("api", "round_robin")))
    edge = EdgeActors(four(), plans=[plan])
    web, api = Leasing(edge, frontend="web"), Leasing(edge, frontend="api")
    client = web.client("10.0.0.1")
    home = web.bind(client)
    lease = api.lease(api.client("10.0.0.1"))
    assert (lease.backend.id, lease.affinity) == (home, Affinity.HIT)


# What becomes of leases


def test_a_failed_dial_gives_its_lease_back_unbinds_the_client_and_is_counted():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    failed = leasing.lease(client)
    leasing.service.dial_failed(failed, client, "econnrefused")
    assert sum(edge.leases().values()) == 0
    assert counted(edge)[names.BACKEND_ERRORS] == {(POOL, failed.backend.id, "econnrefused"): 1}
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
    assert counted(edge)[names.BACKEND_CONNECTIONS] == {(POOL, lease.backend.id): 1}
    assert counted(edge)[names.LEASES] == {("new",): 1}
    assert counted(edge)[names.CONNECTIONS_ENDED] == {("--",): 1}
    assert counted(edge)[names.INTERNAL_ERRORS] == {("connection",): 1}


def health_of(edge: EdgeActors, name: str) -> tuple[HealthState, int]:
    views = ask(edge.addresses.registry, DescribePool(POOL), timeout_s=5)
    return next((view.state, view.consecutive_failures) for view in views if view.backend.id == name)


def test_failures_in_traffic_eject_a_backend_and_are_counted_with_their_reason():
    edge = EdgeActors(four())
    leasing = Leasing(edge)
    for _ in range(2):
        leasing.service.traffic_failed(backend("a"), "reset_before_a_byte")
    assert health_of(edge, "a") == (HealthState.UP, 2)
    leasing.service.traffic_failed(backend("a"), "etimedout")
    assert health_of(edge, "a")[0] is HealthState.EJECTED
    assert counted(edge)[names.BACKEND_ERRORS] == {
        (POOL, "a", "reset_before_a_byte"): 2,
        (POOL, "a", "etimedout"): 1,
    }


def test_failures_are_cleared_by_a_reported_success_not_by_a_connection():
    edge = EdgeActors([backend("a")])
    leasing = Leasing(edge)
    client = leasing.client("10.0.0.1")
    leasing.service.traffic_failed(backend("a"), "econnrefused")
    lease = leasing.lease(client)
    leasing.service.connected(lease, client, 0.001)
    assert health_of(edge, "a") == (HealthState.UP, 1)
    leasing.service.traffic_succeeded(lease)
    assert health_of(edge, "a") == (HealthState.UP, 0)


def test_a_success_is_reported_only_for_a_backend_with_failures_on_record():
    """Two tells per connection would cost too much, so a success on a spotless lease is not reported."""
    edge = EdgeActors([backend("a")])
    leasing = Leasing(edge)
    spotless = leasing.lease(leasing.client("10.0.0.1"))
    leasing.service.traffic_failed(backend("a"), "econnrefused")
    leasing.service.traffic_succeeded(spotless)
    assert health_of(edge, "a") == (HealthState.UP, 1)


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
    except NoBackendError as ended:
        return ended.reason
    return "leased"


def admission(leasing: Leasing, client: Client, number: int) -> str | None:
    """Return why a connection of this number was refused, None when it was not."""
    try:
        leasing.service.admit(client, number)
    except DownstreamError as ended:
        assert ended.state is State.CLIENT_LIMIT
        return ended.reason
    return None
