"""The health actor by its messages: the schedule of probes, their limit, their results, and removed targets."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.health import GRACE_SECONDS, INCONCLUSIVE, JITTER, MAX_AT_ONCE, SOON_SECONDS, HealthActor, ProbeSchedule
from actors.messages import BackendProbed, Count, ProbeEnded, ProbeSoon, ReplaceTargets, StartDueProbes
from actors.runtime import Address, Crash, GeventActor, InvariantBrokenError, Ping, ask, tell
from app.domain import metric_names as names
from app.domain.model import Backend
from app.domain.probe import ProbeSpec, Target

TCP = ProbeSpec("tcp", interval_seconds=10.0, timeout_seconds=5.0)


def target(name="a", spec=TCP, **columns):
    columns = {"host": "10.0.0.1", "port": 80, **columns}
    return Target("web", Backend(name, None, None, None, **columns), spec)


def targets(count, spec=TCP):
    return tuple(target(f"b{number}", spec) for number in range(count))


class Told(GeventActor):
    """Records the messages that it receives."""

    def __init__(self, messages):
        super().__init__()
        self._messages = messages

    def handle(self, message):
        if isinstance(message, Ping):
            return True
        self._messages.append(message)
        return None


class Stage:
    """A health actor with a clock that tests set, and a registry and metrics that record their messages."""

    def __init__(self, *targets):
        self.now = 1000.0
        self.started = []
        self.to_registry, self.to_metrics = [], []
        self.registry, self.metrics, self.health = Address("registry"), Address("metrics"), Address("health")
        self.registry.publish(Told.start(self.to_registry))
        self.metrics.publish(Told.start(self.to_metrics))
        self.start(*targets)

    def start(self, *targets):
        chance = random.Random(1)
        actor = HealthActor.start(
            self.start_probe, self.registry, self.metrics, targets, rng=chance, clock=lambda: self.now
        )
        self.health.publish(actor)

    def start_probe(self, one):
        self.started.append(one)

    def tell(self, *messages):
        for message in messages:
            tell(self.health, message)
        for address in (self.health, self.registry, self.metrics):
            assert ask(address, Ping(), timeout_s=5)

    def due(self, seconds=0.0):
        """Advance the clock and return the targets whose probes start."""
        self.now += seconds
        self.started.clear()
        self.tell(StartDueProbes())
        return list(self.started)

    def end(self, *ended, failure=None):
        """End probes; return the targets whose probes start as a result."""
        self.started.clear()
        self.tell(*(ProbeEnded(one, failure) for one in ended))
        return list(self.started)


def test_a_target_is_probed_at_once_and_never_twice_at_a_time():
    stage = Stage(target())
    assert stage.due() == [target()]
    assert [stage.due(1.0) for _ in range(9)] == [[]] * 9


@pytest.mark.parametrize("failure", [None, "connect_refused", "status"])
def test_results_go_to_the_registry_and_the_metrics(failure):
    stage = Stage(target())
    stage.end(*stage.due(), failure=failure)
    assert stage.to_registry == [BackendProbed("web", target().backend, failure)]
    assert stage.to_metrics == [Count(names.PROBES, ("web", "a", failure or "passed"))]


@pytest.mark.parametrize("failure", ["no_resources", "internal_error"])
def test_a_failure_of_the_edge_itself_counts_against_no_backend(failure):
    assert failure in INCONCLUSIVE
    stage = Stage(target())
    stage.end(*stage.due(), failure=failure)
    assert (stage.to_registry, stage.to_metrics) == ([], [Count(names.PROBES, ("web", "a", failure))])
    assert stage.due(11.0) == [target()]


def test_an_unexpected_end_of_a_probe_is_ignored():
    stage = Stage(target())
    assert stage.end(target("stranger")) == [target()]
    stage.end(target("stranger"), target(spec=replace(TCP, path="/other")))
    assert (stage.to_registry, stage.to_metrics) == ([], [])
    stage.end(target(), target())
    assert len(stage.to_registry) == len(stage.to_metrics) == 1


def test_running_probes_are_limited_and_the_rest_follow_in_turn():
    everyone = targets(MAX_AT_ONCE + 3)
    stage = Stage(*everyone)
    under_way = stage.due()
    assert under_way == list(everyone[:MAX_AT_ONCE])
    assert stage.due(1.0) == []
    assert stage.end(*under_way[:2]) == list(everyone[MAX_AT_ONCE : MAX_AT_ONCE + 2])
    assert stage.end(under_way[2]) == [everyone[-1]]


def test_a_new_target_waits_behind_those_that_were_due_before():
    everyone = targets(MAX_AT_ONCE + 1)
    stage = Stage(*everyone)
    first = stage.due()[0]
    stage.now += 1
    stage.tell(ReplaceTargets((target("new"), *everyone)))
    assert stage.end(first) == [everyone[-1]]


def test_a_target_that_stays_keeps_its_rhythm_whatever_else_changes_in_its_row():
    stage = Stage(target())
    alone = Stage(target())
    for each in (stage, alone):
        each.end(*each.due())
    heavier = target(weight=7, spec=replace(TCP))
    for _ in range(40):
        stage.tell(ReplaceTargets((heavier,)))
        begun = stage.due(0.3)
        assert bool(begun) == bool(alone.due(0.3))
        if begun:
            assert begun == [heavier]
            stage.end(*begun)
            alone.end(target())
    assert len(stage.to_registry) > 1


@pytest.mark.parametrize(
    "changed", [target(port=81), target(host="10.0.0.2"), target(spec=replace(TCP, kind="http", path="/healthz"))]
)
def test_one_that_is_changed_is_probed_at_once_and_the_old_probe_says_nothing_of_it(changed):
    stage = Stage(target())
    old = stage.due()
    stage.tell(ReplaceTargets((changed,)))
    assert stage.due() == [changed]
    stage.end(*old, failure="connect_refused")
    assert stage.to_registry == []
    stage.end(changed)
    assert stage.to_registry == [BackendProbed("web", changed.backend, None)]


def test_after_a_changed_check_so_many_probes_come_soon_and_then_one_per_interval():
    slow = replace(TCP, interval_seconds=300.0)
    stage = Stage(target(spec=slow), replace(target(spec=slow), pool="other"))
    stage.end(*stage.due())
    stage.end(*stage.due(300.0))
    stage.tell(ProbeSoon({"web": 3}))
    assert stage.due() == [target(spec=slow)]
    for _ in range(2):
        stage.end(*stage.started)
        assert stage.due(SOON_SECONDS * (1 - 2 * JITTER)) == []
        assert stage.due(SOON_SECONDS * 4 * JITTER) == [target(spec=slow)]
    stage.end(*stage.started)
    assert stage.due(SOON_SECONDS * 2) == []
    assert target(spec=slow) in stage.due(300.0)


def test_a_probe_that_runs_while_its_check_changes_counts_as_the_first_of_those_that_come_soon():
    stage = Stage(target())
    stage.due()
    stage.tell(ProbeSoon({"web": 2}))
    assert stage.due(0.5) == []
    stage.end(target())
    assert stage.due(SOON_SECONDS * 1.2) == [target()]


def test_a_running_probe_counts_for_a_row_that_changed_meanwhile():
    stage = Stage(target())
    old = stage.due()
    stage.tell(ReplaceTargets((target(weight=7),)))
    assert stage.due() == []
    stage.end(*old)
    assert stage.to_registry == [BackendProbed("web", target(weight=7).backend, None)]


def test_a_removed_target_reports_no_results():
    stage = Stage(target("a"), target("b"))
    under_way = stage.due()
    stage.tell(ReplaceTargets((target("b"),)))
    stage.end(*under_way)
    assert [message.backend.id for message in stage.to_registry] == ["b"]
    assert {one.backend.id for _ in range(30) for one in stage.due(1.0)} == {"b"}


def test_one_that_is_removed_and_comes_back_is_not_probed_twice_at_a_time():
    stage = Stage(target())
    under_way = stage.due()
    stage.tell(ReplaceTargets(()), ReplaceTargets((target(),)))
    assert stage.due(1.0) == []
    stage.end(*under_way)
    assert len(stage.to_registry) == 1
    assert stage.due(10.1) == [target()]


def test_probes_of_targets_that_are_no_more_take_up_room_until_they_end():
    stage = Stage(*targets(MAX_AT_ONCE))
    old = stage.due()
    stage.tell(ReplaceTargets((target("new"),)))
    assert stage.due() == []
    assert stage.end(old[0]) == [target("new")]


def test_a_probe_that_never_ends_is_given_up_and_its_room_used_again(logged):
    stage = Stage(*targets(MAX_AT_ONCE + 1))
    lost = stage.due()
    assert stage.due(TCP.timeout_seconds + GRACE_SECONDS - 0.1) == []
    assert stage.due(0.2)[0] == target(f"b{MAX_AT_ONCE}")
    assert stage.to_registry == []
    assert Counter(message.labels[2] for message in stage.to_metrics) == {"given_up": MAX_AT_ONCE}
    assert "WARNING: the probe of backend b0 in pool web did not end and was given up\n" in logged
    stage.end(*stage.started)
    stage.to_registry.clear()
    begun = {one for _ in range(12) for one in stage.due(1.0)}
    assert begun <= set(lost) | {target(f"b{MAX_AT_ONCE}")}
    assert begun


def test_a_lost_probe_of_a_target_that_is_no_more_frees_its_room_too():
    stage = Stage(*targets(MAX_AT_ONCE))
    stage.due()
    stage.tell(ReplaceTargets((target("new"),)))
    assert stage.due(TCP.timeout_seconds + GRACE_SECONDS) == [target("new")]
    assert stage.to_metrics == []


def test_a_probe_that_could_not_be_started_is_tried_again_later(logged):
    failures = [RuntimeError("no greenlet")]

    class Failing(Stage):
        def start_probe(self, one):
            if failures:
                raise failures.pop()
            super().start_probe(one)

    stage = Failing(target())
    assert stage.due() == []
    assert "ERROR: HealthActor failed to handle StartDueProbes" in "".join(logged)
    assert {one.backend.id for _ in range(30) for one in stage.due(1.0)} == {"a"}


def test_a_successor_probes_every_target_again_and_ignores_old_probes():
    stage = Stage(target("a"), target("b"))
    old = stage.due()
    with pytest.raises(InvariantBrokenError):
        ask(stage.health, Crash(), timeout_s=5)
    stage.start(target("b"), target("c"))
    assert stage.end(old[0]) == [target("b"), target("c")]
    assert (stage.to_registry, stage.to_metrics) == ([], [])
    stage.end(target("b"), target("c"))
    assert [message.backend.id for message in stage.to_registry] == ["b", "c"]


# The rhythm


def starts(schedule, seconds, step=0.05, lasts=0.0):
    """Run a schedule with probes of a given duration; return the start times of probes by backend id."""
    seen, under_way, now = {}, [], 0.0
    for tick in range(int(seconds / step)):
        now = tick * step
        while under_way and under_way[0][0] <= now:
            schedule.end(under_way.pop(0)[1], now)
        for one in schedule.start_due(now):
            seen.setdefault(one.backend.id, []).append(now)
            under_way.append((now + lasts, one))
    return seen


def schedule_of(*everyone, seed=1):
    schedule = ProbeSchedule(random.Random(seed))
    schedule.replace(everyone, 0.0)
    return schedule


def test_a_thousand_servers_are_spread_over_the_interval():
    seen = starts(schedule_of(*targets(1000)), 40.0)
    assert len(seen) == 1000
    assert max(times[0] for times in seen.values()) < 1.0
    for second in range(15, 39):
        assert 50 < sum(second <= time < second + 1 for times in seen.values() for time in times) < 160


@given(seed=st.integers(0, 1000), interval=st.sampled_from([1.0, 10.0, 60.0]), lasts=st.sampled_from([0.0, 0.5, 0.95]))
@settings(deadline=None, max_examples=25)
def test_probes_follow_each_other_at_the_interval_give_or_take_the_jitter(seed, interval, lasts):
    spec = replace(TCP, interval_seconds=interval)
    step = interval / 200
    schedule = schedule_of(target(spec=spec), seed=seed)
    times = starts(schedule, 12 * interval, step, lasts=lasts * interval * (1 - JITTER))["a"]
    first, *others = [later - earlier for earlier, later in pairwise(times)]
    assert 0 <= first <= (1 + lasts) * interval + 3 * step
    assert all(interval * (1 - JITTER) - step <= gap <= interval * (1 + JITTER) + 3 * step for gap in others)
    assert len({round(gap / step) for gap in others}) > 1


def test_a_probe_that_outlasts_the_interval_is_followed_by_the_next_at_once():
    times = starts(schedule_of(target()), 100.0, lasts=15.0)["a"]
    assert {round(later - earlier) for earlier, later in pairwise(times[1:])} == {15}


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_any_order_of_events_keeps_every_promise(data):
    """Compare with a naive list of running probes: at most one per target, MAX_AT_ONCE in all, no target forgotten."""
    everyone = targets(MAX_AT_ONCE + 4)
    schedule, now, under_way, wanted = ProbeSchedule(random.Random(0)), 0.0, {}, set()
    for _ in range(data.draw(st.integers(1, 25))):
        match data.draw(st.sampled_from(["replace", "start", "start", "end", "wait"])):
            case "replace":
                left_out = data.draw(st.sets(st.sampled_from(everyone), max_size=6))
                wanted = set(everyone) - left_out
                schedule.replace([one for one in everyone if one in wanted], now)
            case "start":
                for one in schedule.start_due(now):
                    assert one in wanted and one not in under_way
                    under_way[one] = now
                assert len(under_way) <= MAX_AT_ONCE
            case "end" if under_way:
                for one in data.draw(st.lists(st.sampled_from(sorted(under_way, key=str)), unique=True, max_size=9)):
                    del under_way[one]
                    assert schedule.end(one, now) == (one if one in wanted else None)
                    assert schedule.end(one, now) is None
            case "wait":
                now += data.draw(st.sampled_from([0.1, 3.0, 11.0]))
        late = {one for one, since in under_way.items() if since + TCP.timeout_seconds + GRACE_SECONDS <= now}
        assert set(schedule.overdue(now)) == late
    for one in under_way:
        schedule.end(one, now)
    served = set()
    for _ in range(2 * len(everyone)):  # every wanted target is probed within an interval and its jitter
        now += 0.25
        for one in schedule.start_due(now):
            served.add(one)
            schedule.end(one, now)
    assert served == wanted
