"""Frees the modules of dropped versions.

A module is a reference cycle, because its functions refer to it, and old cycles are collected only while the edge is
idle (app.edge.garbage): a busy edge would keep every version it ever loaded.
"""

from __future__ import annotations

import gc
from typing import Final

import gevent

MOST_DROPPED: Final = 20
"""Dropped versions kept until a collection. A full collection blocks the event loop 50 ms with 5,000 connections."""


class ModuleGarbage:
    """Counts dropped versions and collects them after MOST_DROPPED."""

    def __init__(self) -> None:
        self._dropped = 0

    def dropped(self) -> None:
        """Count a dropped version."""
        self._dropped += 1
        if self._dropped >= MOST_DROPPED:
            self._dropped = 0
            gevent.spawn(gc.collect)  # in a greenlet: finalisers of a handler's objects may wait, an actor must not
