"""The access log: one flat JSON object for each connection or HTTP request, and a summary of refusals in a flood."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import msgspec
from loguru import logger

from app.domain.outcome import State
from app.domain.words import counted
from app.inbound.connections import Connection
from app.wire.http1 import RequestHead

REFUSALS_LOGGED_A_SECOND: Final = 10
"""Access lines for connections without a backend; more in the same second are counted and logged as one event.

Twice: clients that leave, such as the probes of a balancer, use up no line of a refusal by the edge.
"""
_BY_CLIENT: Final = "Ct"
"""First letters of the states in which the client left, or sent no request: no reason to warn."""


LOGGED_BYTES: Final = 512
"""Of a header's value."""


class AccessLine(msgspec.Struct, omit_defaults=False):
    """The fields of an access line, in order. Times are in milliseconds; a stage that was not reached is null."""

    ts: str
    """When the connection ended, RFC 3339, UTC."""
    event: str
    frontend: str
    listener: str
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
    request_id: str | msgspec.UnsetType = msgspec.UNSET
    """Of the edge's HTTP response to a connection that it did not admit; left out otherwise."""


class RequestLine(msgspec.Struct, omit_defaults=False):
    """The fields of an HTTP request's line, in order. Fields shared with AccessLine have the same meaning."""

    ts: str
    event: str
    frontend: str
    listener: str
    client: str
    country: str | None
    region: str | None
    method: str | None
    host: str | None
    target: str | None
    status: int | None
    """Status of the response sent to the client, by the backend, a handler or the edge; null if none was sent."""
    backend: str | None
    tier: int | None
    affinity: str | None
    attempts: int
    lease_ms: float
    connect_ms: float
    duration_ms: float
    """From the first byte of the request to the last byte of the response."""
    bytes_up: int
    bytes_down: int
    termination: str
    reason: str | None
    request_id: str | None
    endpoint: str | None
    """The endpoint whose handler responded; null if a backend or the edge did."""
    headers: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """The request's headers in `log_headers`; left out without them."""


class ServedRequest(NamedTuple):
    """The result of an HTTP request, beyond what its Connection holds. `head` is None if it could not be parsed."""

    head: RequestHead | None
    request_id: bytes
    status: int | None
    bytes_up: int
    bytes_down: int
    seconds: float
    state: State
    reason: str | None
    endpoint: str | None = None


def _logged(head: RequestHead, names: Iterable[str]) -> dict[str, str]:
    """Return the values of the headers with these names, several of one joined, in their spelling here."""
    spelt = {name.lower().encode(): name for name in names}
    values: dict[str, str] = {}
    for name, value in head.headers:
        key = spelt.get(name.lower())
        if key is not None:
            text = value[:LOGGED_BYTES].decode("latin-1")
            values[key] = f"{values[key]}, {text}"[:LOGGED_BYTES] if key in values else text
    return values


class AccessLog:
    """Writes access lines through `write` and limits those of refusals. `stamp` formats Unix seconds."""

    def __init__(self, write: Callable[[msgspec.Struct], None], stamp: Callable[[float], str]) -> None:
        self._write = write
        self._stamp = stamp
        self._second = 0
        self._refused = _Flood("WARNING", "connection", "got no backend")
        self._left = _Flood("INFO", "client", "left before getting a backend")

    def connection_ended(
        self, connection: Connection, state: State, reason: str | None, now: float, request_id: str | None = None
    ) -> None:
        """Write the line for a connection; `now` is in monotonic seconds. `request_id`: of the edge's HTTP response."""
        lease, client, progress = connection.last_lease, connection.client, connection.progress
        if lease is None and self._is_flood(state, reason, now):
            return
        geo = client.geo if client is not None else None
        self._write(
            AccessLine(
                ts=self._stamp(time.time()),
                event="connection",
                frontend=connection.frontend.config.name,
                listener=connection.listener,
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
                bytes_up=progress.bytes_up if progress is not None else 0,
                bytes_down=progress.bytes_down if progress is not None else 0,
                termination=state,
                reason=reason,
                request_id=request_id or msgspec.UNSET,
            )
        )

    def request_ended(self, connection: Connection, request: ServedRequest, now: float) -> None:
        """Write the line for an HTTP request; `now` is in monotonic seconds."""
        lease, client, head = connection.last_lease, connection.client, request.head
        if lease is None and request.endpoint is None and self._is_flood(request.state, request.reason, now):
            return
        geo = client.geo if client is not None else None
        names = connection.frontend.config.http.log_headers
        self._write(
            RequestLine(
                self._stamp(time.time()),
                "request",
                connection.frontend.config.name,
                connection.listener,
                client.address if client is not None else connection.peer[0],
                geo.country if geo is not None else None,
                geo.region if geo is not None else None,
                head.method.decode() if head is not None else None,
                head.host.decode() if head is not None else None,
                head.target.decode() if head is not None else None,
                request.status,
                lease.backend.id if lease is not None else None,
                lease.tier if lease is not None else None,
                lease.affinity if lease is not None else None,
                connection.attempts,
                round(connection.lease_seconds * 1000, 3),
                round(connection.connect_seconds * 1000, 3) if connection.connect_seconds else 0.0,
                round(request.seconds * 1000, 3),
                request.bytes_up,
                request.bytes_down,
                request.state,
                request.reason,
                request.request_id.decode() if request.request_id else None,
                request.endpoint,
                _logged(head, names) if head is not None and names else msgspec.UNSET,
            )
        )

    def _is_flood(self, state: State, reason: str | None, now: float) -> bool:
        if int(now) != self._second:
            self._second = int(now)
            self.sum_up()
            self._refused.lines = self._left.lines = 0
        return (self._left if state[0] in _BY_CLIENT else self._refused).is_flood(reason or state)

    def sum_up(self) -> None:
        """Log how many connections got no line of their own, if any."""
        self._refused.sum_up()
        self._left.sum_up()


class _Flood:
    """The connections of one second that end without a backend, for one cause.

    The summary says, at `level`, that so many more of the `noun` did what `text` says.
    """

    def __init__(self, level: str, noun: str, text: str) -> None:
        self._level = level
        self._noun = noun
        self._text = text
        self.lines = 0
        """Written in this second."""
        self._unlogged: Counter[str] = Counter()

    def is_flood(self, reason: str) -> bool:
        """Count a connection; return whether it gets no line."""
        self.lines += 1
        if self.lines <= REFUSALS_LOGGED_A_SECOND:
            return False
        self._unlogged[reason] += 1
        return True

    def sum_up(self) -> None:
        if self._unlogged:
            counts = dict(self._unlogged)
            self._unlogged.clear()
            fields = {f"refused_{reason}": count for reason, count in counts.items()}
            logger.bind(**fields).log(
                self._level, "{} {}", counted(sum(counts.values()), f"more {self._noun}"), self._text
            )
