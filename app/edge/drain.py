"""Drain: withdraw from clients, close the listeners, and let the open connections finish within their time."""

from __future__ import annotations

import time
from typing import Final

import gevent
from loguru import logger

from app.domain.words import counted
from app.edge.build import BuiltEdge
from app.edge.data_plane import DataPlane

REPORT_SECONDS: Final = 10.0
"""Between two lines of the log, which is all that shows the drain once the listeners are closed."""


def drain(edge: BuiltEdge) -> None:
    """Return when no connection is open any more; those still open after the drain time are ended."""
    parts, data_plane = edge.parts, edge.parts.data_plane
    config = parts.config()
    parts.draining.set()
    logger.info("draining: {} open", counted(data_plane.open_count, "connection"))
    gevent.sleep(config.drain_withdraw_secs)
    deadline = time.monotonic() + config.drain_timeout_secs
    _close_listeners(edge)
    _await_end(data_plane, deadline)
    left = data_plane.end_all("drain_timeout")
    if left:
        logger.warning("drain time is over: {} ended", counted(left, "connection"))
        _await_end(data_plane, time.monotonic() + 1.0)


def _close_listeners(edge: BuiltEdge) -> None:
    """Close every listener, so that another edge can start on the same addresses while this one drains.

    The bindings are written before the last ones: whoever has these addresses finds what this edge knew.
    """
    parts = edge.parts
    parts.data_plane.close_listeners()
    gevent.sleep(0)  # the connections accepted last must have entered the table
    if parts.snapshots is not None:
        parts.snapshots.hand_over()
    parts.dns.server.stop()
    for server in (edge.serving.status, parts.admin):
        if server is not None:
            server.close()


def _await_end(data_plane: DataPlane, deadline: float) -> None:
    reported_at = time.monotonic()
    while (left := data_plane.open_count) and (now := time.monotonic()) < deadline:
        if now - reported_at >= REPORT_SECONDS:
            reported_at = now
            logger.info("draining: {} open, {:.0f} s left", counted(left, "connection"), deadline - now)
        gevent.sleep(0.02)
