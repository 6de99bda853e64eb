"""Health in a pool: which members serve while others are down, reports of changes, and failing open."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.domain.health import HealthRules, HealthState
from app.domain.member import HISTORY_LENGTH
from app.domain.member_views import Transition
from app.domain.model import Lease, Unleased
from app.domain.outcome import NoLease
from tests.unit.pools import BRAZIL, PROBED, PoolUnderTest, backend

UP, UNKNOWN, DOWN, EJECTED = HealthState.UP, HealthState.UNKNOWN, HealthState.DOWN, HealthState.EJECTED
ABC = [backend(name) for name in "abc"]


@pytest.fixture
def probed() -> PoolUnderTest:
    """Three backends that have not been probed yet."""
    return PoolUnderTest(ABC, rules=PROBED)


def served(pool: PoolUnderTest, visits: int = 30) -> set[str]:
    return {pool.visit() for _ in range(visits)}


# Serving members


def test_an_unprobed_backend_starts_up_and_a_probed_one_unknown(probed: PoolUnderTest) -> None:
    assert set(probed.states().values()) == {UNKNOWN}
    assert set(PoolUnderTest(ABC).states().values()) == {UP}


def test_unknown_backends_serve_until_the_first_is_up_which_then_serves_alone(probed: PoolUnderTest) -> None:
    assert served(probed) == {"a", "b", "c"}
    probed.probe("b")
    assert served(probed) == {"b"}
    probed.probe("a")
    assert served(probed) == {"a", "b"}


def test_unknown_backends_take_precedence_over_those_down(probed: PoolUnderTest) -> None:
    probed.probe("a", "refused")
    assert served(probed) == {"b", "c"}
    assert probed.fail_opens == []


def test_when_all_are_down_all_serve_until_one_is_up_again(probed: PoolUnderTest) -> None:
    for name in "abc":
        assert probed.fail_opens == []
        probed.probe(name, "refused")
    assert probed.fail_opens == [True]
    assert served(probed) == {"a", "b", "c"}
    probed.probe("b", times=2)
    assert probed.fail_opens == [True, False]
    assert served(probed) == {"b"}


def test_a_bound_client_stays_with_its_backend_only_while_that_is_healthy_enough_for_the_pool(
    probed: PoolUnderTest,
) -> None:
    def is_kept() -> bool:
        return isinstance(probed.ask(bound="a"), Lease)

    assert is_kept(), "unknown, like all others"
    probed.probe("b")
    assert probed.ask(bound="a") == Unleased(NoLease.BINDING_BROKEN)
    probed.probe("a")
    assert is_kept()
    probed.probe("a", "timeout", times=3)
    assert not is_kept()
    for name in "bc":
        probed.probe(name, "timeout", times=3)
    assert is_kept(), "down, like all others"


def test_a_pool_that_fails_open_still_obeys_the_database_and_the_limits() -> None:
    rows = [backend("a", hard_limit=1), backend("b", is_healthy=False), backend("c", is_deleted=True)]
    pool = PoolUnderTest([*rows, backend("d", weight=0)], rules=PROBED)
    for name in "abcd":
        pool.probe(name, "refused")
    assert pool.pool.fails_open
    assert pool.lease().backend.id == "a"
    assert pool.ask() == Unleased(NoLease.FULL)


def test_one_that_takes_no_new_clients_does_not_keep_the_others_from_serving(probed: PoolUnderTest) -> None:
    probed.replace([backend("a", weight=0), backend("b", is_deleted=True), backend("c")])
    probed.probe("a")
    probed.probe("b")
    assert served(probed) == {"c"}
    assert isinstance(probed.ask(bound="a"), Lease)


def test_a_full_backend_that_is_up_takes_precedence_over_an_unknown_one(probed: PoolUnderTest) -> None:
    probed.replace([backend("a", hard_limit=1), backend("b")])
    probed.probe("a")
    probed.lease()
    assert probed.ask() == Unleased(NoLease.FULL)


def test_a_newcomer_waits_for_its_probe_while_others_are_up(probed: PoolUnderTest) -> None:
    for name in "abc":
        probed.probe(name)
    probed.replace([*ABC, backend("new")])
    assert "new" not in served(probed)
    probed.probe("new")
    assert "new" in served(probed)


def test_when_the_last_that_was_up_leaves_the_set_those_not_probed_yet_serve(probed: PoolUnderTest) -> None:
    probed.probe("a")
    probed.replace(ABC[1:])
    assert served(probed) == {"b", "c"}


def test_when_the_last_that_was_up_is_drained_a_pool_fails_open_and_not_after_the_undrain(
    probed: PoolUnderTest,
) -> None:
    probed.probe("a")
    for name in "bc":
        probed.probe(name, "refused")
    probed.replace([replace(ABC[0], is_deleted=True), *ABC[1:]])
    assert probed.fail_opens == [True]
    assert served(probed) == {"b", "c"}
    probed.replace(ABC)
    assert probed.fail_opens == [True, False]
    assert served(probed) == {"a"}


def test_an_emptied_pool_no_longer_fails_open(probed: PoolUnderTest) -> None:
    for name in "abc":
        probed.probe(name, "refused")
    probed.replace([])
    assert probed.fail_opens == [True, False]
    assert probed.ask() == Unleased(NoLease.EMPTY)


def test_failures_in_traffic_alone_never_make_a_pool_fail_open() -> None:
    pool = PoolUnderTest(ABC)
    for _ in range(5):
        for name in "abc":
            pool.fail(name, 10)
    assert len(pool.ejected()) == 1
    assert pool.fail_opens == []


def test_when_all_others_are_down_the_last_is_not_ejected_and_an_ejected_one_serves_with_those_down(
    probed: PoolUnderTest,
) -> None:
    for name in "abc":
        probed.probe(name)
    assert probed.fail("a") == 10
    probed.probe("b", "refused", times=3)
    assert probed.fail("c", 10) is None, "a is ejected, b is down"
    assert served(probed) == {"c"}
    probed.probe("c", "refused", times=3)
    assert served(probed) == {"a", "b", "c"}
    probed.now += 10
    assert served(probed) == {"a"}, "it has cooled down"
    assert probed.fail_opens == [True, False]


def test_no_backend_is_ejected_while_a_pool_fails_open(probed: PoolUnderTest) -> None:
    for name in "abc":
        probed.probe(name, "refused")
        assert probed.fail(name, 10) is None
    assert set(probed.states().values()) == {DOWN}


def test_one_for_bound_clients_only_is_not_ejected_while_a_pool_fails_open(probed: PoolUnderTest) -> None:
    probed.replace([backend("mine", weight=0), *ABC])
    probed.probe("mine")
    for name in "abc":
        probed.probe(name, "refused")
    assert probed.pool.fails_open
    assert probed.fail("mine", 10) is None


def test_when_a_drain_leaves_only_ejected_ones_and_those_down_the_ejected_ones_are_readmitted(
    probed: PoolUnderTest,
) -> None:
    for name in "abc":
        probed.probe(name)
    probed.fail("a")
    probed.probe("b", "refused", times=3)
    probed.replace([*ABC[:2], replace(ABC[2], weight=0)])
    assert probed.states() == {"a": UP, "b": DOWN, "c": UP}
    assert served(probed) == {"a"}
    assert probed.fail_opens == [True, False]


def test_while_none_is_up_an_ejection_needs_another_backend_that_can_serve() -> None:
    pool = PoolUnderTest([backend("mine", weight=0), backend("a")], rules=PROBED)
    pool.probe("mine")
    assert pool.fail("mine") == 10, "a, though unknown, serves"


# What is told


def test_every_change_is_reported_with_its_cause_and_time(probed: PoolUnderTest) -> None:
    probed.probe("a")
    probed.now += 1
    probed.probe("a", "timeout", times=2)
    assert probed.member("a").changed_at == probed.now - 1
    probed.probe("a", "status_500", times=1)
    assert probed.member("a").changed_at == probed.now
    probed.now += 1
    probed.probe("a", times=5)
    assert probed.changes == [
        Transition("a", UNKNOWN, UP, "probe_passed", 0.0),
        Transition("a", UP, DOWN, "status_500", 0.0),
        Transition("a", DOWN, UP, "probe_passed", 0.0),
    ]
    assert probed.member("a").changed_at == probed.now


def test_ejections_and_their_ends_are_reported() -> None:
    pool = PoolUnderTest(ABC)
    pool.fail("a")
    pool.succeed("a")
    pool.fail("a", 3)
    pool.now += 10
    pool.ask()
    pool.fail("a", 3)
    pool.replace(ABC[:1])
    assert pool.changes == [
        Transition("a", UP, EJECTED, "econnrefused", 10.0),
        Transition("a", EJECTED, UP, "traffic_succeeded", 0.0),
        Transition("a", UP, EJECTED, "econnrefused", 10.0),
        Transition("a", EJECTED, UP, "cooled_down", 0.0),
        Transition("a", UP, EJECTED, "econnrefused", 20.0),
        Transition("a", EJECTED, UP, "too_many_ejected", 0.0),
    ]


def test_a_probe_that_fails_takes_over_from_an_ejection_and_its_cool_down_ends_nothing() -> None:
    pool = PoolUnderTest(ABC, rules=PROBED)
    for name in "abc":
        pool.probe(name)
    pool.fail("a")
    pool.probe("a", "refused", times=3)
    pool.now += 1000
    assert pool.states()["a"] is DOWN
    assert (pool.changes[-1].before, pool.changes[-1].after) == (EJECTED, DOWN)
    assert "a" not in served(pool)


def test_the_last_states_are_remembered_each_with_when_it_began(probed: PoolUnderTest) -> None:
    began = probed.now
    probed.now += 5
    probed.probe("a")
    probed.now += 5
    probed.probe("a", "timeout", times=3)
    assert probed.member("a").history == ((began, UNKNOWN), (began + 5, UP), (began + 10, DOWN))
    assert probed.member("b").history == ((began, UNKNOWN),)
    for _ in range(20):
        probed.probe("a", times=2)
        probed.probe("a", "timeout", times=3)
    remembered = probed.member("a").history
    assert len(remembered) == HISTORY_LENGTH
    assert [state for _, state in remembered[-2:]] == [UP, DOWN]


# News about an address that is no more


@pytest.mark.parametrize("moved", [{"host": "10.0.0.2"}, {"port": 81}])
def test_late_results_for_a_former_address_are_ignored(moved: dict[str, Any]) -> None:
    pool = PoolUnderTest(ABC, rules=PROBED)
    old, new = backend("a"), backend("a", **moved)
    pool.replace([new, *ABC[1:]])
    pool.pool.probed(old, None, pool.now)
    pool.pool.traffic_failed(old, "econnrefused", pool.now)
    assert (pool.states()["a"], pool.member("a").consecutive_failures) == (UNKNOWN, 0)
    pool.pool.traffic_failed(new, "econnrefused", pool.now)
    pool.pool.traffic_succeeded(old, pool.now)
    assert pool.member("a").consecutive_failures == 1


def test_results_for_a_row_with_an_unchanged_address_count() -> None:
    pool = PoolUnderTest(ABC)
    pool.replace([backend("a", weight=7), *ABC[1:]])
    pool.pool.traffic_failed(ABC[0], "econnrefused", pool.now)
    assert pool.member("a").consecutive_failures == 1


def test_results_for_a_departed_backend_are_ignored() -> None:
    pool = PoolUnderTest(ABC, rules=PROBED)
    pool.hold("a", 1)
    pool.replace(ABC[1:])
    for _ in range(10):
        pool.pool.traffic_failed(ABC[0], "econnrefused", pool.now)
    pool.pool.probed(ABC[0], "refused", pool.now)
    assert pool.member("a").consecutive_failures == 0
    assert pool.changes == []


def test_a_new_address_is_probed_anew(probed: PoolUnderTest) -> None:
    probed.probe("a")
    probed.replace([backend("a", port=81), *ABC[1:]])
    assert probed.states()["a"] is UNKNOWN
    assert probed.changes[-1] == Transition("a", UP, UNKNOWN, "address_changed", 0.0)


# Other rules


def test_new_thresholds_and_cool_downs_count_from_the_next_failure_on() -> None:
    pool = PoolUnderTest(ABC)
    pool.fail("a", 1)
    pool.pool.set_rules(HealthRules(unhealthy_threshold=2, cooldown_seconds=3), pool.now)
    assert pool.fail("a", 1) == 3
    pool.now += 3
    assert pool.ejected() == set()


def test_when_probing_ends_so_does_what_only_a_probe_could_end(probed: PoolUnderTest) -> None:
    probed.probe("a")
    probed.probe("b", "refused")
    probed.pool.set_rules(HealthRules(), probed.now)
    assert probed.states() == dict.fromkeys("abc", UP)
    assert served(probed) == {"a", "b", "c"}
    assert [(c.backend_id, c.before, c.cause) for c in probed.changes[2:]] == [
        ("b", DOWN, "rules_changed"),
        ("c", UNKNOWN, "rules_changed"),
    ]


def test_when_probing_begins_serving_backends_continue_and_only_new_ones_wait() -> None:
    pool = PoolUnderTest(ABC)
    pool.pool.set_rules(PROBED, pool.now)
    pool.replace([*ABC, backend("new")])
    assert pool.states() == {**dict.fromkeys("abc", UP), "new": UNKNOWN}
    assert "new" not in served(pool)


def test_a_backend_that_left_before_probing_began_is_probed_on_return() -> None:
    pool = PoolUnderTest(ABC)
    pool.hold("a", 1)
    pool.replace(ABC[1:])
    pool.pool.set_rules(PROBED, pool.now)
    pool.replace(ABC)
    assert pool.states()["a"] is UNKNOWN


def test_an_ejection_outlives_a_change_of_rules() -> None:
    pool = PoolUnderTest(ABC)
    pool.fail("a")
    pool.pool.set_rules(HealthRules(cooldown_seconds=99), pool.now)
    assert pool.ejected() == {"a"}
    pool.now += 10
    assert pool.ejected() == set()


def test_the_same_rules_again_change_nothing(probed: PoolUnderTest) -> None:
    probed.probe("a", "refused")
    probed.pool.set_rules(HealthRules(is_probed=True), probed.now)
    assert probed.states() == {"a": DOWN, "b": UNKNOWN, "c": UNKNOWN}


def test_probes_of_a_pool_that_is_not_probed_are_ignored() -> None:
    pool = PoolUnderTest(ABC)
    pool.probe("a", "refused", times=10)
    assert pool.states()["a"] is UP


# Counting


def test_the_counts_are_members_those_that_take_new_clients_and_failing_open(probed: PoolUnderTest) -> None:
    probed.replace([*ABC, backend("full", hard_limit=1), backend("out", is_deleted=True)])
    probed.hold("full", 1)
    assert probed.pool.counts(probed.now) == (5, 3, False)
    probed.probe("a")
    assert probed.pool.counts(probed.now) == (5, 1, False)
    probed.probe("a", "refused", times=3)
    for name in ("b", "c", "full"):
        probed.probe(name, "refused")
    assert probed.pool.counts(probed.now) == (5, 3, True)


def test_the_counts_include_backends_whose_cool_down_has_ended() -> None:
    pool = PoolUnderTest(ABC)
    pool.fail("a")
    assert pool.pool.counts(pool.now) == (3, 2, False)
    assert pool.pool.counts(pool.now + 10) == (3, 3, False)


def test_two_pools_select_and_fail_independently() -> None:
    one, other = PoolUnderTest(ABC), PoolUnderTest(ABC)
    one.fail("a")
    one.hold("b", 3)
    assert (other.ejected(), other.counts()) == (set(), dict.fromkeys("abc", 0))
    assert isinstance(other.ask(BRAZIL, bound="a"), Lease)
