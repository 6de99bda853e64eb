"""Least connections by weight; equals take turns by weight.

Ties are broken by stride scheduling (Waldspurger and Weihl, 1995): every member has a pass; the lowest is selected and
then advances by 1/weight. So idle servers of weights 2:1 are selected 2:1 even if each connection ends before the next
begins. The clock is the highest pass selected so far. A new member starts there, and a member that fell behind advances
from there: otherwise it would win every tie until it had caught up.
"""

from __future__ import annotations

from collections.abc import Collection

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend
from app.domain.selection.ranking import Ranking


class LeastConnectionsSelector:
    """Selects the member with the lowest connections / weight."""

    ranks_by_load = True

    def __init__(self) -> None:
        self._passes: dict[Member, float] = {}
        self._clock = 0.0
        self._ranking: Ranking[tuple[float, float]] = Ranking()

    def tier(self, backend: Backend, client: Client) -> None:
        return None

    def add(self, member: Member) -> None:
        self._passes.setdefault(member, self._clock)
        self.update(member)

    def remove(self, member: Member) -> None:
        self._passes.pop(member, None)
        self._ranking.drop(member)

    def update(self, member: Member) -> None:
        own_pass = self._passes.get(member)
        if own_pass is None:
            return
        if member.takes_new_clients:
            self._ranking.place(member, (member.connections / member.backend.weight, own_pass))
        else:
            self._ranking.drop(member)

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        while (first := self._ranking.first(excluded)) is not None:
            (load, ranked_pass), member = first
            if member.takes_new_clients:
                self._clock = max(self._clock, ranked_pass)
                self._passes[member] = next_pass = self._clock + 1 / member.backend.weight
                self._ranking.place(member, (load, next_pass))
                return member
            self._ranking.drop(member)
        return None
