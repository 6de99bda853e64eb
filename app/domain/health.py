"""A backend's health as its connections show it: consecutive failures, ejection with a doubling cool-down.

Pure: times are monotonic seconds handed in. How many members of a pool may be ejected at once is the pool's rule.
"""

from __future__ import annotations

from typing import Final

EJECT_AFTER_FAILURES: Final = 3
"""Dials in a row that must fail before a backend is ejected."""

FIRST_COOLDOWN_SECONDS: Final = 10.0
LONGEST_COOLDOWN_SECONDS: Final = 300.0


class PassiveHealth:
    """Counts failures in a row and cools down after ejections; any success forgets all of it."""

    __slots__ = ("consecutive_failures", "ejected_until", "ejections")

    def __init__(self) -> None:
        self.consecutive_failures = 0
        self.ejections = 0
        self.ejected_until: float | None = None

    @property
    def is_ejected(self) -> bool:
        return self.ejected_until is not None

    @property
    def is_spotless(self) -> bool:
        """No failure is remembered."""
        return self.consecutive_failures == 0 and self.ejections == 0

    @property
    def wants_ejection(self) -> bool:
        return self.consecutive_failures >= EJECT_AFTER_FAILURES and not self.is_ejected

    def fail(self) -> None:
        self.consecutive_failures += 1

    def succeed(self) -> None:
        self.consecutive_failures = 0
        self.ejections = 0
        self.ejected_until = None

    def eject(self, now: float) -> float:
        """Cool down from `now`; returns when that ends. Each ejection without a success between doubles the time."""
        doublings = min(self.ejections, 10)  # enough for the longest; a power without end overflows after 1,024
        cooldown = min(FIRST_COOLDOWN_SECONDS * 2**doublings, LONGEST_COOLDOWN_SECONDS)
        self.ejections += 1
        self.ejected_until = now + cooldown
        return self.ejected_until

    def readmit(self) -> None:
        """The cool-down is over: serve again, on probation (the doubling is kept until a success)."""
        self.ejected_until = None
        self.consecutive_failures = 0
