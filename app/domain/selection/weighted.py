"""Smooth weighted round robin: turns in proportion to weight and evenly spread, A A B A C A A for weights 5:1:1.

The rule is nginx's (ngx_http_upstream_round_robin.c): at every selection each member's `current` rises by its weight,
and the highest is selected and falls by the sum of all weights. Done literally, this would be a scan. Here a member has
a key, and current = key + weight * selections: counting selections raises every current, and only the key of the
selected member changes. Members of equal weight keep their order, so only the first of each weight is compared.

Currents are integers of any size, so nothing drifts.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import count

from app.domain.client import Client
from app.domain.member import Member
from app.domain.model import Backend
from app.domain.selection.ranking import Ranking


class _Turn:
    """The state of a member. `current` is only valid while the member is not in the running."""

    __slots__ = ("current", "has_run", "is_running", "key", "member", "order", "weight")

    def __init__(self, member: Member, order: int) -> None:
        self.member = member
        self.order = order
        self.weight = member.backend.weight
        self.current = 0
        self.key = 0
        self.is_running = False
        self.has_run = False


class WeightedSelector:
    """Selects by smooth weighted round robin; among equals the member added first.

    A new member starts at the mean of the currents. A returning member starts where it left, limited to one round from
    the mean. So no member is starved or flooded, and a member that is full after every selection gets only its share.
    """

    ranks_by_load = False

    def __init__(self) -> None:
        self._turns: dict[Member, _Turn] = {}
        self._by_id: dict[str, _Turn] = {}
        self._orders = count()
        self._selections = 0
        # Sums and rankings of the members in the running:
        self._rankings: dict[int, Ranking[tuple[int, int]]] = {}
        """By weight, ranked by (-key, order)."""
        self._running = 0
        self._weights = 0
        self._keys = 0

    def tier(self, backend: Backend, client: Client) -> None:
        return None

    def add(self, member: Member) -> None:
        turn = self._turns.get(member)
        if turn is None:
            turn = self._turns[member] = _Turn(member, next(self._orders))
            self._by_id[member.backend.id] = turn
        elif turn.weight != member.backend.weight:
            self._take_out(turn)
            turn.weight = member.backend.weight
        self.update(member)

    def remove(self, member: Member) -> None:
        turn = self._turns.pop(member, None)
        if turn is not None:
            self._take_out(turn)
            del self._by_id[member.backend.id]

    def update(self, member: Member) -> None:
        turn = self._turns.get(member)
        if turn is None:
            return
        if not member.takes_new_clients:
            self._take_out(turn)
        elif not turn.is_running:
            mean, round_ = self._mean(), self._weights + turn.weight
            turn.current = min(max(turn.current, mean - round_), mean + round_) if turn.has_run else mean
            self._put_in(turn)

    def select(self, client: Client, excluded: Collection[str]) -> Member | None:
        aside = [turn for one in excluded if (turn := self._by_id.get(one)) and self._take_out(turn)]
        selected = self._front_runner()
        if selected is not None:
            self._selections += 1
            selected.key -= self._weights
            self._keys -= self._weights
            self._rank(selected)
        for turn in aside:
            self._put_in(turn)
        return selected.member if selected is not None else None

    def _front_runner(self) -> _Turn | None:
        """Return the highest current at the next selection, and take out members that no longer take clients."""
        selections = self._selections + 1
        while True:
            best: tuple[int, int] | None = None
            front_runner = None
            for weight, ranking in self._rankings.items():
                first = ranking.first()
                assert first is not None  # empty rankings are deleted
                (negative_key, order), member = first
                standing = (negative_key - weight * selections, order)
                if best is None or standing < best:
                    best, front_runner = standing, member
            if front_runner is None:
                return None
            turn = self._turns[front_runner]
            if front_runner.takes_new_clients:
                return turn
            self._take_out(turn)

    def _mean(self) -> int:
        """Return the mean of the currents in the running, rounded down; 0 if there are none."""
        return (self._keys + self._weights * self._selections) // self._running if self._running else 0

    def _put_in(self, turn: _Turn) -> None:
        turn.is_running = turn.has_run = True
        turn.key = turn.current - turn.weight * self._selections
        self._running += 1
        self._weights += turn.weight
        self._keys += turn.key
        self._rank(turn)

    def _take_out(self, turn: _Turn) -> bool:
        """Take a member out of the running; return False if it was not in it."""
        if not turn.is_running:
            return False
        turn.is_running = False
        turn.current = turn.key + turn.weight * self._selections
        self._running -= 1
        self._weights -= turn.weight
        self._keys -= turn.key
        ranking = self._rankings[turn.weight]
        ranking.drop(turn.member)
        if not ranking:
            del self._rankings[turn.weight]
        return True

    def _rank(self, turn: _Turn) -> None:
        ranking = self._rankings.get(turn.weight)
        if ranking is None:
            ranking = self._rankings[turn.weight] = Ranking()
        ranking.place(turn.member, (-turn.key, turn.order))
