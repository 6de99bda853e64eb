"""Who gets the connection: one interface, one class an algorithm.

An election is told of the members of a pool and of every change, and keeps what it needs to know of them to itself:
several elections may stand over the same members. None scans the pool.
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

__all__ = ["ALGORITHMS", "Election", "GeoElection", "make_election", "score"]

ALGORITHMS: Final = ("geo", "round_robin", "weighted", "least_connections", "ip_hash")
"""What they are called in the configuration."""


class Selector(Protocol):
    """Chooses among the members it was told of."""

    ranks_by_load: bool
    """Its choice depends on the members' connections, beyond who is full."""

    def add(self, member: Member) -> None:
        """Take a member in (again, when its row has changed)."""

    def remove(self, member: Member) -> None:
        """Forget a member, if it is known."""

    def update(self, member: Member) -> None:
        """Learn that a member's connections or its health changed.

        That one takes new clients again must be told here; that one does no longer, elections find out themselves.
        """

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        """Return the member for a client, or None when nobody is a candidate. `excluded` are backend ids.

        Nothing is reserved: the caller counts the connection and updates every election over the member.
        """

    def tier(self, backend: Backend, client: Client) -> int | None:
        """Return how far a backend is from a client, 0-3; None where geography does not count."""


def make_selector(
    algorithm: str, *, pop_region: str | None, rng: random.Random, spills_at_soft_limit: bool
) -> Selector:
    """Return a new election by an algorithm of ALGORITHMS. Raises ValueError for any other name."""
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
