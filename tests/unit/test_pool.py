"""A pool's promises by hand: counting, bindings, repeated and lost messages, changes of the set, ejection."""

from __future__ import annotations

import pytest

from app.domain.model import Lease, Unleased
from app.domain.outcome import Affinity, NoLease
from tests.unit.pools import BRAZIL, FRONTEND, PoolUnderTest, backend, client_from


@pytest.fixture
def pool() -> PoolUnderTest:
    return PoolUnderTest([backend("a"), backend("b"), backend("c"), backend("d")])


# Leases


def test_a_lease_counts_from_its_grant_to_its_release() -> None:
    pool = PoolUnderTest([backend("a")])
    lease = pool.lease()
    assert pool.counts() == {"a": 1}
    pool.pool.release(lease.lease_id)
    assert pool.counts() == {"a": 0}


def test_a_repeated_release_counts_once() -> None:
    pool = PoolUnderTest([backend("a")])
    first, _second = pool.lease(), pool.lease()
    pool.pool.release(first.lease_id)
    pool.pool.release(first.lease_id)
    pool.pool.release(999_999)
    assert pool.counts() == {"a": 1}


@pytest.mark.parametrize(
    ("bound", "held", "affinity", "selected"),
    [(None, 0, Affinity.NEW, "a"), ("a", 0, Affinity.HIT, "a"), ("a", 1, Affinity.OVERFLOW, "b")],
)
def test_a_repeated_request_gets_the_same_lease_and_counts_once(
    bound: str | None, held: int, affinity: Affinity, selected: str
) -> None:
    pool = PoolUnderTest([backend("a", hard_limit=1), backend("b", "JP/ap")])
    pool.hold("a", held)
    responses = [pool.pool.lease(77, FRONTEND, client_from(BRAZIL), bound, (), pool.now) for _ in range(3)]
    assert responses == [responses[0]] * 3
    assert isinstance(responses[0], Lease)
    assert (responses[0].affinity, responses[0].backend.id) == (affinity, selected)
    assert sum(pool.counts().values()) == held + 1


def test_a_burst_never_passes_the_hard_limit() -> None:
    pool = PoolUnderTest([backend("a", hard_limit=10), backend("b", hard_limit=7)])
    responses = [pool.ask() for _ in range(500)]
    assert sum(isinstance(response, Lease) for response in responses) == 17
    assert pool.counts() == {"a": 10, "b": 7}


def test_a_restored_lease_counts_once_and_only_when_it_is_not_known_already() -> None:
    pool = PoolUnderTest([backend("a")])
    lease = pool.lease()
    pool.pool.restore(lease.lease_id, backend("a"), pool.now)
    pool.pool.restore(500, backend("a"), pool.now)
    pool.pool.restore(500, backend("a"), pool.now)
    assert pool.counts() == {"a": 2}


def test_a_restored_lease_of_a_departed_backend_lives_until_it_is_released() -> None:
    pool = PoolUnderTest([backend("a")])
    pool.pool.restore(500, backend("gone"), pool.now)
    assert pool.counts() == {"a": 0, "gone": 1}
    assert {pool.visit() for _ in range(10)} == {"a"}
    pool.pool.release(500)
    assert pool.counts() == {"a": 0}


# Bindings


@pytest.mark.parametrize("fields", [{"is_deleted": True}, {"is_healthy": False}])
def test_a_binding_to_a_backend_that_is_out_is_broken(fields: dict[str, object]) -> None:
    pool = PoolUnderTest([backend("mine", **fields), backend("other")])
    assert pool.ask(bound="mine") == Unleased(NoLease.BINDING_BROKEN)


def test_a_binding_to_a_departed_backend_is_broken_also_while_connections_remain(pool: PoolUnderTest) -> None:
    assert pool.ask(bound="never-heard-of") == Unleased(NoLease.BINDING_BROKEN)
    pool.hold("a", 1)
    pool.replace([backend("b")])
    assert pool.ask(bound="a") == Unleased(NoLease.BINDING_BROKEN)


def test_a_binding_to_an_ejected_backend_is_broken(pool: PoolUnderTest) -> None:
    pool.fail("a")
    assert pool.ask(bound="a") == Unleased(NoLease.BINDING_BROKEN)


def test_a_client_of_a_full_backend_overflows() -> None:
    pool = PoolUnderTest([backend("mine", hard_limit=1), backend("far", "JP/ap")])
    first = pool.ask(bound="mine")
    second = pool.ask(bound="mine")
    assert isinstance(first, Lease)
    assert isinstance(second, Lease)
    assert (first.affinity, first.backend.id) == (Affinity.HIT, "mine")
    assert (second.affinity, second.backend.id) == (Affinity.OVERFLOW, "far")


# Reasons for no lease


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], NoLease.EMPTY),
        ([backend("a", is_deleted=True)], NoLease.EMPTY),
        ([backend("a", is_healthy=False)], NoLease.DOWN),
        ([backend("a", weight=0)], NoLease.DOWN),
        ([backend("a", is_healthy=False), backend("b", is_deleted=True)], NoLease.DOWN),
    ],
)
def test_a_refused_lease_has_a_reason(rows: list, reason: NoLease) -> None:
    assert PoolUnderTest(rows).ask() == Unleased(reason)


def test_an_empty_set_is_applied() -> None:
    pool = PoolUnderTest([backend("a")])
    pool.replace([])
    assert pool.ask() == Unleased(NoLease.EMPTY)


# The set changes


def test_a_backend_that_leaves_and_comes_back_keeps_its_count() -> None:
    pool = PoolUnderTest([backend("a", hard_limit=3), backend("b", "JP/ap")])
    leases = pool.hold("a", 2)
    pool.replace([backend("b", "JP/ap")])
    assert pool.counts() == {"a": 2, "b": 0}
    pool.pool.release(leases[0])
    pool.replace([backend("a", hard_limit=3), backend("b", "JP/ap")])
    assert pool.counts() == {"a": 1, "b": 0}
    assert [pool.lease().backend.id for _ in range(3)] == ["a", "a", "b"]


def test_a_departed_backend_is_forgotten_with_its_last_connection() -> None:
    pool = PoolUnderTest([backend("a"), backend("b")])
    (lease,) = pool.hold("a", 1)
    pool.replace([backend("b")])
    pool.replace([backend("b")])
    assert pool.counts() == {"a": 1, "b": 0}
    pool.pool.release(lease)
    assert pool.counts() == {"b": 0}


def test_a_row_that_changes_keeps_its_count_and_takes_effect_at_once() -> None:
    pool = PoolUnderTest([backend("a"), backend("b", "AR/sa")])
    pool.hold("a", 5)
    pool.replace([backend("a", hard_limit=5), backend("b", "AR/sa")])
    assert pool.visit() == "b"
    pool.replace([backend("a", "AR/sa"), backend("b", "BR/sa")])
    assert pool.visit() == "b"
    pool.replace([backend("a", "BR/sa"), backend("b", "AR/sa")])
    assert (pool.visit(), pool.counts()["a"]) == ("a", 5)


def test_a_backend_that_moves_is_not_found_in_its_old_place() -> None:
    pool = PoolUnderTest([backend("a", "BR/sa"), backend("b", "AR/sa")])
    pool.replace([backend("a", "JP/ap"), backend("b", "AR/sa")])
    assert pool.visit(BRAZIL) == "b"
    assert pool.lease(BRAZIL, tried=("b",)).tier == 3


def test_running_connections_outlive_their_backends_deletion(pool: PoolUnderTest) -> None:
    (lease,) = pool.hold("a", 1)
    pool.replace([backend("a", is_deleted=True), backend("b")])
    assert pool.counts()["a"] == 1
    pool.pool.release(lease)
    assert pool.counts() == {"a": 0, "b": 0}


# Ejection


def test_two_failures_are_forgiven_three_in_a_row_are_not(pool: PoolUnderTest) -> None:
    assert pool.fail("a", 2) is None
    assert pool.ejected() == set()
    assert pool.fail("a", 1) == 10.0
    assert pool.ejected() == {"a"}
    assert "a" not in {pool.visit() for _ in range(50)}


def test_a_success_between_starts_the_count_over(pool: PoolUnderTest) -> None:
    pool.fail("a", 2)
    pool.succeed("a")
    assert pool.fail("a", 2) is None
    assert pool.ejected() == set()


def test_failures_of_different_backends_do_not_add_up(pool: PoolUnderTest) -> None:
    assert [pool.fail(name, 2) for name in "abcd"] == [None] * 4
    assert pool.ejected() == set()


def test_the_cool_down_doubles_to_five_minutes_and_a_success_resets_it(pool: PoolUnderTest) -> None:
    cooldowns = []
    for _ in range(8):
        cooldowns.append(pool.fail("a"))
        pool.now += cooldowns[-1] or 0
    assert cooldowns == [10, 20, 40, 80, 160, 300, 300, 300]
    pool.succeed("a")
    assert pool.fail("a") == 10


def test_a_backend_is_back_when_its_cool_down_is_over_and_not_before(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.now += 9.9
    assert pool.ejected() == {"a"}
    pool.now += 0.1
    assert pool.ejected() == set()
    assert "a" in {pool.lease().backend.id for _ in range(4)}


def test_a_lease_request_alone_readmits_a_cooled_down_backend(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.now += 10
    assert isinstance(pool.ask(bound="a"), Lease)


def test_the_end_of_an_earlier_cool_down_does_not_end_a_later_one(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.now += 1
    pool.succeed("a")
    pool.fail("a")
    pool.now += 9.5
    assert pool.ejected() == {"a"}
    pool.now += 0.5
    assert pool.ejected() == set()


def test_after_the_cool_down_three_more_failures_eject_again(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.now += 10
    assert pool.fail("a", 2) is None
    assert pool.fail("a", 1) == 20


def test_failures_that_come_in_late_do_not_lengthen_a_cool_down(pool: PoolUnderTest) -> None:
    pool.fail("a", 50)
    assert pool.member("a").ejected_for == 10
    pool.now += 10
    assert pool.fail("a", 2) is None


def test_a_success_ends_an_ejection_at_once(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.succeed("a")
    assert pool.ejected() == set()
    assert "a" in {pool.lease().backend.id for _ in range(4)}


@pytest.mark.parametrize(("size", "allowed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2), (9, 4)])
def test_never_more_than_half_rounded_down_is_ejected(size: int, allowed: int) -> None:
    rows = [backend(f"b{number}") for number in range(size)]
    pool = PoolUnderTest(rows)
    for one in rows:
        pool.fail(one.id, 10)
    assert len(pool.ejected()) == allowed


def test_drained_and_unhealthy_backends_do_not_count_as_the_other_half() -> None:
    out = [backend("x", is_deleted=True), backend("y", is_healthy=False), backend("z", is_deleted=True)]
    pool = PoolUnderTest([backend("a"), *out])
    assert pool.fail("a", 10) is None


def test_the_last_one_that_takes_new_clients_is_never_ejected() -> None:
    pool = PoolUnderTest([backend("a"), backend("leaving", weight=0)])
    assert pool.fail("a", 10) is None
    assert pool.visit() == "a"


def test_an_ejection_that_was_not_allowed_happens_as_soon_as_it_is() -> None:
    pool = PoolUnderTest([backend("a"), backend("b")])
    pool.fail("a")
    assert pool.fail("b", 5) is None
    pool.now += 10  # no request came since: time alone readmits a
    assert pool.fail("b", 1) == 10


def test_when_the_set_shrinks_too_large_an_ejection_is_lifted(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.now += 1
    pool.fail("b")
    assert pool.ejected() == {"a", "b"}
    pool.replace([backend("a"), backend("b"), backend("c")])
    assert pool.ejected() == {"b"}, "the one with the shortest remaining cool-down is readmitted"
    pool.replace([backend("b"), backend("c", is_deleted=True)])
    assert pool.ejected() == set()
    assert pool.visit() == "b"


def test_a_drain_of_the_others_brings_the_ejected_one_back() -> None:
    pool = PoolUnderTest([backend("a"), backend("b")])
    pool.fail("a")
    pool.replace([backend("a"), backend("b", weight=0)])
    assert pool.visit() == "a"


def test_an_ejected_backend_that_is_drained_leaves_room_for_another_ejection(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.fail("b")
    pool.replace([backend("a", is_deleted=True), backend("b", is_deleted=True), backend("c"), backend("d")])
    assert pool.fail("c") == 10
    assert pool.fail("d") is None


@pytest.mark.parametrize("moved", [{"host": "10.0.0.2"}, {"port": 81}])
def test_a_new_address_forgets_the_failures_of_the_old(pool: PoolUnderTest, moved: dict[str, object]) -> None:
    pool.fail("a")
    pool.replace([backend("a", **moved), backend("b"), backend("c"), backend("d")])
    assert pool.ejected() == set()
    assert pool.member("a").consecutive_failures == 0
    assert pool.fail("a") == 10, "the doubling starts over, too"


def test_another_change_of_the_row_does_not_forget_failures(pool: PoolUnderTest) -> None:
    pool.fail("a")
    pool.replace([backend("a", weight=5), backend("b"), backend("c"), backend("d")])
    assert pool.ejected() == {"a"}


def test_a_backend_that_left_comes_back_with_a_clean_record(pool: PoolUnderTest) -> None:
    pool.hold("a", 1)
    pool.fail("a")
    others = [backend(name) for name in "bcd"]
    pool.replace(others)
    pool.replace([backend("a"), *others])
    assert pool.ejected() == set()
    pool.now += 10  # the old cool-down ends without harm
    assert pool.fail("a") == 10


def test_dials_of_unknown_backends_are_ignored(pool: PoolUnderTest) -> None:
    pool.succeed("stranger")
    assert pool.fail("stranger", 10) is None
    assert pool.ejected() == set()


def test_a_lease_says_whether_a_success_is_worth_reporting(pool: PoolUnderTest) -> None:
    clean = pool.ask(bound="a")
    pool.fail("a", 1)
    stained = pool.ask(bound="a")
    pool.succeed("a")
    clean_again = pool.ask(bound="a")
    spotless = [lease.is_spotless for lease in (clean, stained, clean_again) if isinstance(lease, Lease)]
    assert spotless == [True, False, True]
