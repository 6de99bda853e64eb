"""The health actor owns the probe schedule: which backend is probed when, and which probes are under way.

It opens no socket. A callable handed in starts a greenlet that runs the probe and tells ProbeEnded; what came of it
goes on to the registry, which judges, and to the metrics.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

from loguru import logger

from actors.messages import BackendProbed, Count, ProbeEnded, ReplaceTargets, StartDueProbes
from actors.runtime import Address, GeventActor, tell
from app.domain import metric_names
from app.domain.probe import ProbeSpec, Target

MAX_AT_ONCE: Final = 128
"""Probes under way. It takes 14 ms of the event loop should they all be answered in one turn of it; and with the
default interval and timeout 256 servers may hang before the others' probes come late."""
JITTER: Final = 0.1
"""Of the interval, either way: edges that were started together do not stay in step."""
GRACE_SECONDS: Final = 5.0
"""A probe that has said nothing for so long after its timeout is given up: its greenlet has died."""
INCONCLUSIVE: Final = frozenset(("no_resources", "internal_error", "given_up"))
"""Failures of ours, by which no backend is judged (app.outbound.probes; the last is given here)."""

_Place = tuple[str, str, str, int]
"""Pool, backend id, host, port. A target at the same place and asked the same way is the same target, whatever else of
its row changes."""


def _place(target: Target) -> _Place:
    backend = target.backend
    return target.pool, backend.id, backend.host, backend.port


class _Turn:
    """A target's place in the rhythm."""

    __slots__ = ("due_at", "has_been_probed", "is_under_way", "number", "spec", "started_at", "target")

    def __init__(self, target: Target, spec: ProbeSpec, now: float, number: int) -> None:
        self.target = target
        self.spec = spec
        self.due_at = now
        self.number = number
        """Who goes first among those due at the same moment."""
        self.started_at = now
        self.is_under_way = False
        self.has_been_probed = False


class ProbeSchedule:
    """When each target is probed: at once, then after a random part of its interval, then about every interval.

    A target has at most one probe under way, all of them together MAX_AT_ONCE; whoever is due and finds no room goes
    before those due later. All times are monotonic seconds handed in.
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = count()
        self._turns: dict[_Place, _Turn] = {}
        self._specs: dict[ProbeSpec, ProbeSpec] = {}
        self._waiting: list[tuple[float, int, _Turn]] = []
        self._under_way: dict[tuple[_Place, ProbeSpec], tuple[Target, float]] = {}
        """And when each is overdue. Probes of targets that are no more take up room until they end, too."""

    def replace(self, targets: Iterable[Target], now: float) -> None:
        """Probe these and no others; those known already keep their rhythm."""
        turns: dict[_Place, _Turn] = {}
        specs: dict[ProbeSpec, ProbeSpec] = {}
        given = spec = None
        for target in targets:
            # A pool's targets share one spec. Comparing it with its equal for each of 10,000 would take 30 ms.
            if target.spec is not given or spec is None:
                given = target.spec
                spec = self._specs.get(given, given)
                specs[spec] = spec
            place = _place(target)
            turn = self._turns.get(place)
            if turn is None or turn.spec is not spec:
                turn = _Turn(target, spec, now, next(self._numbers))
                turn.is_under_way = (place, spec) in self._under_way
            turn.target = target
            turns[place] = turn
        self._turns, self._specs = turns, specs
        self._waiting = [(turn.due_at, turn.number, turn) for turn in turns.values() if not turn.is_under_way]
        heapify(self._waiting)

    def start_due(self, now: float) -> list[Target]:
        """Return the targets whose probes are to start now; they count as under way."""
        starting = []
        while self._waiting and self._waiting[0][0] <= now and len(self._under_way) < MAX_AT_ONCE:
            turn = heappop(self._waiting)[2]
            turn.is_under_way, turn.started_at = True, now
            overdue_at = now + turn.spec.timeout_seconds + GRACE_SECONDS
            self._under_way[_place(turn.target), turn.spec] = turn.target, overdue_at
            starting.append(turn.target)
        return starting

    def end(self, target: Target, now: float) -> Target | None:
        """Schedule the next probe; returns the target as it is by now, None when nobody waits for this one any more."""
        place = _place(target)
        if self._under_way.pop((place, target.spec), None) is None:
            return None
        turn = self._turns.get(place)
        if turn is None or turn.spec != target.spec:
            return None
        turn.due_at = self._next_due(turn, now)
        turn.is_under_way, turn.has_been_probed = False, True
        heappush(self._waiting, (turn.due_at, turn.number, turn))
        return turn.target

    def overdue(self, now: float) -> list[Target]:
        """Return the targets of probes that should have ended long ago."""
        return [target for target, until in self._under_way.values() if until <= now]

    def _next_due(self, turn: _Turn, now: float) -> float:
        interval = turn.spec.interval_seconds
        if not turn.has_been_probed:
            return now + self._rng.uniform(0.0, interval)
        return max(now, turn.started_at + interval * self._rng.uniform(1 - JITTER, 1 + JITTER))


class HealthActor(GeventActor):
    """Built afresh after a crash, from the targets of the moment; what was under way then ends unheard.

    `start_probe` must not wait: it starts a greenlet that tells ProbeEnded, with the target that it was given.
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

    def _ended(self, asked: Target, failure: str | None, now: float) -> None:
        target = self._schedule.end(asked, now)
        if target is None:
            return
        if failure not in INCONCLUSIVE:
            tell(self._registry, BackendProbed(target.pool, target.backend, failure))
        tell(self._metrics, Count(metric_names.PROBES, (target.pool, target.backend.id, failure or "passed")))

    def _give_up_overdue(self, now: float) -> None:
        for target in self._schedule.overdue(now):
            logger.warning("the probe of backend {} of pool {} never ended", target.backend.id, target.pool)
            self._ended(target, "given_up", now)
