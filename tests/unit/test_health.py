"""The state machine of a backend's health: probes, traffic, cool-downs, and no transition beyond the diagram."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from app.domain.health import MAX_COOLDOWN_SECONDS, RANK, Health, HealthRules, HealthState

UP, UNKNOWN, DOWN, EJECTED = HealthState.UP, HealthState.UNKNOWN, HealthState.DOWN, HealthState.EJECTED
PROBED = HealthRules(is_probed=True)

DRAWN = {
    (UNKNOWN, UP): {"probe_passed"},
    (UNKNOWN, DOWN): {"probe_failed"},
    (UP, DOWN): {"probe_failed"},
    (UP, EJECTED): {"traffic_failed"},
    (DOWN, UP): {"probe_passed"},
    (EJECTED, DOWN): {"probe_failed"},
    (EJECTED, UP): {"cooled_down", "traffic_succeeded"},
}
"""The arrows in the docstring of app.domain.health, and what goes along each."""


def happen(health: Health, event: str, now: float = 0.0) -> None:
    """Let an event happen to a backend whose pool always allows an ejection."""
    match event:
        case "probe_passed":
            health.probe_passed()
        case "probe_failed":
            health.probe_failed()
        case "traffic_succeeded":
            health.traffic_succeeded()
        case "traffic_failed":
            health.traffic_failed()
            if health.wants_ejection:
                health.eject(now)
        case "cooled_down":
            if health.is_ejected:
                health.readmit()
        case _:
            raise ValueError(event)


EVENTS = ("probe_passed", "probe_failed", "traffic_succeeded", "traffic_failed", "cooled_down")
OF_TRAFFIC = tuple(event for event in EVENTS if not event.startswith("probe"))


def after(events: str, rules: HealthRules = PROBED) -> Health:
    """Return a backend's health after events by their letters: + and - are probes, s and f traffic, c a cool-down."""
    names = {"+": "probe_passed", "-": "probe_failed", "s": "traffic_succeeded", "f": "traffic_failed"}
    health = Health(rules)
    for letter in events:
        happen(health, names.get(letter, "cooled_down"))
    return health


def transitions(rules: HealthRules, events: tuple[str, ...], length: int) -> dict[tuple[HealthState, HealthState], set]:
    """Return every change of state that any sequence of so many events leads to, and the events that made it."""
    seen: dict[tuple[HealthState, HealthState], set[str]] = {}
    for sequence in itertools.product(events, repeat=length):
        health = Health(rules)
        for event in sequence:
            before = health.state
            happen(health, event)
            if health.state is not before:
                seen.setdefault((before, health.state), set()).add(event)
    return seen


def test_what_can_happen_to_a_probed_backend_is_what_is_drawn():
    assert transitions(HealthRules(True, unhealthy_threshold=2, healthy_threshold=2), EVENTS, 6) == DRAWN


def test_an_unprobed_backend_is_only_up_or_ejected():
    drawn = {arrow: events for arrow, events in DRAWN.items() if set(arrow) == {UP, EJECTED}}
    assert transitions(HealthRules(False, unhealthy_threshold=2), OF_TRAFFIC, 6) == drawn


@pytest.mark.parametrize(("rules", "state"), [(PROBED, UNKNOWN), (HealthRules(), UP)])
def test_a_backend_starts_without_a_record(rules, state):
    health = Health(rules)
    assert (health.state, health.is_spotless, health.is_ejected, health.wants_ejection) == (state, True, False, False)


@pytest.mark.parametrize(
    ("events", "state"),
    [
        ("+", UP),
        ("-", DOWN),
        ("+--", UP),
        ("+---", DOWN),
        ("+--+--", UP),
        ("-+", DOWN),
        ("-++", UP),
        ("-+-+", DOWN),
        ("-s", DOWN),
        ("-fff", DOWN),
        ("fff", UNKNOWN),
        ("s", UNKNOWN),
        ("fff+", UP),
        ("+ff", UP),
        ("+fff", EJECTED),
        ("+ffsff", UP),
        ("+ff+f", EJECTED),
        ("+fff++", EJECTED),
        ("+fffs", UP),
        ("+fffc", UP),
        ("+fff--", EJECTED),
        ("+fff---", DOWN),
        ("+fff---c", DOWN),
        ("+fff--c-", DOWN),
        ("+fff---++", UP),
    ],
)
def test_sequences_of_events_lead_to_their_states(events, state):
    assert after(events).state is state


def test_up_takes_precedence_over_unknown_and_unknown_over_down():
    assert RANK[UP] < RANK[UNKNOWN] < RANK[DOWN] == RANK[EJECTED]
    assert {after(events).rank for events in ("-", "+fff")} == {RANK[DOWN]}


def test_the_third_failure_in_a_row_asks_for_ejection_and_goes_on_asking():
    health, wanted = Health(HealthRules()), []
    for _ in range(4):
        health.traffic_failed()
        wanted.append(health.wants_ejection)
    assert wanted == [False, False, True, True]


def test_an_ejected_backend_asks_for_no_second_ejection():
    health = after("fff", HealthRules())
    for _ in range(10):
        health.traffic_failed()
    assert (health.is_ejected, health.wants_ejection) == (True, False)


def test_one_failure_is_remembered_until_a_success():
    assert [after(events, HealthRules()).is_spotless for events in ("f", "fs")] == [False, True]


def test_a_readmitted_backend_is_on_probation():
    health = after("fffc", HealthRules())
    assert (health.is_ejected, health.is_spotless, health.ejected_until) == (False, False, None)
    assert health.eject(100.0) == 120.0


def test_a_success_forgives():
    health = after("fffcfffs", HealthRules())
    assert (health.is_spotless, health.ejected_until) == (True, None)
    assert health.eject(100.0) == 110.0


def test_probes_that_bring_it_up_again_forgive():
    health = after("+fff---++")
    assert (health.is_spotless, health.eject(0.0)) == (True, 10.0)


def test_down_has_no_cool_down():
    assert after("+fff---").ejected_until is None


def test_cool_downs_double_up_to_five_minutes():
    health = Health(HealthRules(cooldown_seconds=10.0))
    assert [health.eject(0.0) for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]


def test_a_cool_down_configured_longer_than_the_longest_is_the_longest():
    assert Health(HealthRules(cooldown_seconds=1e6)).eject(0.0) == MAX_COOLDOWN_SECONDS


def test_a_backend_that_is_dead_for_weeks_is_still_ejected():
    health = Health(HealthRules())
    assert {health.eject(0.0) for _ in range(5000)} == {10, 20, 40, 80, 160, 300}


@pytest.mark.parametrize(("events", "state"), [("", UP), ("-", UP), ("+", UP), ("+fff", EJECTED)])
def test_what_only_probes_can_end_does_not_outlive_them(events, state):
    health = after(events)
    health.set_rules(HealthRules())
    assert health.state is state


def test_one_that_is_to_be_probed_from_now_on_stays_up_until_probes_say_otherwise():
    health = after("ff", HealthRules())
    health.set_rules(PROBED)
    assert (health.state, health.consecutive_failures) == (UP, 2)
    for _ in range(3):
        health.probe_failed()
    assert health.state is DOWN


def test_other_thresholds_hold_from_the_next_event_on():
    health = after("+--")
    health.set_rules(HealthRules(is_probed=True, unhealthy_threshold=1, healthy_threshold=1))
    assert health.state is UP
    happen(health, "probe_failed")
    assert health.state is DOWN
    happen(health, "probe_passed")
    assert health.state is UP


@pytest.mark.parametrize("events", ["+", "-", "+ff", "+fff"])
def test_a_new_address_resets_everything(events):
    health = after(events)
    health.reset()
    assert (health.state, health.is_spotless, health.ejected_until, health.probe_streak) == (UNKNOWN, True, None, 0)


class HealthMachine(RuleBasedStateMachine):
    """Compares Health with a model that keeps the history since the last change and evaluates it every time."""

    @initialize(
        is_probed=st.booleans(),
        unhealthy=st.integers(1, 4),
        healthy=st.integers(1, 3),
        cooldown=st.sampled_from([1, 50]),
    )
    def begin(self, is_probed: bool, unhealthy: int, healthy: int, cooldown: float) -> None:
        self.rules = HealthRules(is_probed, unhealthy, healthy, cooldown)
        self.health = Health(self.rules)
        self.now = 0.0
        self.state = UNKNOWN if is_probed else UP
        self.probes: list[bool] = []
        self.traffic: list[bool] = []
        """Since the last success, readmission or recovery."""
        self.cooldowns = 0
        """Since the last success or recovery."""
        self.until: float | None = None

    @staticmethod
    def last(results: list[bool], passed: bool, threshold: int) -> bool:
        """Return whether the last `threshold` results were all like this."""
        return results[-threshold:] == [passed] * threshold

    def recovers(self) -> None:
        self.state, self.until = UP, None
        self.traffic.clear()
        self.cooldowns = 0

    @precondition(lambda self: self.rules.is_probed)
    @rule(passed=st.booleans())
    def a_probe_ends(self, passed: bool) -> None:
        (self.health.probe_passed if passed else self.health.probe_failed)()
        self.probes.append(passed)
        enough = {UNKNOWN: 1, DOWN: self.rules.healthy_threshold}
        if self.state in enough and self.last(self.probes, True, enough[self.state]):
            self.recovers()
        elif self.state is UNKNOWN or self.last(self.probes, False, self.rules.unhealthy_threshold):
            self.state, self.until = DOWN, None

    @rule(is_allowed=st.booleans())
    def traffic_fails(self, is_allowed: bool) -> None:
        self.health.traffic_failed()
        self.traffic.append(False)
        wanted = self.state is UP and self.last(self.traffic, False, self.rules.unhealthy_threshold)
        assert self.health.wants_ejection == wanted
        if wanted and is_allowed:
            self.until = self.now + min(300.0, self.rules.cooldown_seconds * 2**self.cooldowns)
            assert self.health.eject(self.now) == self.until
            self.cooldowns += 1
            self.state = EJECTED

    @rule()
    def traffic_succeeds(self) -> None:
        self.health.traffic_succeeded()
        self.traffic.clear()
        self.cooldowns = 0
        if self.state is EJECTED:
            self.recovers()

    @rule(seconds=st.sampled_from([0.5, 30.0, 300.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        if self.until is not None and self.until <= self.now:
            self.health.readmit()
            self.state, self.until = UP, None
            self.traffic.clear()

    @rule()
    def it_moves_to_another_address(self) -> None:
        self.health.reset()
        self.recovers()
        self.probes.clear()
        self.state = UNKNOWN if self.rules.is_probed else UP

    @invariant()
    def both_say_the_same(self) -> None:
        assert (self.health.state, self.health.ejected_until) == (self.state, self.until)
        assert self.health.rank == RANK[self.state]
        assert self.health.is_ejected == (self.state is EJECTED)
        assert self.health.consecutive_failures == len(self.traffic)
        assert self.health.is_spotless == (not self.traffic and not self.cooldowns)


TestHealth = HealthMachine.TestCase
TestHealth.settings = settings(
    max_examples=100,
    stateful_step_count=40,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
)
