"""Frees what dropped versions leave: a module is a cycle (its functions refer to it), and those that lived long are
collected only while the edge is idle (app.edge.garbage). A busy edge would keep every version it ever had."""

from __future__ import annotations

import gc
from typing import Final

import gevent

MOST_DROPPED: Final = 20
"""Versions that may lie about. A full collection holds the event loop 50 ms with 5,000 connections: not for each."""


class ModuleGarbage:
    """Counts dropped versions and collects them when they are many."""

    def __init__(self) -> None:
        self._dropped = 0

    def dropped(self) -> None:
        """Note that a version was dropped."""
        self._dropped += 1
        if self._dropped >= MOST_DROPPED:
            self._dropped = 0
            gevent.spawn(gc.collect)  # finalisers of a handler's objects may wait: not in an actor's turn
