"""Backup servers, as nginx has them: they serve while no other server is a candidate."""

from __future__ import annotations

from collections.abc import Collection

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend
from app.domain.selection.selector import Selector


class WithBackups:
    """Selects among the backups what the selector of the others leaves without a member."""

    def __init__(self, others: Selector, backups: Selector) -> None:
        """Both begin empty and are of the same algorithm."""
        self._others = others
        self._backups = backups
        self.ranks_by_load = others.ranks_by_load

    def add(self, member: Member) -> None:
        self.remove(member)  # a reload may have made a backup of it, or no backup
        self._of(member).add(member)

    def remove(self, member: Member) -> None:
        self._others.remove(member)
        self._backups.remove(member)

    def update(self, member: Member) -> None:
        self._of(member).update(member)

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        selected = self._others.select(client, excluded)
        return selected if selected is not None else self._backups.select(client, excluded)

    def tier(self, backend: Backend, client: Client) -> int | None:
        return self._others.tier(backend, client)

    def _of(self, member: Member) -> Selector:
        return self._backups if member.backend.is_backup else self._others
