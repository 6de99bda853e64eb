"""The metrics actor owns the counters and histograms. Their names and label order are in app.domain.metric_names."""

from __future__ import annotations

from actors.messages import (
    BackendConnected,
    ConnectionClosed,
    Count,
    Forget,
    ReadCounters,
    TakeSnapshot,
    TrafficMoved,
)
from actors.runtime import GeventActor
from app.domain import metric_names as names
from app.domain.measures import Labels, Measures


class MetricsActor(GeventActor):
    """Translates messages. The measures are an argument, because they outlive a crash of the actor."""

    def __init__(self, measures: Measures) -> None:
        super().__init__()
        self._measures = measures
        self._backends: frozenset[tuple[str, str]] | None = None
        self._frontends: frozenset[str] | None = None
        """The present ones; None before the first Forget."""

    def handle(self, message: object) -> object:
        measures = self._measures
        match message:
            case ConnectionClosed(state):
                measures.count(names.CONNECTIONS_ENDED, (state,))
            case BackendConnected(pool, backend_id, affinity, seconds):
                measures.count(names.LEASES, (affinity,))
                backend = (pool, backend_id)
                if self._exists(backend):
                    measures.count(names.BACKEND_CONNECTIONS, backend)
                    measures.observe(names.BACKEND_RTT, backend, seconds)
            case Count(metric, labels):
                if metric not in names.BY_BACKEND or self._exists(labels[:2]):
                    measures.count(metric, labels)
            case TrafficMoved():
                self._moved(message)
            case Forget(backends, frontends):
                self._backends, self._frontends = backends, frontends
                for metric in names.BY_BACKEND:
                    measures.keep_only(metric, slice(2), backends)
                for metric, position in names.BY_FRONTEND.items():
                    measures.keep_only(metric, position, frontends)
            case ReadCounters(metrics):
                return measures.read(metrics)
            case TakeSnapshot():
                return measures.snapshot()
            case _:
                return super().handle(message)
        return None

    def _moved(self, message: TrafficMoved) -> None:
        measures = self._measures
        for frontend, accepted in message.accepted.items():
            measures.count(names.CONNECTIONS, (frontend,), accepted)
        for backend, (sent, received) in message.bytes_moved.items():
            measures.count(names.BYTES_SENT, (), sent)
            measures.count(names.BYTES_RECEIVED, (), received)
            if backend[1] and self._exists(backend):  # responses of the edge itself have no backend
                measures.count(names.BACKEND_BYTES_SENT, backend, sent)
                measures.count(names.BACKEND_BYTES_RECEIVED, backend, received)
        for labels, observed in message.requests.items():
            has_frontend = self._frontends is None or labels[names.BY_FRONTEND[names.REQUESTS]] in self._frontends
            if has_frontend and self._exists(labels[:2]):
                measures.count(names.REQUESTS, labels, observed.count)
                measures.add(names.REQUEST_SECONDS, labels[:-1], observed)

    def _exists(self, backend: Labels) -> bool:
        """Return whether to count for a backend: a dial that ends after its removal must not restore its series."""
        return self._backends is None or backend in self._backends
