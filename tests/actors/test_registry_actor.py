"""The registry actor by its messages: leasing, releasing, replacing, health, and rebuilding after a crash."""

from __future__ import annotations

import gevent
import pytest

from actors.messages import (
    BackendProbed,
    CountCandidates,
    DescribePool,
    LeaseBackend,
    PoolCounts,
    ReleaseLease,
    ReplaceBackends,
    ReplacePools,
    RestoreLease,
    TakeSnapshot,
    TrafficFailed,
    TrafficSucceeded,
)
from actors.registry import RegistryActor
from actors.runtime import Crash, InvariantBrokenError, ask, tell
from app.domain import metric_names as names
from app.domain.client import Client
from app.domain.health import HealthRules, HealthState
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.pool import CHANGES_PER_SLICE
from tests.actors.edge_actors import FRONTEND, PLAN, POOL, EdgeActors, backend, make_for_brazil
from tests.harness import PATIENCE_SECONDS, eventually

ANA = Client("200.160.2.3", "default 200.160.2.3", GeoInfo("BR", "sa"))


def lease(
    edge: EdgeActors,
    number: int,
    preferred: str | None = None,
    excluded: tuple[str, ...] = (),
    *,
    pool: str = POOL,
    frontend: str = FRONTEND,
) -> Lease | Unleased:
    message = LeaseBackend(number, pool, frontend, ANA, preferred, excluded)
    return ask(edge.addresses.registry, message, timeout_s=5)


def test_a_lease_is_counted_when_it_is_granted_and_uncounted_when_it_is_released():
    edge = EdgeActors([backend("a")])
    granted = lease(edge, 1)
    assert isinstance(granted, Lease)
    assert (granted.lease_id, granted.backend, granted.tier, granted.affinity) == (1, backend("a"), 0, Affinity.NEW)
    assert edge.leases() == {"a": 1}
    tell(edge.addresses.registry, ReleaseLease(POOL, 1))
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
        tell(edge.addresses.registry, ReleaseLease(POOL, number))
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
    tell(edge.addresses.registry, ReplaceBackends(POOL, (backend("b"),)))
    assert lease(edge, 3, preferred="a") == Unleased(NoLease.BINDING_BROKEN)


def test_an_excluded_backend_is_not_selected():
    edge = EdgeActors([backend("a"), backend("b")])
    assert {lease(edge, number, excluded=("a",)).backend.id for number in range(10)} == {"b"}
    assert lease(edge, 99, excluded=("a", "b")) == Unleased(NoLease.FULL)


def test_a_backend_that_leaves_the_set_keeps_its_count_until_its_last_lease_ends():
    edge = EdgeActors([backend("a"), backend("b")])
    held = lease(edge, 1)
    gone, other = held.backend.id, {"a": "b", "b": "a"}[held.backend.id]
    tell(edge.addresses.registry, ReplaceBackends(POOL, (backend(other),)))
    assert edge.leases() == {gone: 1, other: 0}
    tell(edge.addresses.registry, ReleaseLease(POOL, 1))
    assert edge.leases() == {other: 0}


def test_a_backend_that_comes_back_finds_its_leases_counted():
    edge = EdgeActors([backend("a", hard_limit=1)])
    lease(edge, 1)
    tell(edge.addresses.registry, ReplaceBackends(POOL, ()))
    assert lease(edge, 2) == Unleased(NoLease.EMPTY)
    tell(edge.addresses.registry, ReplaceBackends(POOL, (backend("a", hard_limit=1),)))
    assert lease(edge, 3) == Unleased(NoLease.FULL)
    tell(edge.addresses.registry, ReleaseLease(POOL, 1))
    assert isinstance(lease(edge, 4), Lease)


def test_failed_dials_eject_a_backend_and_a_success_takes_it_back(logged):
    edge = EdgeActors([backend("a"), backend("b"), backend("c"), backend("d")])
    while all(view.is_available for view in ask(edge.addresses.registry, DescribePool(POOL), timeout_s=5)):
        tell(edge.addresses.registry, TrafficFailed(POOL, backend("a"), "econnrefused"))
    assert any(line.startswith("WARNING: backend a is ejected") for line in logged)
    assert lease(edge, 1, preferred="a") == Unleased(NoLease.BINDING_BROKEN)
    tell(edge.addresses.registry, TrafficSucceeded(POOL, backend("a")))
    assert lease(edge, 2, preferred="a").affinity is Affinity.HIT


def test_dials_of_backends_unknown_to_the_registry_are_ignored():
    edge = EdgeActors([backend("a")])
    tell(edge.addresses.registry, TrafficFailed(POOL, backend("z"), "econnrefused"))
    tell(edge.addresses.registry, TrafficSucceeded(POOL, backend("z")))
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
        tell(edge.addresses.registry, ReleaseLease(POOL, number))
    assert edge.leases() == {"a": 0}


def test_a_successor_counts_leases_on_backends_that_left_before_it_was_built():
    edge = EdgeActors()
    edge.start_registry([backend("b")], [(1, backend("a"))])
    assert edge.leases() == {"b": 0, "a": 1}
    assert lease(edge, 2).backend.id == "b"
    tell(edge.addresses.registry, ReleaseLease(POOL, 1))
    assert edge.leases() == {"b": 1}


def test_a_restored_lease_is_counted_once_despite_repeats():
    edge = EdgeActors([backend("a")])
    for _ in range(3):
        tell(edge.addresses.registry, RestoreLease(POOL, 1, backend("a")))
    assert edge.leases() == {"a": 1}
    tell(edge.addresses.registry, ReleaseLease(POOL, 1))
    assert edge.leases() == {"a": 0}


# Health


PROBED = PoolPlan(POOL, HealthRules(is_probed=True), PLAN.selectors)


def states(edge: EdgeActors, pool: str = POOL) -> dict[str, HealthState]:
    return {view.backend.id: view.state for view in ask(edge.addresses.registry, DescribePool(pool), timeout_s=5)}


def counted(edge: EdgeActors, metric: str) -> dict[tuple[str, ...], float]:
    edge.settle()
    return dict(ask(edge.addresses.metrics, TakeSnapshot(), timeout_s=5).counters.get(metric, {}))


def probed(edge: EdgeActors, name: str, failure: str | None, times: int = 1) -> None:
    for _ in range(times):
        tell(edge.addresses.registry, BackendProbed(POOL, backend(name), failure))


def test_probes_decide_which_backends_serve_and_every_change_is_logged_and_counted(logged):
    edge = EdgeActors([backend("a"), backend("b")], plans=[PROBED])
    assert states(edge) == {"a": HealthState.UNKNOWN, "b": HealthState.UNKNOWN}
    probed(edge, "a", None)
    assert {lease(edge, number).backend.id for number in range(10)} == {"a"}
    probed(edge, "b", "status_500")
    probed(edge, "b", None, times=2)
    assert states(edge) == {"a": HealthState.UP, "b": HealthState.UP}
    assert [line for line in logged if "backend" in line] == [
        "INFO: backend a is up: probe_passed\n",
        "WARNING: backend b is down: status_500\n",
        "INFO: backend b is up: probe_passed\n",
    ]
    assert counted(edge, names.HEALTH_CHANGES) == {(POOL, "a", "up"): 1, (POOL, "b", "down"): 1, (POOL, "b", "up"): 1}


def test_an_ejection_says_for_how_long_and_why_and_is_counted(logged):
    edge = EdgeActors([backend("a"), backend("b")])
    for _ in range(3):
        tell(edge.addresses.registry, TrafficFailed(POOL, backend("a"), "reset_before_a_byte"))
    assert states(edge)["a"] is HealthState.EJECTED
    assert "WARNING: backend a is ejected for 10 s: reset_before_a_byte\n" in logged
    assert counted(edge, names.HEALTH_CHANGES) == {(POOL, "a", "ejected"): 1}


def test_a_pool_that_fails_open_says_so_once_and_again_when_that_is_over(logged):
    edge = EdgeActors([backend("a"), backend("b")], plans=[PROBED])
    for name in "ab":
        probed(edge, name, "econnrefused")
    assert {lease(edge, number).backend.id for number in range(20)} == {"a", "b"}
    assert ask(edge.addresses.registry, CountCandidates(), timeout_s=5) == {POOL: PoolCounts(2, 2, fails_open=True)}
    assert sum(line.startswith(f"ERROR: pool {POOL}: every backend is down") for line in logged) == 1
    probed(edge, "a", None, times=2)
    assert ask(edge.addresses.registry, CountCandidates(), timeout_s=5) == {POOL: PoolCounts(2, 1, fails_open=False)}
    assert f"INFO: pool {POOL}: healthy backends serve again\n" in logged
    assert counted(edge, names.FAIL_OPENS) == {(POOL,): 1}


def test_news_about_a_backends_former_address_is_ignored():
    edge = EdgeActors([backend("a", port=2), backend("b")], plans=[PROBED])
    for _ in range(5):
        tell(edge.addresses.registry, TrafficFailed(POOL, backend("a"), "econnrefused"))
    probed(edge, "a", None)
    (view, _other) = ask(edge.addresses.registry, DescribePool(POOL), timeout_s=5)
    assert (view.state, view.consecutive_failures) == (HealthState.UNKNOWN, 0)


# Many pools


WEB = PoolPlan("web", HealthRules(), (SelectorPlan("www", "round_robin"), SelectorPlan("intern", "round_robin")))
API = PoolPlan("api", HealthRules(is_probed=True), (SelectorPlan("api", "geo"),))


def two_pools() -> EdgeActors:
    """Return an edge with the same two backends in both its pools."""
    edge = EdgeActors(plans=[WEB, API])
    for pool in ("web", "api"):
        tell(edge.addresses.registry, ReplaceBackends(pool, (backend("a"), backend("b"))))
    return edge


def test_pools_count_and_judge_their_backends_each_for_itself():
    edge = two_pools()
    for number in range(3):
        lease(edge, number, preferred="a", pool="api", frontend="api")
    tell(edge.addresses.registry, BackendProbed("api", backend("b"), "econnrefused"))
    assert (edge.leases("web"), edge.leases("api")) == ({"a": 0, "b": 0}, {"a": 3, "b": 0})
    assert (states(edge, "web")["b"], states(edge, "api")["b"]) == (HealthState.UP, HealthState.DOWN)
    tell(edge.addresses.registry, ReleaseLease("web", 1))
    assert edge.leases("api") == {"a": 3, "b": 0}


def test_the_frontends_of_a_pool_take_turns_each_for_itself_and_share_its_counts():
    edge = two_pools()
    turns = [(frontend, lease(edge, number, pool="web", frontend=frontend).backend.id)
             for number, frontend in enumerate(["www", "www", "intern", "intern", "www"])]  # fmt: skip
    assert turns == [("www", "a"), ("www", "b"), ("intern", "a"), ("intern", "b"), ("www", "a")]
    assert edge.leases("web") == {"a": 3, "b": 2}


def test_an_unknown_pool_is_empty_and_is_not_created():
    edge = two_pools()
    assert lease(edge, 1, pool="gone") == Unleased(NoLease.EMPTY)
    tell(edge.addresses.registry, ReleaseLease("gone", 1))
    tell(edge.addresses.registry, ReplaceBackends("gone", (backend("a"),)))
    tell(edge.addresses.registry, TrafficFailed("gone", backend("a"), "econnrefused"))
    assert edge.leases("gone") == {}
    assert set(ask(edge.addresses.registry, CountCandidates(), timeout_s=5)) == {"web", "api"}


def test_new_plans_keep_what_did_not_change_and_drop_pools_that_are_no_more():
    edge = two_pools()
    assert lease(edge, 1, pool="web", frontend="www").backend.id == "a"
    tell(edge.addresses.registry, TrafficFailed("web", backend("b"), "econnrefused"))
    new = PoolPlan("new", HealthRules(), (SelectorPlan("new", "ip_hash"),))
    changed = PoolPlan("web", HealthRules(unhealthy_threshold=2), (WEB.selectors[0], SelectorPlan("intern", "geo")))
    tell(edge.addresses.registry, ReplacePools((changed, new)))
    tell(edge.addresses.registry, ReplaceBackends("new", (backend("n"),)))
    assert edge.leases("web") == {"a": 1, "b": 0}
    assert lease(edge, 2, pool="web", frontend="www").backend.id == "b", "its turns go on"
    assert lease(edge, 3, pool="web", frontend="intern").tier == 0
    assert lease(edge, 4, pool="new", frontend="new").backend.id == "n"
    assert lease(edge, 5, pool="api", frontend="api") == Unleased(NoLease.EMPTY)
    tell(edge.addresses.registry, TrafficFailed("web", backend("b"), "econnrefused"))
    assert states(edge, "web")["b"] is HealthState.EJECTED, "the failure of before counts under the new rules"


def test_a_successor_knows_every_pool_its_backends_and_its_leases():
    edge = two_pools()
    facts = {"web": (backend("a"),), "api": (backend("b"),)}
    edge.addresses.registry.publish(
        RegistryActor.start(
            make_for_brazil,
            edge.addresses.metrics,
            edge.plans,
            facts,
            [("api", 1, backend("b")), ("web", 2, backend("x"))],
        )
    )
    assert (edge.leases("web"), edge.leases("api")) == ({"a": 0, "x": 1}, {"b": 1})


# Large sets


def crowd(name: str, count: int) -> tuple[Backend, ...]:
    return tuple(backend(f"{name}{number}") for number in range(count))


def test_replacing_a_large_set_yields_to_others_and_always_leaves_a_backend():
    edge = EdgeActors(crowd("old", 2 * CHANGES_PER_SLICE))
    tell(edge.addresses.registry, ReplaceBackends(POOL, crowd("new", 2 * CHANGES_PER_SLICE)))
    seen = set()
    with gevent.Timeout(PATIENCE_SECONDS):
        while 2 not in seen:
            gevent.sleep(0)
            assert isinstance(lease(edge, next(edge.lease_ids)), Lease)
            counts = ask(edge.addresses.registry, CountCandidates(), timeout_s=5)[POOL]
            seen.add(counts.candidates // CHANGES_PER_SLICE)
    assert seen == {2, 3, 4}, "asked in the middle of it"


def test_a_set_that_comes_while_another_is_taken_over_supersedes_it():
    edge = EdgeActors()
    tell(edge.addresses.registry, ReplaceBackends(POOL, crowd("first", 3 * CHANGES_PER_SLICE)))
    tell(edge.addresses.registry, ReplaceBackends(POOL, (backend("last"),)))
    eventually(lambda: edge.leases() == {"last": 0})


def test_a_pool_that_goes_while_its_set_is_taken_over_takes_the_rest_along(logged):
    edge = EdgeActors()
    tell(edge.addresses.registry, ReplaceBackends(POOL, crowd("first", 2 * CHANGES_PER_SLICE)))
    tell(edge.addresses.registry, ReplacePools((WEB,)))
    tell(edge.addresses.registry, ReplaceBackends("web", crowd("web", 2 * CHANGES_PER_SLICE)))
    eventually(
        lambda: ask(edge.addresses.registry, CountCandidates(), timeout_s=5)["web"].members == 2 * CHANGES_PER_SLICE
    )
    assert edge.leases() == {}
    assert not any(line.startswith("ERROR") for line in logged)


def test_an_actor_that_ends_while_a_set_is_taken_over_ends_in_peace(logged):
    edge = EdgeActors()
    tell(edge.addresses.registry, ReplaceBackends(POOL, crowd("first", 2 * CHANGES_PER_SLICE)))
    with pytest.raises(InvariantBrokenError):
        ask(edge.addresses.registry, Crash(), timeout_s=5)
    edge.start_registry([backend("a")])
    gevent.sleep(0.01)  # when the note to go on would come
    assert edge.leases() == {"a": 0}
    assert not any("ActorDead" in line for line in logged)


def test_a_page_of_a_pool_is_described_at_a_time():
    edge = EdgeActors(crowd("one", 25))
    pages = [ask(edge.addresses.registry, DescribePool(POOL, first, 10), timeout_s=5) for first in (0, 10, 20, 30)]
    assert [len(page) for page in pages] == [10, 10, 5, 0]
    assert len({view.backend.id for page in pages for view in page}) == 25
