"""Rectangles of a drawing, and positions for them where nothing is yet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Box(NamedTuple):
    """A rectangle; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def moved(self, x: float, y: float) -> Box:
        """Return the same rectangle elsewhere."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def overlap(self, other: Box) -> float:
        """Return the area that both cover."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return width * height if width > 0 and height > 0 else 0.0


def freest(candidates: Iterable[Box], taken: Sequence[Box]) -> Box:
    """Return the first candidate that overlaps nothing taken, else the one that overlaps least."""
    best, least = None, 0.0
    for candidate in candidates:
        covered = sum(candidate.overlap(one) for one in taken)
        if best is None or covered < least:
            best, least = candidate, covered
        if not covered:
            break
    if best is None:
        raise ValueError("no candidates")
    return best
