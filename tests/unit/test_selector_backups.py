"""Backup servers serve while no other is a candidate, whatever the algorithm."""

from __future__ import annotations

import pytest

from app.domain.model import Unleased
from app.domain.outcome import NoLease
from app.domain.plan import SelectorPlan
from app.domain.selection import ALGORITHMS
from tests.unit.pools import FRONTEND, PROBED, PoolUnderTest, backend

WITH_BACKUPS = [
    backend("a"),
    backend("b", hard_limit=1),
    backend("y", is_backup=True),
    backend("z", is_backup=True),
]


@pytest.fixture(params=ALGORITHMS)
def pool(request):
    under_test = PoolUnderTest([])
    under_test.plan(SelectorPlan(FRONTEND, request.param, has_backups=True))
    under_test.replace(WITH_BACKUPS)
    return under_test


def served(pool: PoolUnderTest, tried: tuple[str, ...] = ()) -> set[str]:
    """Return who serves some connections, one after another."""
    return {pool.visit(tried=tried) for _ in range(20)}


def test_no_backup_serves_while_another_is_a_candidate(pool):
    assert served(pool) <= {"a", "b"}
    pool.fail("a")
    assert served(pool) == {"b"}


def test_a_backup_serves_while_all_others_are_down_full_or_tried(pool):
    assert served(pool, tried=("a", "b")) <= {"y", "z"}
    assert served(pool, tried=("a", "b", "y")) == {"z"}
    pool.fail("a")
    pool.hold("b", 1)
    assert served(pool) <= {"y", "z"}
    pool.succeed("a")
    assert served(pool) == {"a"}


def test_without_any_candidate_there_is_no_lease(pool):
    assert pool.ask(tried=("a", "b", "y", "z")) == Unleased(NoLease.FULL)


def test_a_client_bound_to_a_backup_stays(pool):
    assert pool.lease(tried=("a", "b")).backend.is_backup
    bound = pool.ask(bound="y")
    assert bound.backend.id == "y"


def test_a_reload_makes_a_backup_of_a_server_and_takes_it_back(pool):
    pool.replace([backend("a", is_backup=True), backend("b"), backend("y")])
    assert served(pool) <= {"b", "y"}
    pool.replace([backend("a"), backend("b", is_backup=True), backend("y", is_backup=True)])
    assert served(pool) == {"a"}
    pool.replace([backend("y", is_backup=True)])
    assert served(pool) == {"y"}


def test_probes_that_find_all_others_down_make_the_backups_serve(pool):
    pool.pool.set_rules(PROBED, pool.now)
    for one in ("a", "b"):
        pool.probe(one, "status", times=3)
    for one in ("y", "z"):
        pool.probe(one)
    assert served(pool) <= {"y", "z"}
    pool.probe("a", times=2)
    assert served(pool) == {"a"}


def test_in_a_pool_that_fails_open_the_others_serve(pool):
    pool.pool.set_rules(PROBED, pool.now)
    for one in ("a", "b", "y", "z"):
        pool.probe(one, "status", times=3)
    assert pool.pool.fails_open
    assert served(pool) <= {"a", "b"}
