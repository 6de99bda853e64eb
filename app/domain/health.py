"""A backend's health: one state machine for what active probes find and what its connections show.

::

                  first probe                 threshold of failed probes
    UNKNOWN ──passes──▶ UP ───────────────────────────────────▶ DOWN
       │                ▲ ◀── threshold of passed probes ────────┘ ▲
       │                │                                          │ threshold of failed probes
       │   cooled down, │ threshold of failures in traffic         │
       │     or success └────────────────▶ EJECTED ────────────────┘
       └── first probe fails ──▶ DOWN

A backend that nobody probes begins UP; a probed one begins UNKNOWN, and its first probe decides alone. UNKNOWN serves
when nobody is UP, DOWN and EJECTED when there is nobody else at all: that is the pool's rule, as is how many may be
ejected at once (app.domain.pool). Pure: times are monotonic seconds handed in.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

MAX_COOLDOWN_SECONDS: Final = 300.0


class HealthState(StrEnum):
    """What is believed of a backend (`state` in events and metrics)."""

    UP = "up"
    UNKNOWN = "unknown"
    """To be probed, but not yet."""
    DOWN = "down"
    """Active probes fail."""
    EJECTED = "ejected"
    """Its connections failed: cooling down."""


RANK: Final = {HealthState.UP: 0, HealthState.UNKNOWN: 1, HealthState.DOWN: 2, HealthState.EJECTED: 2}
"""Who goes first: a lower rank serves before a higher one."""


@dataclass(frozen=True, slots=True)
class HealthRules:
    """When a backend's state changes. Thresholds count in a row; the cool-down doubles with each ejection."""

    is_probed: bool = False
    unhealthy_threshold: int = 3
    healthy_threshold: int = 2
    cooldown_seconds: float = 10.0


class Health:
    """The state of one backend, and what it was judged by."""

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
        """Forget everything: the backend has another address, or was taken out."""
        self.consecutive_failures = 0
        """In traffic."""
        self.probe_streak = 0
        """Probes in a row that passed, or (below 0) failed."""
        self.ejections = 0
        self.ejected_until: float | None = None
        self._become(HealthState.UNKNOWN if self.rules.is_probed else HealthState.UP)

    def set_rules(self, rules: HealthRules) -> None:
        """Go on under other rules; what only probes can end does not outlive them."""
        self.rules = rules
        if not rules.is_probed and self.state in (HealthState.UNKNOWN, HealthState.DOWN):
            self.reset()

    def _become(self, state: HealthState) -> None:
        self.state = state
        self.rank = RANK[state]

    # What probes say

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

    # What traffic says

    @property
    def is_ejected(self) -> bool:
        return self.state is HealthState.EJECTED

    @property
    def is_spotless(self) -> bool:
        """No failure in traffic is remembered."""
        return self.consecutive_failures == 0 and self.ejections == 0

    @property
    def wants_ejection(self) -> bool:
        """Only of one that is UP: UNKNOWN is for the first probe to end, and a cool-down would end as UP, unproven."""
        return self.state is HealthState.UP and self.consecutive_failures >= self.rules.unhealthy_threshold

    def traffic_failed(self) -> None:
        self.consecutive_failures += 1

    def traffic_succeeded(self) -> None:
        """Forget the failures and end an ejection. DOWN stays: probes must say otherwise."""
        self.consecutive_failures = self.ejections = 0
        if self.is_ejected:
            self.ejected_until = None
            self._become(HealthState.UP)

    def eject(self, now: float) -> float:
        """Cool down from `now`; returns when that ends. Each ejection without a success between doubles the time."""
        doublings = min(self.ejections, 10)  # enough for the longest; a power without end overflows after 1,024
        cooldown = min(self.rules.cooldown_seconds * 2**doublings, MAX_COOLDOWN_SECONDS)
        self.ejections += 1
        self.ejected_until = now + cooldown
        self._become(HealthState.EJECTED)
        return self.ejected_until

    def readmit(self) -> None:
        """The cool-down is over: serve again, on probation (the doubling is kept until a success)."""
        self.ejected_until = None
        self.consecutive_failures = 0
        self._become(HealthState.UP)
