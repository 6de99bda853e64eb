"""The metrics of the gateway's endpoints and services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

from actors.handler_messages import DescribeEndpoints
from actors.runtime import Address, ask
from app.domain import metric_names as names
from app.domain.handler_table import EndpointView
from app.domain.measures import Labels
from app.domain.services import ServiceView

ASK_TIMEOUT_SECONDS: Final = 5.0

Series = dict[str, dict[Labels, float]]
"""By metric and label values."""


class GatewayView:
    """Gathers the gateway's metrics. `services()` returns the current state of every service."""

    def __init__(self, handlers: Address, services: Callable[[], Iterable[ServiceView]]) -> None:
        self._handlers = handlers
        self._services = services
        self._blocks: Counter[str] = Counter()

    def count_block(self, endpoint_id: str) -> None:
        """Count a time that a handler blocked the event loop."""
        self._blocks[endpoint_id] += 1

    def gather(self) -> tuple[Series, Series]:
        """Return (counters, gauges) of the existing endpoints and services. Raises AskTimeoutError."""
        endpoints = ask(self._handlers, DescribeEndpoints(), timeout_s=ASK_TIMEOUT_SECONDS)
        services = list(self._services())
        self._blocks = Counter({one.endpoint.id: self._blocks[one.endpoint.id] for one in endpoints})
        counters: Series = {
            names.HANDLER_REQUESTS: {
                (one.endpoint.id, outcome): float(count)
                for one in endpoints
                for outcome, count in _requests(one).items()
            },
            names.HANDLER_BLOCKS: {(endpoint_id,): float(count) for endpoint_id, count in self._blocks.items()},
            names.SERVICE_CALLS: {
                (one.spec.name, outcome): float(count) for one in services for outcome, count in _calls(one).items()
            },
        }
        gauges: Series = {
            names.HANDLER_ACTIVE: {(one.endpoint.id,): float(one.active) for one in endpoints},
            names.VERSIONS_DRAINING: {(one.endpoint.id,): float(len(one.draining)) for one in endpoints},
            names.SERVICE_UP: {(one.spec.name,): float(one.counts.is_up) for one in services},
            names.SERVICE_CONNECTIONS: {(one.spec.name,): float(one.counts.connected) for one in services},
            names.SERVICE_IN_USE: {(one.spec.name,): float(one.counts.in_use) for one in services},
            names.SERVICE_WAITING: {(one.spec.name,): float(one.counts.depth) for one in services},
        }
        return counters, gauges


def _requests(endpoint: EndpointView) -> dict[str, int]:
    """Return an endpoint's requests by outcome."""
    return {
        "answered": endpoint.served - endpoint.errors,
        "failed": endpoint.errors,
        "busy": endpoint.refused,
    }


def _calls(service: ServiceView) -> dict[str, int]:
    """Return a service's calls by outcome."""
    counts = service.counts
    return {
        "served": counts.served,
        "error": counts.errors,
        "timeout": counts.timeouts,
        "busy": counts.busy,
        "down": counts.down,
    }
