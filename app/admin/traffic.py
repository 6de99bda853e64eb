"""Traffic of frontends and backends since the start, from the counters of the metrics actor."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass

from actors.messages import ReadCounters
from actors.runtime import Address, ask
from app.domain import metric_names as names
from app.proxy_service import ASK_TIMEOUT_SECONDS


@dataclass(slots=True)
class BackendTraffic:
    """The counts of one backend."""

    connections: int = 0
    requests: int = 0
    errors: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0


_FIELDS = {
    names.BACKEND_CONNECTIONS: "connections",
    names.REQUESTS: "requests",
    names.BACKEND_ERRORS: "errors",
    names.BACKEND_BYTES_SENT: "bytes_sent",
    names.BACKEND_BYTES_RECEIVED: "bytes_received",
}


def traffic_of_backends(metrics: Address, pool: str) -> defaultdict[str, BackendTraffic]:
    """Return the counts of a pool's backends by id, zeros by default. Raises AskTimeoutError."""
    found: defaultdict[str, BackendTraffic] = defaultdict(BackendTraffic)
    counters = ask(metrics, ReadCounters(tuple(_FIELDS)), timeout_s=ASK_TIMEOUT_SECONDS)
    for metric, field in _FIELDS.items():
        for (of_pool, backend_id, *_), count in counters[metric].items():
            if of_pool == pool:
                traffic = found[backend_id]
                setattr(traffic, field, getattr(traffic, field) + int(count))
    return found


@dataclass(frozen=True, slots=True)
class FrontTraffic:
    """Connections and HTTP requests by frontend, and the bytes sent to the clients of all frontends."""

    connections: Counter[str]
    requests: Counter[str]
    bytes_sent: int


def traffic_of_frontends(metrics: Address) -> FrontTraffic:
    """Return the traffic of the frontends. Raises AskTimeoutError."""
    wanted = (names.CONNECTIONS, names.REQUESTS, names.BYTES_SENT)
    counters = ask(metrics, ReadCounters(wanted), timeout_s=ASK_TIMEOUT_SECONDS)
    connections, requests = Counter[str](), Counter[str]()
    for (frontend,), count in counters[names.CONNECTIONS].items():
        connections[frontend] += int(count)
    place = names.BY_FRONTEND[names.REQUESTS]
    for labels, count in counters[names.REQUESTS].items():
        requests[labels[place]] += int(count)
    return FrontTraffic(connections, requests, int(counters[names.BYTES_SENT].get((), 0)))
