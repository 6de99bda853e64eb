"""The planned form of a pool: its health rules and its selectors, as configured."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.health import HealthRules


@dataclass(frozen=True, slots=True)
class SelectorPlan:
    """How a frontend selects backends. A selector whose plan is unchanged is kept, with its state."""

    frontend: str
    algorithm: str
    """One of app.domain.selection.ALGORITHMS."""
    spills_at_soft_limit: bool = False
    has_backups: bool = False
    """Whether the pool has backup servers. A pool without any pays nothing for them."""


@dataclass(frozen=True, slots=True)
class PoolPlan:
    """A pool and its selectors, one for each frontend."""

    name: str
    rules: HealthRules
    selectors: tuple[SelectorPlan, ...]
