"""Least connections by weight; equals take turns by weight.

Equals are told apart by stride scheduling (Waldspurger and Weihl, 1995): every member has a pass, the lowest goes first
and then moves on by 1/weight. So idle servers of weights 2:1 are elected 2:1 by connections that end before the next
begins. The clock is the highest pass elected: who is new starts there, and who fell behind moves on from there, lest it
win every tie until it has caught up.
"""

from __future__ import annotations

from collections.abc import Collection

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend
from app.domain.selection.ranking import Ranking


class LeastConnectionsSelector:
    """Elects the member with the lowest connections / weight."""

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
                self._passes[member] = moved_on = self._clock + 1 / member.backend.weight
                self._ranking.place(member, (load, moved_on))
                return member
            self._ranking.drop(member)
        return None
