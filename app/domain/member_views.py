"""What a pool reports of its members: snapshots, and changes of health."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.health import HealthState
from app.domain.model import Backend


@dataclass(frozen=True, slots=True)
class MemberView:
    """A snapshot of one member. `ejected_for` is the remaining cool-down in seconds, 0 if not ejected."""

    backend: Backend
    connections: int
    load: float
    """See Member.load."""
    state: HealthState
    changed_at: float
    """When `state` last changed, in monotonic seconds."""
    history: tuple[tuple[float, HealthState], ...]
    """The last states, each with its start, the present one last."""
    consecutive_failures: int
    ejected_for: float
    is_available: bool
    takes_new_clients: bool
    has_left: bool
    """It is no longer in the set; it exists until its connections end."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A change of a backend's health, for the log and the metrics."""

    backend_id: str
    before: HealthState
    after: HealthState
    cause: str
    """The reason of the probe or the dial, or the passing of time."""
    seconds: float
    """Cool-down of an ejection, 0 otherwise."""
