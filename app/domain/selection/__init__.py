"""Selectors: they choose the backend of a connection. One interface, one class per algorithm.

A selector is told the members of a pool and every change, and keeps its own state: several selectors may use the same
members. None scans the pool.
"""

from __future__ import annotations

import random
from typing import Final

from app.domain.selection.backups import WithBackups
from app.domain.selection.geo import GeoSelector, score
from app.domain.selection.ip_hash import IpHashSelector
from app.domain.selection.least_connections import LeastConnectionsSelector
from app.domain.selection.round_robin import RoundRobinSelector
from app.domain.selection.selector import Selector
from app.domain.selection.weighted import WeightedSelector

__all__ = ["ALGORITHMS", "GeoSelector", "Selector", "WithBackups", "make_selector", "score"]

ALGORITHMS: Final = ("geo", "round_robin", "weighted", "least_connections", "ip_hash")
"""Names in the configuration."""


def make_selector(
    algorithm: str, *, pop_region: str | None, rng: random.Random, spills_at_soft_limit: bool
) -> Selector:
    """Return a new selector for one of ALGORITHMS. Raises ValueError for any other name."""
    match algorithm:
        case "geo":
            return GeoSelector(pop_region, rng, spills_at_soft_limit=spills_at_soft_limit)
        case "round_robin":
            return RoundRobinSelector()
        case "weighted":
            return WeightedSelector()
        case "least_connections":
            return LeastConnectionsSelector()
        case "ip_hash":
            return IpHashSelector()
    raise ValueError(f"no such algorithm: {algorithm}")
