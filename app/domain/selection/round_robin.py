"""Plain rotation over the members that take new clients, whatever their weight."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend


class RoundRobinSelector:
    """Selects in rotation. A new or returning member joins at the end; an excluded member keeps its turn."""

    ranks_by_load = False

    def __init__(self) -> None:
        self._present: set[Member] = set()
        self._turns: OrderedDict[Member, None] = OrderedDict()
        """Members that took new clients at the last check, the next one first."""

    def tier(self, backend: Backend, client: Client) -> None:
        return None

    def add(self, member: Member) -> None:
        self._present.add(member)
        self.update(member)

    def remove(self, member: Member) -> None:
        self._present.discard(member)
        self._turns.pop(member, None)

    def update(self, member: Member) -> None:
        if member not in self._present or not member.takes_new_clients:
            self._turns.pop(member, None)
        else:
            self._turns.setdefault(member)

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        stale, selected = [], None
        for member in self._turns:
            if not member.takes_new_clients:
                stale.append(member)
            elif member.backend.id not in excluded:
                selected = member
                break
        for member in stale:
            del self._turns[member]
        if selected is not None:
            self._turns.move_to_end(selected)
        return selected
