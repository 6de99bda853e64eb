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

    def handle(self, message: object) -> object:
        measures = self._measures
        match message:
            case ConnectionClosed(state):
                measures.count(names.CONNECTIONS_ENDED, (state,))
            case BackendConnected(backend_id, affinity, seconds):
                measures.count(names.LEASES, (affinity,))
                measures.count(names.BACKEND_CONNECTIONS, (backend_id,))
                measures.observe(names.BACKEND_RTT, (backend_id,), seconds)
            case Count(metric, labels, amount):
                measures.count(metric, labels, amount)
            case TrafficMoved(accepted, bytes_sent, bytes_received):
                measures.count(names.CONNECTIONS, (), accepted)
                measures.count(names.BYTES_SENT, (), bytes_sent)
                measures.count(names.BYTES_RECEIVED, (), bytes_received)
            case ForgetBackends(remaining):
                for metric in names.BY_BACKEND:
                    measures.keep_only(metric, remaining)
            case TakeSnapshot():
                return measures.snapshot()
            case _:
                return super().handle(message)
        return None
