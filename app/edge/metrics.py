"""Metrics: everything an edge counts, gathered from its actors and from the parts of the moment."""

from __future__ import annotations

from actors.messages import BindingCounts, CountBindings, CountCandidates, TakeSnapshot
from actors.runtime import Address, ask
from app.domain import metric_names as names
from app.domain.measures import Labels, Snapshot
from app.edge.parts import EdgeParts
from app.edge.pool_members import members_of
from app.outbound.prometheus_metrics import CONTENT_TYPE, Gauges, PrometheusText
from app.outbound.replica_file import ReplicaStatus
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS

Series = dict[str, dict[Labels, float]]
"""By metric and label values."""


class MetricsText:
    """The metrics of an edge as text for Prometheus."""

    def __init__(self, parts: EdgeParts) -> None:
        self._parts = parts
        self._text = PrometheusText()
        self._thread = WorkerThread()

    def render(self) -> tuple[str, bytes]:
        """Return content type and text, formatted off the event loop. Raises what `gather` raises."""
        return CONTENT_TYPE, self._thread.run(self._text.render, *gather(self._parts))


def gather(parts: EdgeParts) -> tuple[Snapshot, Gauges]:
    """Return what the actors counted and the gauges of the moment. Raises what asking an actor raises."""
    parts.data_plane.report_traffic()
    bindings = ask(parts.actors.bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
    gateway_counters, gateway_gauges = parts.gateway.view.gather()
    # The inboxes are looked at last: by then each actor asked has handled what was told before.
    gauges = _backend_gauges(parts.actors.registry) | gateway_gauges | _gauges(parts, bindings)
    counted = ask(parts.actors.metrics, TakeSnapshot(), timeout_s=ASK_TIMEOUT_SECONDS)
    return Snapshot({**counted.counters, **gateway_counters, **_counters(parts, bindings)}, counted.histograms), gauges


def _counters(parts: EdgeParts, bindings: BindingCounts) -> Series:
    return {
        names.BINDINGS_EVICTED: {(): float(bindings.evictions)},
        names.ACTOR_RESTARTS: {(one.address.name,): float(one.restart_count) for one in parts.supervisor.children},
        names.LOG_LINES_DROPPED: {(): float(parts.log.lines_dropped)},
        names.DNS_RESPONSES: {(rcode,): float(count) for rcode, count in parts.dns.server.answers.items()},
    }


def _gauges(parts: EdgeParts, bindings: BindingCounts) -> Series:
    routing, open_at = parts.watcher.status, dict.fromkeys(parts.data_plane.addresses, 0) | parts.data_plane.open_at
    gauges: Series = {
        names.CONNECTIONS_ACTIVE: {(name,): float(count) for name, count in open_at.items()},
        names.BINDINGS: {(): float(bindings.bindings)},
        names.ROWS_REFUSED: {(): float(routing.rows_refused)},
        names.ROUTING_STALE: {(): float(routing.error is not None)},
        names.MAILBOX_DEPTH: {(one.address.name,): float(one.address.depth) for one in parts.supervisor.children},
        names.HOST_NAMES: {(state,): float(count) for state, count in parts.pools.names.counts().items()},
        names.LOOP_PAUSE: {(): parts.pauses.longest()},
    }
    if parts.file is not None:
        gauges[names.CONFIG_RELOAD_SUCCESS] = {(): float(parts.file.is_current)}
    if parts.geo is not None:
        gauges[names.GEO_BUILT] = {(): float(parts.geo.built_at)}
    if parts.replica is not None and parts.replica.current is not None:
        gauges |= _replica_gauges(parts.replica.current)
    return gauges


def _backend_gauges(registry: Address) -> Series:
    pools = ask(registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
    members = [((pool, one.backend.id), one) for pool in pools for one in members_of(registry, pool)]
    return {
        names.BACKEND_ACTIVE: {labels: float(one.connections) for labels, one in members},
        names.BACKEND_AVAILABLE: {labels: float(one.is_available) for labels, one in members},
    }


def _replica_gauges(status: ReplicaStatus) -> Series:
    age = status.age_seconds()
    if age is None:
        return {}
    counts = {"good": status.records, "suspect": status.suspect_count, "bad": status.bad_count}
    records: dict[Labels, float] = {(state,): float(count) for state, count in counts.items()}
    return {names.REPLICA_AGE: {(): age}, names.REPLICA_RECORDS: records}
