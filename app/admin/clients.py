"""Where clients come from and what serves them, from the open connections and the recent access lines in memory."""

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
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.inbound.connections import SWEPT_AT_ONCE, Connections
from app.outbound.json_log import rfc3339
from app.outbound.log_tail import MAX_LINES, LogTail

MOST_ORIGINS: Final = 200
"""Maximum number of origins in a response."""


class ClientsQuery(Model):
    """Selects a period."""

    seconds: int = Field(default=60, ge=1, le=3600, description="Length of the recent period")


class ClientOrigin(Model):
    """Clients of one country that are served by one backend or endpoint."""

    country: str | None = Field(description="null: unknown")
    region: str | None
    frontend: str
    backend: str | None
    endpoint: str | None = Field(description="The endpoint whose handler responded; null: a backend")
    open: int = Field(description="Connections open now")
    recent: int = Field(description="Connections and HTTP requests that ended in the recent period")


class ClientOrigins(Model):
    """Where clients come from, the busiest origins first."""

    items: list[ClientOrigin]
    covers_seconds: float = Field(
        description="The period that `recent` covers; shorter than requested if the log in memory is"
    )
    left_out: int = Field(description="Origins beyond the first 200")


class _Origin(NamedTuple):
    """The key by which clients are counted."""

    country: str | None
    region: str | None
    frontend: str
    backend: str | None
    endpoint: str | None = None


class _Line(msgspec.Struct):
    """The needed fields of an access line; see app.inbound.access_log."""

    event: str
    ts: str
    frontend: str
    country: str | None
    region: str | None
    backend: str | None
    endpoint: str | None = None


_EVENTS: Final = (b'"event":"connection"', b'"event":"request"')
_decode = msgspec.json.Decoder(_Line).decode


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""

    @api.get("/api/clients", Scope.READ, tag="connections", response=ClientOrigins)
    def list_client_origins(query: ClientsQuery) -> ClientOrigins:
        """Count clients by country and by the backend or endpoint that serves them."""
        now = time.time()
        opened = _open_now(edge.data_plane.connections)
        recent = Counter(_ended_since(edge.log.tail, rfc3339(now - query.seconds)))
        origins = sorted(opened.keys() | recent.keys(), key=lambda one: (-opened[one] - recent[one], str(one)))
        described = [
            ClientOrigin(**one._asdict(), open=opened[one], recent=recent[one]) for one in origins[:MOST_ORIGINS]
        ]
        return ClientOrigins(
            items=described,
            covers_seconds=min(query.seconds, _kept_seconds(edge.log.tail, now)),
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
    """Yield the origins of the access lines in memory since `moment`, a time in the format of their `ts`."""
    for _, text in tail.since(tail.first, MAX_LINES):
        if not any(event in text for event in _EVENTS):
            continue
        try:
            line = _decode(text)
        except msgspec.ValidationError:  # another event with a field of the same name
            continue
        if line.ts >= moment and (line.backend is not None or line.endpoint is not None):
            yield _Origin(line.country, line.region, line.frontend, line.backend, line.endpoint)


def _kept_seconds(tail: LogTail, now: float) -> float:
    """Return how far back the lines in memory go; infinity if none was dropped yet."""
    if tail.first > 0:
        for _, text in tail.since(tail.first, MAX_LINES):
            stamp = msgspec.json.decode(text).get("ts")  # a line too long for the memory has none
            if stamp is not None:
                return round(max(0.0, now - datetime.fromisoformat(stamp).timestamp()), 3)
    return inf
