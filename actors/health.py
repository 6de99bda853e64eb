"""The health actor owns the schedule of probes: when each backend is probed, and which probes are running.

It opens no socket: a callback starts a greenlet that runs the probe and tells ProbeEnded. The actor forwards the result
to the registry, which judges the backend's health, and to the metrics.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from loguru import logger

from actors.messages import BackendProbed, Count, ProbeEnded, ProbeSoon, ReplaceTargets, StartDueProbes
from actors.runtime import Address, GeventActor, tell
from app.domain import metric_names
from app.domain.probe import ProbeSpec, Target

MAX_AT_ONCE: Final = 128
"""Maximum number of running probes. If all end in one turn of the event loop, they block it for 14 ms. With the default
interval and timeout 256 servers may hang before probes of other servers are late."""
JITTER: Final = 0.1
"""Fraction of the interval, in either direction, so that edges started together do not stay in step."""
SOON_SECONDS: Final = 1.0
"""Between the first probes of a check that has changed, give or take the jitter."""
GRACE_SECONDS: Final = 5.0
"""A probe without a result this long after its timeout is given up: its greenlet has died."""
INCONCLUSIVE: Final = frozenset(("no_resources", "internal_error", "given_up"))
"""Failures of the edge itself, which do not count against a backend (app.outbound.probes; `given_up` is set here)."""

_Key = tuple[str, str, str, int]
"""Pool, backend id, host, port. A target with the same key and probe is the same target, whatever else changes in its
row."""


def _key(target: Target) -> _Key:
    backend = target.backend
    return target.pool, backend.id, backend.host, backend.port


class _Scheduled:
    """A target in the schedule."""

    __slots__ = ("due_at", "has_been_probed", "is_running", "number", "soon", "spec", "started_at", "target")

    def __init__(self, target: Target, spec: ProbeSpec, now: float, number: int) -> None:
        self.target = target
        self.spec = spec
        self.due_at = now
        self.number = number
        """Breaks ties between targets due at the same time."""
        self.started_at = now
        self.is_running = False
        self.has_been_probed = False
        self.soon = 0
        """Probes that follow each other after SOON_SECONDS."""


class ProbeSchedule:
    """Schedules the probes of each target: at once, then after a random part of its interval, then every interval.

    A target has at most one running probe, and all targets together at most MAX_AT_ONCE. Beyond that, targets are
    probed in the order in which they were due. All times are arguments, in monotonic seconds.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count()
        self._scheduled: dict[_Key, _Scheduled] = {}
        self._specs: dict[ProbeSpec, ProbeSpec] = {}
        self._waiting: list[tuple[float, int, _Scheduled]] = []
        self._running: dict[tuple[_Key, ProbeSpec], tuple[Target, float]] = {}
        """Running probes, each with the time when it is overdue; includes probes of targets that were removed."""

    def replace(self, targets: Iterable[Target], now: float) -> None:
        """Probe exactly these targets; known ones keep their schedule."""
        scheduled: dict[_Key, _Scheduled] = {}
        specs: dict[ProbeSpec, ProbeSpec] = {}
        given = spec = None
        for target in targets:
            # The targets of a pool share one spec. Comparing equal specs for each of 10,000 targets would take 30 ms.
            if target.spec is not given or spec is None:
                given = target.spec
                spec = self._specs.get(given, given)
                specs[spec] = spec
            key = _key(target)
            entry = self._scheduled.get(key)
            if entry is None or entry.spec is not spec:
                entry = _Scheduled(target, spec, now, next(self._numbers))
                entry.is_running = (key, spec) in self._running
            entry.target = target
            scheduled[key] = entry
        self._scheduled, self._specs = scheduled, specs
        self._order()

    def probe_soon(self, probes: Mapping[str, int], now: float) -> None:
        """Begin anew with the targets of these pools: so many probes soon, then one per interval."""
        for entry in self._scheduled.values():
            if entry.target.pool in probes:
                entry.soon, entry.due_at, entry.has_been_probed = probes[entry.target.pool], now, False
        self._order()

    def _order(self) -> None:
        entries = self._scheduled.values()
        self._waiting = [(entry.due_at, entry.number, entry) for entry in entries if not entry.is_running]
        heapify(self._waiting)

    def start_due(self, now: float) -> list[Target]:
        """Return the targets whose probes must start now; they count as running."""
        starting = []
        while self._waiting and self._waiting[0][0] <= now and len(self._running) < MAX_AT_ONCE:
            entry = heappop(self._waiting)[2]
            entry.is_running, entry.started_at = True, now
            overdue_at = now + entry.spec.timeout_seconds + GRACE_SECONDS
            self._running[_key(entry.target), entry.spec] = entry.target, overdue_at
            starting.append(entry.target)
        return starting

    def end(self, target: Target, now: float) -> Target | None:
        """Schedule the next probe. Return the target with its present row, None if the probe is no longer wanted."""
        key = _key(target)
        if self._running.pop((key, target.spec), None) is None:
            return None
        entry = self._scheduled.get(key)
        if entry is None or entry.spec != target.spec:
            return None
        entry.soon = max(entry.soon - 1, 0)
        entry.due_at = self._next_due(entry, now)
        entry.is_running, entry.has_been_probed = False, not entry.soon
        heappush(self._waiting, (entry.due_at, entry.number, entry))
        return entry.target

    def overdue(self, now: float) -> list[Target]:
        """Return the targets of running probes that are overdue."""
        return [target for target, until in self._running.values() if until <= now]

    def _next_due(self, entry: _Scheduled, now: float) -> float:
        interval = entry.spec.interval_seconds
        if entry.soon:
            interval = min(interval, SOON_SECONDS)
        elif not entry.has_been_probed:
            return now + self._rng.uniform(0.0, interval)
        return max(now, entry.started_at + interval * self._rng.uniform(1 - JITTER, 1 + JITTER))


class HealthActor(GeventActor):
    """Translates messages. After a crash it is rebuilt from the present targets; results of running probes are ignored.

    `start_probe` must not wait: it starts a greenlet that tells ProbeEnded with the same target.
    """

    def __init__(
        self,
        start_probe: Callable[[Target], None],
        registry: Address,
        metrics: Address,
        targets: Iterable[Target] = (),
        *,
        rng: random.Random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._start_probe = start_probe
        self._registry = registry
        self._metrics = metrics
        self._clock = clock
        self._schedule = ProbeSchedule(rng)
        self._schedule.replace(targets, clock())

    def handle(self, message: object) -> object:
        match message:
            case ReplaceTargets(targets):
                self._schedule.replace(targets, self._clock())
            case ProbeSoon(probes):
                self._schedule.probe_soon(probes, self._clock())
            case StartDueProbes():
                self._give_up_overdue(self._clock())
                self._start_due(self._clock())
            case ProbeEnded(target, failure):
                self._ended(target, failure, self._clock())
                self._start_due(self._clock())
            case _:
                return super().handle(message)
        return None

    def _start_due(self, now: float) -> None:
        for target in self._schedule.start_due(now):
            self._start_probe(target)

    def _ended(self, probed: Target, failure: str | None, now: float) -> None:
        target = self._schedule.end(probed, now)
        if target is None:
            return
        if failure not in INCONCLUSIVE:
            tell(self._registry, BackendProbed(target.pool, target.backend, failure))
        tell(self._metrics, Count(metric_names.PROBES, (target.pool, target.backend.id, failure or "passed")))

    def _give_up_overdue(self, now: float) -> None:
        for target in self._schedule.overdue(now):
            logger.warning(
                "the probe of backend {} in pool {} did not end and was given up", target.backend.id, target.pool
            )
            self._ended(target, "given_up", now)
