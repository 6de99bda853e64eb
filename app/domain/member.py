"""A member of a pool: a backend with its live connections and its health. It tells whether it may get clients."""

from __future__ import annotations

from typing import Final

from app.domain.health import Health, HealthRules, HealthState
from app.domain.model import Backend

HISTORY_LENGTH: Final = 16
"""Health changes kept for each member."""


class Floor:
    """The worst health that serves in a pool: members of a rank up to `rank` serve (see app.domain.health.RANK)."""

    __slots__ = ("rank",)

    def __init__(self) -> None:
        self.rank = 0


class Member:
    """One backend of one pool. Only the pool changes it; selectors read it."""

    __slots__ = ("backend", "changed_at", "connections", "counted_as", "floor", "has_left", "health", "history")

    def __init__(self, backend: Backend, rules: HealthRules, floor: Floor, now: float) -> None:
        self.backend = backend
        self.floor = floor
        self.connections = 0
        self.health = Health(rules)
        self.changed_at = now
        """When its health last changed, in monotonic seconds."""
        self.history: tuple[tuple[float, HealthState], ...] = ((now, self.health.state),)
        """Its last states, each with its start, the present one last."""
        self.has_left = False
        """The row is gone; the member exists only until its leases end."""
        self.counted_as: HealthState | None = None
        """The state under which the pool's tally counts it; None if it may not take new clients."""

    def record_change(self, now: float) -> None:
        """Record that its health has changed."""
        self.changed_at = now
        self.history = (*self.history, (now, self.health.state))[-HISTORY_LENGTH:]

    @property
    def is_available(self) -> bool:
        """Whether it is in the database, healthy there, not deleted, and as healthy as the pool requires."""
        return self.health.rank <= self.floor.rank and self.backend.is_serving and not self.has_left

    @property
    def is_full(self) -> bool:
        return 0 < self.backend.hard_limit <= self.connections

    @property
    def takes_new_clients(self) -> bool:
        """Whether it is available, below its hard limit and of positive weight. Inlined: every selection reads it."""
        backend = self.backend
        return (
            self.health.rank <= self.floor.rank
            and backend.weight > 0
            and backend.is_healthy
            and not backend.is_deleted
            and backend.host != ""
            and not self.has_left
            and not 0 < backend.hard_limit <= self.connections
        )

    @property
    def soft_limit(self) -> int:
        """The backend's soft limit, or its hard limit if that is lower."""
        backend = self.backend
        return min(backend.soft_limit, backend.hard_limit) if backend.hard_limit else backend.soft_limit

    @property
    def load(self) -> float:
        """connections / soft_limit / weight: the load term of the seed's score. Weight 0 counts as 1."""
        return self.connections / self.soft_limit / (self.backend.weight or 1)
