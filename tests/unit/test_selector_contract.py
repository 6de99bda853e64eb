"""The contract of every algorithm: it selects a member that takes new clients and is not excluded, if there is one.
All five work on the same members through any changes, each compared with a model that scans all members."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from app.domain.client import Client
from app.domain.geography import geo_tier
from app.domain.health import HealthRules
from app.domain.member import Floor, Member
from app.domain.model import Backend, GeoInfo
from app.domain.selection import ALGORITHMS, make_selector
from app.domain.selection.ip_hash import points_of, probes_of
from tests.unit.pools import backend
from tests.unit.selectors import SelectorUnderTest, client, same_rows, selector

NAMES = ["a", "b", "c", "d", "e"]
PROBED = HealthRules(is_probed=True, unhealthy_threshold=1, healthy_threshold=1)
POP = "eu"

rows = st.builds(
    backend,
    st.sampled_from(NAMES),
    st.sampled_from(["BR/sa", "AR/sa", "FR/eu", "/"]),
    weight=st.sampled_from([1, 1, 2, 5, 0]),
    hard_limit=st.sampled_from([0, 0, 1, 2]),
    is_healthy=st.sampled_from([True, True, True, False]),
)
clients = st.builds(
    lambda number, geo: Client("", client(number).key, geo),
    st.integers(0, 1000),
    st.sampled_from([None, GeoInfo("BR", "sa"), GeoInfo("FR", "eu")]),
)
excluded_ids = st.frozensets(st.sampled_from([*NAMES, "unknown"]), max_size=3) | st.just(frozenset(NAMES[1:]))


class SelectorMachine(RuleBasedStateMachine):
    """`self.selectors` are under test; everything else is the model."""

    @initialize(seed=st.integers(0, 100))
    def open(self, seed: int) -> None:
        self.floor = Floor()
        self.members: dict[str, Member] = {}
        self.held: list[Member] = []
        self.turns: list[Member] = []
        self.selectors = {
            name: make_selector(name, pop_region=POP, rng=random.Random(seed), spills_at_soft_limit=False)
            for name in ALGORITHMS
        }

    def update(self, member: Member) -> None:
        if not member.has_left:
            for one in self.selectors.values():
                one.update(member)
            self.keep_turn(member)

    def keep_turn(self, member: Member) -> None:
        """Model the rotation: a member that takes no clients loses its turn, and is last when it takes them again."""
        if not member.takes_new_clients and member in self.turns:
            self.turns.remove(member)
        elif member.takes_new_clients and member not in self.turns:
            self.turns.append(member)

    # What may happen to members

    @rule(row=rows)
    def add(self, row: Backend) -> None:
        member = self.members.setdefault(row.id, Member(row, PROBED, self.floor, now=0.0))
        member.backend = row
        for one in self.selectors.values():
            one.add(member)
        self.keep_turn(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        member = self.members.pop(data.draw(st.sampled_from(sorted(self.members))))
        member.has_left = True
        for one in self.selectors.values():
            one.remove(member)
        self.keep_turn(member)

    @precondition(lambda self: self.members)
    @rule(data=st.data(), passes=st.booleans())
    def probe(self, data: st.DataObject, passes: bool) -> None:
        member = self.members[data.draw(st.sampled_from(sorted(self.members)))]
        if passes:
            member.health.probe_passed()
        else:
            member.health.probe_failed()
        self.update(member)

    @rule(rank=st.integers(0, 2))
    def move_floor(self, rank: int) -> None:
        """Those that serve no longer are not told of; those that serve again are."""
        before = self.selectable()
        self.floor.rank = rank
        for member in self.selectable():
            if member not in before:
                self.update(member)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        member = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        member.connections -= 1
        self.update(member)

    @rule(data=st.data())
    def update_for_nothing(self, data: st.DataObject) -> None:
        for member in self.members.values():
            if data.draw(st.booleans()):
                self.update(member)

    # Selections

    @rule(client=clients, excluded=excluded_ids, stays=st.booleans(), algorithm=st.sampled_from(ALGORITHMS))
    def select(self, client: Client, excluded: Collection[str], stays: bool, algorithm: str) -> None:
        candidates = [member for member in self.selectable() if member.backend.id not in excluded]
        member = self.selectors[algorithm].select(client, excluded)
        if not candidates:
            assert member is None
            return
        assert member is not None and member in candidates
        getattr(self, f"check_{algorithm}")(member, candidates, client)
        member.connections += 1
        self.update(member)
        if stays:
            self.held.append(member)
        else:
            member.connections -= 1
            self.update(member)

    def selectable(self) -> list[Member]:
        return [member for member in self.members.values() if member.takes_new_clients]

    def check_geo(self, member: Member, candidates: list[Member], client: Client) -> None:
        def rank(one: Member) -> tuple[int, float]:
            return geo_tier(one.backend.country, one.backend.region, client.geo, POP), one.load

        assert rank(member) == min(map(rank, candidates))

    def check_round_robin(self, member: Member, candidates: list[Member], client: Client) -> None:
        assert member is next(one for one in self.turns if one in candidates)
        # A member that stopped without an update loses its turn when the selector notices.
        for one in self.turns[: self.turns.index(member)]:
            self.keep_turn(one)
        self.turns.remove(member)
        self.turns.append(member)

    def check_weighted(self, member: Member, candidates: list[Member], client: Client) -> None:
        """Its model is in test_selector_weighted.py."""

    def check_least_connections(self, member: Member, candidates: list[Member], client: Client) -> None:
        loads = {one: one.connections / one.backend.weight for one in candidates}
        assert loads[member] == min(loads.values())

    def check_ip_hash(self, member: Member, candidates: list[Member], client: Client) -> None:
        probes = probes_of(client.key)

        def distance(one: Member) -> float:
            points = points_of(one.backend.id, one.backend.weight)
            return min((point - probe) % 2.0**32 for point in points for probe in probes)

        assert member is min(candidates, key=distance)


TestSelectors = SelectorMachine.TestCase
TestSelectors.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.fixture(params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_an_empty_selector_selects_none(algorithm: str) -> None:
    assert SelectorUnderTest(algorithm).visit() is None


def test_an_unknown_member_is_not_selected_after_an_update_or_removal(algorithm: str) -> None:
    under_test = SelectorUnderTest(algorithm)
    stranger = Member(backend("stranger"), HealthRules(), Floor(), now=0.0)
    under_test.selector.update(stranger)
    under_test.selector.remove(stranger)
    assert under_test.visit() is None


def test_a_member_removed_and_added_again_serves_again(algorithm: str) -> None:
    under_test = SelectorUnderTest(algorithm, same_rows("ab"))
    under_test.visits(3)
    member = under_test.members["a"]
    under_test.selector.remove(member)
    assert set(under_test.visits(10)) == {"b"}
    under_test.selector.add(member)
    assert "a" in {under_test.visit(client(number)) for number in range(50)}


@pytest.mark.parametrize("off", [lambda under_test, name: under_test.turn_off(name), SelectorUnderTest.remove])
def test_of_very_many_the_only_one_left_serves(algorithm: str, off: Callable[[SelectorUnderTest, str], None]) -> None:
    under_test = SelectorUnderTest(algorithm, same_rows(f"b{number}" for number in range(300)))
    assert under_test.visit() is not None
    for number in range(1, 300):
        off(under_test, f"b{number}")
    assert {under_test.visit(client(number)) for number in range(20)} == {"b0"}


def test_of_very_many_that_stopped_serving_unannounced_the_only_one_left_serves(algorithm: str) -> None:
    under_test = SelectorUnderTest(algorithm, same_rows(f"b{number}" for number in range(300)))
    under_test.floor.rank = 2
    for number in range(1, 300):
        under_test.turn_off(f"b{number}")
    assert len({under_test.visit(client(number)) for number in range(20)}) > 1
    under_test.floor.rank = 0
    assert {under_test.visit(client(number)) for number in range(20)} == {"b0"}
    under_test.turn_on("b7")
    assert {under_test.visit(client(number)) for number in range(100)} == {"b0", "b7"}


def test_only_geo_has_tiers() -> None:
    row = backend("a", "AR/sa")
    tiers = {name: selector(name).tier(row, client(1)) for name in ALGORITHMS}
    assert tiers == {**dict.fromkeys(ALGORITHMS), "geo": 1}


def test_an_algorithm_of_another_name_is_refused() -> None:
    with pytest.raises(ValueError, match="no such algorithm: random"):
        selector("random")
