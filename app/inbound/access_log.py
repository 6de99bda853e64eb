"""The access line: one flat JSON object for each connection, and a summary instead of a flood of refusals."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Final

import msgspec
from loguru import logger

from app.domain.outcome import State
from app.inbound.connections import Connection

REFUSALS_LOGGED_A_SECOND: Final = 10
"""Lines of connections that got no backend; more within a second are counted and summed up in one event."""


class AccessLine(msgspec.Struct, omit_defaults=False):
    """The fields of an access line, in order. Times in milliseconds; null where the connection never got that far."""

    ts: str
    """When the connection ended, RFC 3339, UTC."""
    event: str
    frontend: str
    """The address the client connected to."""
    client: str
    country: str | None
    region: str | None
    backend: str | None
    tier: int | None
    affinity: str | None
    attempts: int
    lease_ms: float
    connect_ms: float
    duration_ms: float
    bytes_up: int
    """Client to backend."""
    bytes_down: int
    """Backend to client."""
    termination: str
    reason: str | None


class AccessLog:
    """Writes access lines through `write` and keeps refusals from flooding it. `stamp` formats Unix seconds."""

    def __init__(self, write: Callable[[msgspec.Struct], None], stamp: Callable[[float], str]) -> None:
        self._write = write
        self._stamp = stamp
        self._second = 0
        self._refusals = 0
        self._unlogged: Counter[str] = Counter()

    def connection_ended(self, connection: Connection, state: State, reason: str | None, now: float) -> None:
        """Write the line of a connection; `now` is monotonic seconds."""
        lease, client, relay = connection.last_lease, connection.client, connection.relay
        if lease is None and self._is_flood(reason or state, now):
            return
        geo = client.geo if client is not None else None
        self._write(
            AccessLine(
                ts=self._stamp(time.time()),
                event="connection",
                frontend=connection.listener,
                client=client.address if client is not None else connection.peer[0],
                country=geo.country if geo is not None else None,
                region=geo.region if geo is not None else None,
                backend=lease.backend.id if lease is not None else None,
                tier=lease.tier if lease is not None else None,
                affinity=lease.affinity if lease is not None else None,
                attempts=connection.attempts,
                lease_ms=round(connection.lease_seconds * 1000, 3),
                connect_ms=round(connection.connect_seconds * 1000, 3),
                duration_ms=round((now - connection.accepted_at) * 1000, 3),
                bytes_up=relay.bytes_up if relay is not None else 0,
                bytes_down=relay.bytes_down if relay is not None else 0,
                termination=state,
                reason=reason,
            )
        )

    def _is_flood(self, reason: str, now: float) -> bool:
        if int(now) != self._second:
            self._second, self._refusals = int(now), 0
            self.sum_up()
        self._refusals += 1
        if self._refusals <= REFUSALS_LOGGED_A_SECOND:
            return False
        self._unlogged[reason] += 1
        return True

    def sum_up(self) -> None:
        """Say how many refusals were not logged one by one, if any."""
        if self._unlogged:
            counts = dict(self._unlogged)
            self._unlogged.clear()
            logger.bind(**{f"refused_{reason}": count for reason, count in counts.items()}).warning(
                "{} more connections got no backend", sum(counts.values())
            )
