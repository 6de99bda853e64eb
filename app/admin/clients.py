"""Where clients come from and who serves them: connections open now, and what ended of late by the log in memory."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from math import inf
from typing import Final, NamedTuple

import gevent
import msgspec
from pydantic import Field

from app.admin.api import Api, Model
from app.admin.edge import RunningEdge
from app.domain.tokens import Scope
from app.inbound.connections import SWEPT_AT_ONCE, Connections
from app.outbound.json_log import rfc3339
from app.outbound.log_tail import MAX_LINES, LogTail

MOST_ORIGINS: Final = 200
"""Described, the busiest first."""


class ClientsQuery(Model):
    """Since when."""

    seconds: int = Field(default=60, ge=1, le=3600, description="What ended within so many seconds is recent")


class ClientOrigin(Model):
    """Clients of one country that were served by one backend or endpoint."""

    country: str | None = Field(description="null: not known")
    region: str | None
    frontend: str
    backend: str | None
    endpoint: str | None = Field(description="Whose handler answered, instead of a backend")
    open: int = Field(description="Connections open now")
    recent: int = Field(description="Connections and HTTP requests that ended of late")


class ClientOrigins(Model):
    """Where clients come from, the busiest origins first."""

    items: list[ClientOrigin]
    covers_seconds: float = Field(description="What `recent` covers; less than asked for where the log is busier")
    left_out: int = Field(description="Origins beyond the first 200")


class _Origin(NamedTuple):
    """What makes clients one."""

    country: str | None
    region: str | None
    frontend: str
    backend: str | None
    endpoint: str | None = None


class _Line(msgspec.Struct):
    """What a line of the log says of one that was served; see app.inbound.access_log."""

    event: str
    ts: str
    frontend: str
    country: str | None
    region: str | None
    backend: str | None
    endpoint: str | None = None


_EVENTS: Final = (b'"event":"connection"', b'"event":"request"')
_decode = msgspec.json.Decoder(_Line).decode


def add_routes(api: Api, edge: RunningEdge) -> None:
    """Add the routes of this subject."""

    @api.get("/api/clients", Scope.READ, tag="connections", response=ClientOrigins)
    def list_client_origins(query: ClientsQuery) -> ClientOrigins:
        """Say from which countries clients come and who serves them."""
        now = time.time()
        opened = _open_now(edge.connections)
        recent = Counter(_ended_since(edge.log_tail, rfc3339(now - query.seconds)))
        origins = sorted(opened.keys() | recent.keys(), key=lambda one: (-opened[one] - recent[one], str(one)))
        described = [
            ClientOrigin(**one._asdict(), open=opened[one], recent=recent[one]) for one in origins[:MOST_ORIGINS]
        ]
        return ClientOrigins(
            items=described,
            covers_seconds=min(query.seconds, _kept_seconds(edge.log_tail, now)),
            left_out=len(origins) - len(described),
        )


def _open_now(connections: Connections) -> Counter[_Origin]:
    counts: Counter[_Origin] = Counter()
    for number, one in enumerate(connections, start=1):
        if number % SWEPT_AT_ONCE == 0:
            gevent.sleep(0)
        lease, geo = one.lease or one.last_lease, one.client.geo if one.client is not None else None
        country, region = (geo.country, geo.region) if geo is not None else (None, None)
        counts[_Origin(country, region, one.frontend.config.name, lease.backend.id if lease is not None else None)] += 1
    return counts


def _ended_since(tail: LogTail, moment: str) -> Iterator[_Origin]:
    """Go through the access lines in memory that are not older than a moment, which is written as theirs are."""
    for _, text in tail.since(tail.first, MAX_LINES):
        if not any(event in text for event in _EVENTS):
            continue
        try:
            line = _decode(text)
        except msgspec.ValidationError:  # another event that binds such a field
            continue
        if line.ts >= moment and (line.backend is not None or line.endpoint is not None):
            yield _Origin(line.country, line.region, line.frontend, line.backend, line.endpoint)


def _kept_seconds(tail: LogTail, now: float) -> float:
    """Return how far back the lines in memory go; for ever, while none was dropped."""
    if tail.first > 0:
        for _, text in tail.since(tail.first, MAX_LINES):
            stamp = msgspec.json.decode(text).get("ts")  # the note for a line that was too long has none
            if stamp is not None:
                return round(max(0.0, now - datetime.fromisoformat(stamp).timestamp()), 3)
    return inf
