"""Members ordered by rank, lowest first: a lazy heap, in which a member's rank may change at any time.

A new rank is pushed beside the old one. Outdated entries are dropped when they reach the top, and all at once when
there are too many.
"""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

from app.domain.member import Member

_COMPACT_ABOVE: Final = 64
"""A heap is rebuilt when it has more entries than this plus four times its members."""

Rank = TypeVar("Rank", bound="tuple[float, ...]")


class Ranking(Generic[Rank]):
    """Orders members by tuples of numbers; equals are in the order in which they were ranked."""

    __slots__ = ("_heap", "_latest", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, Member]] = []
        self._latest: dict[Member, tuple[Rank, int, Member]] = {}
        self._sequence = count()

    def __len__(self) -> int:
        return len(self._latest)

    def place(self, member: Member, rank: Rank) -> None:
        """Set a member's rank, replacing its former one."""
        latest, heap = self._latest, self._heap
        if len(heap) > _COMPACT_ABOVE + 4 * len(latest):
            self._heap = heap = list(latest.values())
            heapify(heap)
        latest[member] = entry = (rank, next(self._sequence), member)
        heappush(heap, entry)

    def drop(self, member: Member) -> None:
        self._latest.pop(member, None)

    def first(self, excluded: Collection[str] = ()) -> tuple[Rank, Member] | None:
        """Return the lowest rank and its member, ignoring members whose backend ids are excluded."""
        heap, latest = self._heap, self._latest
        passed_over = []
        found = None
        while heap:
            entry = heap[0]
            member = entry[2]
            if latest.get(member) is not entry:
                heappop(heap)
            elif excluded and member.backend.id in excluded:
                passed_over.append(heappop(heap))
            else:
                found = entry[0], member
                break
        for entry in passed_over:
            heappush(heap, entry)
        return found
