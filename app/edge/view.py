"""What the edge says of itself: whether to send it clients, and everything it counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from actors.messages import CountBindings, CountCandidates, TakeSnapshot
from actors.runtime import ask
from actors.supervisor import Supervisor
from app.domain import metric_names as names
from app.domain.host_names import NameState
from app.domain.measures import Labels, Snapshot
from app.edge.loop_pauses import LoopPauses
from app.edge.pool_members import members_of
from app.edge.reload import Reloader
from app.gateway.metrics import GatewayView
from app.inbound.connections import Connections
from app.inbound.listeners import Listeners
from app.outbound.backend_watcher import BackendWatcher
from app.outbound.json_log import JsonLog, rfc3339
from app.outbound.maxmind_geo import MaxmindGeo
from app.outbound.prometheus_metrics import CONTENT_TYPE, Gauges, PrometheusText
from app.outbound.replica_file import ReplicaStatus, ReplicaWatch
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS, Actors


class EdgeView:
    """Looks into the parts of a running edge, which sets `is_draining`, `dns_responses` and `host_names`."""

    def __init__(
        self,
        actors: Actors,
        supervisor: Supervisor,
        connections: Connections,
        listeners: Listeners,
        watcher: BackendWatcher,
        geo: MaxmindGeo | None,
        pauses: LoopPauses,
        log: JsonLog,
        reloader: Reloader | None,
        report_traffic: Callable[[], None],
        gateway: GatewayView,
        replica: ReplicaWatch | None = None,
    ) -> None:
        """`replica` is None where the routing database is no replica."""
        self._actors = actors
        self._supervisor = supervisor
        self._connections = connections
        self._listeners = listeners
        self._watcher = watcher
        self._geo = geo
        self._pauses = pauses
        self._log = log
        self._reloader = reloader
        self._report_traffic = report_traffic
        self._gateway = gateway
        self._replica = replica
        self._text = PrometheusText()
        self._thread = WorkerThread()
        self.is_draining = False
        self.dns_responses: Mapping[str, int] = {}
        """How many the internal DNS gave, by response code."""
        self.host_names: Callable[[], Mapping[NameState, int]] = dict
        """How many names of backends are in each state."""

    def readiness(self) -> tuple[bool, dict[str, object]]:
        """Say whether to send us clients: doors open, not draining, and somebody to send them to; with details."""
        pools = ask(self._actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
        candidates = sum(pool.candidates for pool in pools.values())
        listeners = {name: [str(a) for a in addresses] for name, addresses in self._listeners.addresses.items()}
        status = self._watcher.status
        reasons = []
        if self.is_draining:
            reasons.append("draining")
        if not listeners:
            reasons.append("not listening")
        if candidates == 0 and any(pools):  # an edge of handlers alone has but the pool without a name
            reasons.append("no candidate backend")
        details: dict[str, object] = {
            "ready": not reasons,
            "reasons": reasons,
            "listeners": [address for addresses in listeners.values() for address in addresses],
            "frontends": listeners,
            "backends": sum(pool.members for pool in pools.values()),
            "candidates": candidates,
            "pools": {
                name: {"backends": pool.members, "candidates": pool.candidates, "fails_open": pool.fails_open}
                for name, pool in pools.items()
            },
            "configuration_is_current": self._reloader is None or self._reloader.is_current,
            "connections": len(self._connections),
            "routing": {
                "loaded_at": rfc3339(status.loaded_at) if status.loaded_at else None,
                "stale": status.error,
                "rows_refused": status.rows_refused,
            },
            "replica": self._replica_details(),
            "geography": self._geography(),
        }
        return not reasons, details

    def _replica_details(self) -> dict[str, object] | None:
        if self._replica is None:
            return None
        status = self._replica.current or ReplicaStatus(error="the replicator has said nothing yet")
        age = status.age_seconds()
        return {
            "age_seconds": round(age, 3) if age is not None else None,
            "error": status.error,
            "revision": status.revision,
            "endpoint": status.endpoint,
            "records": status.records,
            "is_held": status.is_held,
            "suspects": {"count": status.suspect_count, "ids": status.suspects},
            "bad_records": {"count": status.bad_count, "ids": status.bad},
        }

    def _replica_gauges(self) -> dict[str, dict[Labels, float]]:
        status = self._replica.current if self._replica is not None else None
        age = status.age_seconds() if status is not None else None
        if status is None or age is None:
            return {}
        counts = {"good": status.records, "suspect": status.suspect_count, "bad": status.bad_count}
        records: dict[Labels, float] = {(state,): float(count) for state, count in counts.items()}
        return {names.REPLICA_AGE: {(): age}, names.REPLICA_RECORDS: records}

    def _geography(self) -> dict[str, object] | None:
        if self._geo is None:
            return None
        built = self._geo.built_at
        return {
            "type": self._geo.database_type,
            "built_at": rfc3339(built),
            "age_days": int((time.time() - built) // 86_400),
        }

    def metrics(self) -> tuple[str, bytes]:
        """Return content type and text of everything counted, formatted off the event loop."""
        return CONTENT_TYPE, self._thread.run(self._text.render, *self.gather())

    def gather(self) -> tuple[Snapshot, Gauges]:
        """Collect what the actors counted and the gauges of the moment."""
        self._report_traffic()
        pools = ask(self._actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
        members = [((pool, m.backend.id), m) for pool in pools for m in members_of(self._actors.registry, pool)]
        bindings = ask(self._actors.bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
        children = self._supervisor.children
        gateway_counters, gateway_gauges = self._gateway.gather()
        gauges: dict[str, dict[Labels, float]] = {
            names.CONNECTIONS_ACTIVE: {
                (name,): float(self._connections.open_at[name])
                for name in {*self._listeners.addresses, *self._connections.open_at}
            },
            names.BACKEND_ACTIVE: {labels: float(m.connections) for labels, m in members},
            names.BACKEND_AVAILABLE: {labels: float(m.is_available) for labels, m in members},
            names.BINDINGS: {(): float(bindings.bindings)},
            names.ROWS_REFUSED: {(): float(self._watcher.status.rows_refused)},
            names.ROUTING_STALE: {(): float(self._watcher.status.error is not None)},
            names.MAILBOX_DEPTH: {(child.address.name,): float(child.address.depth) for child in children},
            names.HOST_NAMES: {(state,): float(count) for state, count in self.host_names().items()},
            names.LOOP_PAUSE: {(): self._pauses.longest()},
            **gateway_gauges,
        }
        if self._reloader is not None:
            gauges[names.CONFIG_RELOAD_SUCCESS] = {(): float(self._reloader.is_current)}
        gauges |= self._replica_gauges()
        if self._geo is not None:
            gauges[names.GEO_BUILT] = {(): float(self._geo.built_at)}
        snapshot = ask(self._actors.metrics, TakeSnapshot(), timeout_s=ASK_TIMEOUT_SECONDS)
        counters = {**snapshot.counters, **gateway_counters}
        counters[names.BINDINGS_EVICTED] = {(): float(bindings.evictions)}
        counters[names.ACTOR_RESTARTS] = {(child.address.name,): float(child.restart_count) for child in children}
        counters[names.LOG_LINES_DROPPED] = {(): float(self._log.lines_dropped)}
        counters[names.DNS_RESPONSES] = {(rcode,): float(count) for rcode, count in self.dns_responses.items()}
        return Snapshot(counters, snapshot.histograms), gauges
