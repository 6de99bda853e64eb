"""What the configuration makes of a pool: by which rules its health is judged, and who elects in it."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.health import HealthRules


@dataclass(frozen=True, slots=True)
class SelectorPlan:
    """How a frontend elects. Equal plans keep their election, with whose turn it is."""

    frontend: str
    algorithm: str
    """A key of app.domain.selection.ALGORITHMS."""
    spills_at_soft_limit: bool = False


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool and the elections held in it, one a frontend."""

    name: str
    rules: HealthRules
    selectors: tuple[SelectorPlan, ...]
