"""The metrics actor owns the counters and histograms. Their names and label order are in app.domain.metric_names."""

from __future__ import annotations

from actors.messages import (
    BackendConnected,
    ConnectionClosed,
    Count,
    ForgetBackends,
    TakeSnapshot,
    TrafficMoved,
)
from actors.runtime import GeventActor
from app.domain import metric_names as names
from app.domain.measures import Measures


class MetricsActor(GeventActor):
    """The measures are handed in, because they outlive a crash of the actor."""

    def __init__(self, measures: Measures) -> None:
        super().__init__()
        self._measures = measures
        self._backends: frozenset[str] | None = None
        """Those that have not vanished; None until told."""

    def handle(self, message: object) -> object:
        measures = self._measures
        match message:
            case ConnectionClosed(state):
                measures.count(names.CONNECTIONS_ENDED, (state,))
            case BackendConnected(backend_id, affinity, seconds):
                measures.count(names.LEASES, (affinity,))
                if self._exists(backend_id):
                    measures.count(names.BACKEND_CONNECTIONS, (backend_id,))
                    measures.observe(names.BACKEND_RTT, (backend_id,), seconds)
            case Count(metric, labels):
                if metric not in names.BY_BACKEND or self._exists(labels[0]):
                    measures.count(metric, labels)
            case TrafficMoved(accepted, bytes_sent, bytes_received):
                measures.count(names.CONNECTIONS, (), accepted)
                measures.count(names.BYTES_SENT, (), bytes_sent)
                measures.count(names.BYTES_RECEIVED, (), bytes_received)
            case ForgetBackends(remaining):
                self._backends = remaining
                for metric in names.BY_BACKEND:
                    measures.keep_only(metric, remaining)
            case TakeSnapshot():
                return measures.snapshot()
            case _:
                return super().handle(message)
        return None

    def _exists(self, backend_id: str) -> bool:
        """Say whether to count for a backend: a dial that ends after it vanished would bring its series back."""
        return self._backends is None or backend_id in self._backends
