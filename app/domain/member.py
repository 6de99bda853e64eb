"""A backend in its pool: its row, its live connections and its health, and whether it may be sent clients now."""

from __future__ import annotations

from typing import Final

from app.domain.health import Health, HealthRules, HealthState
from app.domain.model import Backend

HISTORY_LENGTH: Final = 16
"""Changes of health that are remembered of each member."""


class Floor:
    """How low a pool stoops: members whose health ranks up to `rank` serve (see app.domain.health.RANK)."""

    __slots__ = ("rank",)

    def __init__(self) -> None:
        self.rank = 0


class Member:
    """One backend of one pool. The pool alone changes it; elections read it."""

    __slots__ = ("backend", "changed_at", "connections", "counted_as", "floor", "has_left", "health", "history")

    def __init__(self, backend: Backend, rules: HealthRules, floor: Floor, now: float) -> None:
        self.backend = backend
        self.floor = floor
        self.connections = 0
        self.health = Health(rules)
        self.changed_at = now
        """When its health changed last, in monotonic seconds."""
        self.history: tuple[tuple[float, HealthState], ...] = ((now, self.health.state),)
        """Its last states with when each began, the present one last."""
        self.has_left = False
        """The row is gone; only leases that still run keep the member."""
        self.counted_as: HealthState | None = None
        """The state under which the pool counts it among those that may take new clients."""

    def note_change(self, now: float) -> None:
        """Remember that its health has changed."""
        self.changed_at = now
        self.history = (*self.history, (now, self.health.state))[-HISTORY_LENGTH:]

    @property
    def is_available(self) -> bool:
        """In the database, healthy there, not deleted, and as healthy as the pool asks for."""
        return self.health.rank <= self.floor.rank and self.backend.is_serving and not self.has_left

    @property
    def is_full(self) -> bool:
        return 0 < self.backend.hard_limit <= self.connections

    @property
    def takes_new_clients(self) -> bool:
        """Available, with room, and of some weight. Written out: every election asks several times."""
        backend = self.backend
        return (
            self.health.rank <= self.floor.rank
            and backend.weight > 0
            and backend.is_healthy
            and not backend.is_deleted
            and not self.has_left
            and not 0 < backend.hard_limit <= self.connections
        )

    @property
    def soft_limit(self) -> int:
        """The backend's soft limit; a lower hard limit takes its place."""
        backend = self.backend
        return min(backend.soft_limit, backend.hard_limit) if backend.hard_limit else backend.soft_limit

    @property
    def load(self) -> float:
        """connections / soft_limit / weight: the load term of the seed's score. 0 weight counts as 1."""
        return self.connections / self.soft_limit / (self.backend.weight or 1)
