"""A backend's health: one state machine for the results of active probes and of its own traffic.

::

                  first probe                 threshold of failed probes
    UNKNOWN ──passes──▶ UP ───────────────────────────────────▶ DOWN
       │                ▲ ◀── threshold of passed probes ────────┘ ▲
       │                │                                          │ threshold of failed probes
       │   cooled down, │ threshold of failures in traffic         │
       │     or success └────────────────▶ EJECTED ────────────────┘
       └── first probe fails ──▶ DOWN

A backend without probes starts UP. A probed one starts UNKNOWN, and its first probe alone decides. The pool
(app.domain.pool) decides which states serve: UNKNOWN if no backend is UP, DOWN and EJECTED only if there is no other.
The pool also limits how many backends may be ejected at once. All times are arguments, in monotonic seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_COOLDOWN_SECONDS: Final = 300.0


class HealthState(StrEnum):
    """The health of a backend (`state` in events and metrics)."""

    UP = "up"
    UNKNOWN = "unknown"
    """Probed, but the first probe has not ended."""
    DOWN = "down"
    """Active probes fail."""
    EJECTED = "ejected"
    """Cooling down after failures in traffic."""


RANK: Final = {HealthState.UP: 0, HealthState.UNKNOWN: 1, HealthState.DOWN: 2, HealthState.EJECTED: 2}
"""Precedence: backends of a lower rank serve before those of a higher one."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a backend's state changes. Thresholds are consecutive events; the cool-down doubles with each ejection."""

    is_probed: bool = False
    unhealthy_threshold: int = 3
    healthy_threshold: int = 2
    cooldown_seconds: float = 10.0


class Health:
    """The state of one backend, and the evidence for it."""

    __slots__ = (
        "consecutive_failures",
        "ejected_until",
        "ejections",
        "probe_streak",
        "rank",
        "rules",
        "state",
    )

    def __init__(self, rules: HealthRules) -> None:
        self.rules = rules
        self.reset()

    def reset(self) -> None:
        """Forget everything, because the backend has a new address or has left the pool."""
        self.consecutive_failures = 0
        """In traffic."""
        self.probe_streak = 0
        """Consecutive probes that passed (above 0) or failed (below 0)."""
        self.ejections = 0
        self.ejected_until: float | None = None
        self._become(HealthState.UNKNOWN if self.rules.is_probed else HealthState.UP)

    def set_rules(self, rules: HealthRules) -> None:
        """Use other rules from now on. Without probes, a state that only a probe can end is reset."""
        self.rules = rules
        if not rules.is_probed and self.state in (HealthState.UNKNOWN, HealthState.DOWN):
            self.reset()

    def _become(self, state: HealthState) -> None:
        self.state = state
        self.rank = RANK[state]

    # Probes

    def probe_passed(self) -> None:
        self.probe_streak = max(self.probe_streak, 0) + 1
        is_enough = self.state is HealthState.DOWN and self.probe_streak >= self.rules.healthy_threshold
        if is_enough or self.state is HealthState.UNKNOWN:
            self.consecutive_failures = self.ejections = 0
            self._become(HealthState.UP)

    def probe_failed(self) -> None:
        self.probe_streak = min(self.probe_streak, 0) - 1
        if self.state is HealthState.UNKNOWN or -self.probe_streak >= self.rules.unhealthy_threshold:
            self.ejected_until = None
            self._become(HealthState.DOWN)

    # Traffic

    @property
    def is_ejected(self) -> bool:
        return self.state is HealthState.EJECTED

    @property
    def is_spotless(self) -> bool:
        """Whether no failure in traffic is on record."""
        return self.consecutive_failures == 0 and self.ejections == 0

    @property
    def wants_ejection(self) -> bool:
        """Whether failures suffice for an ejection. Never if UNKNOWN: a cool-down would end in UP without a probe."""
        return self.state is HealthState.UP and self.consecutive_failures >= self.rules.unhealthy_threshold

    def traffic_failed(self) -> None:
        self.consecutive_failures += 1

    def traffic_succeeded(self) -> None:
        """Forget the failures and end an ejection. DOWN remains: only probes can end it."""
        self.consecutive_failures = self.ejections = 0
        if self.is_ejected:
            self.ejected_until = None
            self._become(HealthState.UP)

    def eject(self, now: float) -> float:
        """Start to cool down, and return when that ends. The time doubles until traffic succeeds."""
        doublings = min(self.ejections, 10)  # enough to reach the maximum; an unbounded power overflows after 1,024
        cooldown = min(self.rules.cooldown_seconds * 2**doublings, MAX_COOLDOWN_SECONDS)
        self.ejections += 1
        self.ejected_until = now + cooldown
        self._become(HealthState.EJECTED)
        return self.ejected_until

    def readmit(self) -> None:
        """Serve again after the cool-down. The doubling is kept until traffic succeeds."""
        self.ejected_until = None
        self.consecutive_failures = 0
        self._become(HealthState.UP)
