"""Drain: withdraw from clients, close the listeners, and let the open connections finish within their time."""

from __future__ import annotations

import time

import gevent
from loguru import logger

from app.edge.parts import EdgeParts
from app.inbound.connections import Connections


def drain(parts: EdgeParts) -> None:
    """Return when no connection is open any more; those still open after the drain time are ended."""
    config, connections = parts.config(), parts.connections
    parts.draining.set()
    logger.info("draining: {} connections open", len(connections))
    gevent.sleep(config.drain_withdraw_secs)
    parts.listeners.close()
    parts.http.end_idle()
    gevent.sleep(0)  # the connections accepted last must have entered the table
    _await_end(connections, config.drain_timeout_secs)
    left = connections.end_all("drain_timeout")
    if left:
        logger.warning("drain time is over: {} connections ended", left)
        _await_end(connections, 1.0)


def _await_end(connections: Connections, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while len(connections) and time.monotonic() < deadline:
        gevent.sleep(0.02)
