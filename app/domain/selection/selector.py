"""The interface of every selector."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend


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
