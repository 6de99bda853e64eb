"""The table of versions: a grant names one version, draining versions are dropped with their last grant, counts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.domain.endpoints import Endpoint, Match, MethodNotAllowed
from app.domain.handler_table import (
    Busy,
    Dropped,
    Grant,
    HandlerTable,
    NoEndpoint,
    NotDeployed,
    Version,
)

HELLO = Endpoint("hello", "hello", "/hello", max_concurrency=3)
OTHER = Endpoint("other", "other", "/other", max_concurrency=0)


class ById:
    """Routes where the path is the endpoint's id, and every method but PATCH is right."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._ids = {endpoint.id for endpoint in endpoints}

    def match(self, host: str, path: str, method: str) -> Match | MethodNotAllowed | None:
        if path not in self._ids:
            return None
        return MethodNotAllowed(("GET",)) if method == "PATCH" else Match(path, {"host": host})


def answering(word: str) -> Any:
    return lambda _request, _context: word


def version(number: int) -> Version:
    return Version(number, f"sum-{number}", float(number))


def table_of(*endpoints: Endpoint) -> HandlerTable:
    table = HandlerTable(ById(()))
    assert table.replace_endpoints(endpoints, ById(endpoints), 0.0) == []
    return table


@pytest.fixture
def table() -> HandlerTable:
    """Both endpoints, version 1 of the first deployed."""
    table = table_of(HELLO, OTHER)
    assert table.swap("hello", version(1), answering("one"), 1.0) == []
    return table


def grant(table: HandlerTable, grant_id: int, endpoint_id: str = "hello") -> Grant:
    found = table.acquire(grant_id, "h", endpoint_id, "GET")
    assert isinstance(found, Grant)
    return found


def test_what_a_grant_says(table):
    granted = grant(table, 7)
    assert granted[:4] == (7, HELLO, {"host": "h"}, version(1))
    assert granted.handler(None, None) == "one"


def test_requests_without_a_grant(table):
    assert table.acquire(1, "h", "nobody", "GET") == NoEndpoint()
    assert table.acquire(1, "h", "hello", "PATCH") == MethodNotAllowed(("GET",))
    assert table.acquire(1, "h", "other", "GET") == NotDeployed("other")
    assert [view.active for view in table.views()] == [0, 0]


def test_asked_again_under_its_id_a_request_has_one_grant(table):
    first = grant(table, 1)
    table.swap("hello", version(2), answering("two"), 2.0)
    assert grant(table, 1) is first
    assert table.views()[0].active == 1


def test_a_release_counts_once(table):
    for grant_id in (1, 2):
        grant(table, grant_id)
    for failed in (True, False, False):
        assert table.release(1, failed) is None
    assert table.release(99, False) is None
    view = table.views()[0]
    assert (view.active, view.served, view.errors) == (1, 1, 1)


def test_over_the_limit_is_busy_and_counted_versions_together(table):
    for grant_id in (1, 2):
        grant(table, grant_id)
    table.swap("hello", version(2), answering("two"), 2.0)
    assert grant(table, 3).version == version(2)
    assert table.acquire(4, "h", "hello", "GET") == Busy("hello", 1)
    assert table.views()[0].refused == 1
    table.release(1, False)
    assert grant(table, 4).version == version(2)


def test_0_is_no_limit(table):
    table.swap("other", version(1), answering("one"), 1.0)
    assert {grant(table, number, "other").version for number in range(1000)} == {version(1)}


def test_a_version_without_requests_is_dropped_at_the_swap(table):
    assert table.swap("hello", version(2), answering("two"), 2.0) == [Dropped("hello", version(1))]
    assert grant(table, 1).handler(None, None) == "two"


def test_a_version_with_requests_is_dropped_with_the_last_of_them(table):
    for grant_id in (1, 2):
        grant(table, grant_id)
    assert table.swap("hello", version(2), answering("two"), 5.0) == []
    [draining] = table.views()[0].draining
    assert (draining.version, draining.active, draining.draining_since) == (version(1), 2, 5.0)
    assert table.release(1, False) is None
    assert table.release(2, True) == Dropped("hello", version(1))
    view = table.views()[0]
    assert (view.draining, view.served, view.errors) == ((), 2, 1)
    assert view.serving is not None
    assert (view.serving.version, view.serving.served, view.serving.draining_since) == (version(2), 0, None)


def test_several_versions_drain_side_by_side(table):
    for number in (1, 2, 3):
        grant(table, number)
        table.swap("hello", version(number + 1), answering("next"), float(number))
    assert [view.version.number for view in table.views()[0].draining] == [1, 2, 3]
    assert table.release(2, False) == Dropped("hello", version(2))
    assert [view.version.number for view in table.views()[0].draining] == [1, 3]


def test_a_repeated_swap_changes_nothing(table):
    handler = answering("two")
    table.swap("hello", version(2), handler, 2.0)
    grant(table, 1)
    assert table.swap("hello", version(2), handler, 3.0) == []
    assert table.views()[0].draining == ()


def test_the_version_that_drains_may_come_back(table):
    grant(table, 1)
    table.undeploy("hello", 2.0)
    table.swap("hello", version(1), answering("one again"), 3.0)
    grant(table, 2)
    assert table.release(1, False) == Dropped("hello", version(1))
    assert table.views()[0].serving is not None
    assert table.views()[0].active == 1


def test_undeploying_drains(table):
    grant(table, 1)
    assert table.undeploy("hello", 2.0) == []
    assert table.acquire(2, "h", "hello", "GET") == NotDeployed("hello")
    assert table.undeploy("hello", 3.0) == []
    assert table.release(1, False) == Dropped("hello", version(1))
    assert table.undeploy("other", 3.0) == []


def test_deploying_to_an_unknown_endpoint_is_refused(table):
    with pytest.raises(KeyError):
        table.swap("nobody", version(1), answering(""), 1.0)
    with pytest.raises(KeyError):
        table.undeploy("nobody", 1.0)


def test_an_endpoint_that_goes_lets_its_requests_end(table):
    granted = grant(table, 1)
    assert table.replace_endpoints([OTHER], ById([OTHER]), 2.0) == []
    assert table.acquire(2, "h", "hello", "GET") == NoEndpoint()
    assert [view.endpoint for view in table.views()] == [OTHER]
    assert granted.handler(None, None) == "one"
    assert table.release(1, False) == Dropped("hello", version(1))


def test_an_endpoint_that_goes_idle_drops_its_version_at_once(table):
    assert table.replace_endpoints([], ById([]), 2.0) == [Dropped("hello", version(1))]
    assert table.views() == []


def test_an_endpoint_that_changes_keeps_its_version_and_counts(table):
    grant(table, 1)
    changed = Endpoint("hello", "hello", "/hello", max_concurrency=1)
    assert table.replace_endpoints([changed], ById([changed]), 2.0) == []
    assert table.acquire(2, "h", "hello", "GET") == Busy("hello", 1)
    table.release(1, False)
    assert grant(table, 2).endpoint is changed


class Deploying(RuleBasedStateMachine):
    """Any order of acquiring, releasing, swapping and undeploying, beside the simplest model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.table = table_of(HELLO)
        self.serving: int | None = None
        self.loaded: set[int] = set()
        self.held: dict[int, int] = {}
        self.served = self.errors = self.refused = self.last_grant = self.last_number = 0

    def forget(self, gone: Iterable[Dropped | None]) -> None:
        """Note what was dropped: never what serves or is held."""
        for one in gone:
            if one is not None:
                assert one.version.number != self.serving
                assert one.version.number not in self.held.values()
                self.loaded.remove(one.version.number)

    @rule()
    def acquire(self) -> None:
        self.last_grant += 1
        found = self.table.acquire(self.last_grant, "h", "hello", "GET")
        if self.serving is None:
            assert found == NotDeployed("hello")
        elif len(self.held) >= HELLO.max_concurrency:
            self.refused += 1
            assert isinstance(found, Busy)
        else:
            assert isinstance(found, Grant)
            assert found.version.number == self.serving
            self.held[self.last_grant] = self.serving

    @precondition(lambda self: self.held)
    @rule(data=st.data(), failed=st.booleans(), again=st.booleans())
    def release(self, data: st.DataObject, failed: bool, again: bool) -> None:
        grant_id = data.draw(st.sampled_from(sorted(self.held)))
        del self.held[grant_id]
        self.served += 1
        self.errors += failed
        self.forget([self.table.release(grant_id, failed)])
        if again:
            assert self.table.release(grant_id, failed) is None

    @rule()
    def swap(self) -> None:
        self.last_number += 1
        self.serving = self.last_number
        self.loaded.add(self.serving)
        self.forget(self.table.swap("hello", version(self.serving), answering(""), 0.0))

    @rule()
    def undeploy(self) -> None:
        self.serving = None
        self.forget(self.table.undeploy("hello", 0.0))

    @invariant()
    def every_count_is_true(self) -> None:
        [view] = self.table.views()
        assert self.loaded == {self.serving, *self.held.values()} - {None}
        assert (view.active, view.served, view.errors, view.refused) == (
            len(self.held), self.served, self.errors, self.refused,
        )  # fmt: skip
        assert (view.serving.version.number if view.serving else None) == self.serving
        in_memory = {one.version.number: one.active for one in view.draining}
        assert all(in_memory.values())
        if view.serving is not None:
            in_memory[view.serving.version.number] = view.serving.active
        assert in_memory == {number: sum(held == number for held in self.held.values()) for number in self.loaded}


TestDeploying = Deploying.TestCase
TestDeploying.settings = settings(max_examples=50, stateful_step_count=30, deadline=None)
