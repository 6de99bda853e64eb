"""Selectors: they choose the backend of a connection. One interface, one class per algorithm.

A selector is told the members of a pool and every change, and keeps its own state: several selectors may use the same
members. None scans the pool.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import Final, Protocol

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend
from app.domain.selection.geo import GeoSelector, score
from app.domain.selection.ip_hash import IpHashSelector
from app.domain.selection.least_connections import LeastConnectionsSelector
from app.domain.selection.round_robin import RoundRobinSelector
from app.domain.selection.weighted import WeightedSelector

__all__ = ["ALGORITHMS", "GeoSelector", "Selector", "make_selector", "score"]

ALGORITHMS: Final = ("geo", "round_robin", "weighted", "least_connections", "ip_hash")
"""Names in the configuration."""


class Selector(Protocol):
    """Chooses among its members."""

    ranks_by_load: bool
    """Whether the choice depends on the members' connections, apart from full members."""

    def add(self, member: Member) -> None:
        """Add a member, or add it again after its row has changed."""

    def remove(self, member: Member) -> None:
        """Remove a member, if it is known."""

    def update(self, member: Member) -> None:
        """Note that a member's connections or health changed.

        The call is required when a member takes new clients again. Selectors detect by themselves when it stops.
        """

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        """Return the member for a client, None if there is no candidate. `excluded` are backend ids.

        Nothing is reserved: the caller counts the connection and updates every selector that has the member.
        """

    def tier(self, backend: Backend, client: Client) -> int | None:
        """Return the geo tier of a backend for a client, 0-3; None if the algorithm ignores geography."""


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
