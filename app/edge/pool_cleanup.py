"""What the pools do about connections of the past: ends those to drained backends, forgets pools that none uses."""

from __future__ import annotations

import time
from typing import Final

from loguru import logger

from app.domain.words import counted
from app.edge.parts import EdgeParts

TICK_SECONDS: Final = 1.0


def end_drained(parts: EdgeParts) -> None:
    """End the connections to backends whose drain deadline has passed."""
    now = time.time()
    for pool in parts.config().pools:
        if pool.app is None:
            continue
        due = {
            backend.id
            for backend in parts.pools.backends[pool.name]
            if backend.is_deleted and backend.drain_deadline is not None and backend.drain_deadline <= now
        }
        if due:
            for backend_id, ended in parts.data_plane.end_backends(pool.name, due, "drain_deadline").items():
                logger.info("backend {}: drain deadline reached, {} ended", backend_id, counted(ended, "connection"))


def forget_retired(parts: EdgeParts) -> None:
    """Remove the pools and selectors of former configurations that no connection uses."""
    parts.pools.forget_retired(parts.data_plane.pools_in_use())
