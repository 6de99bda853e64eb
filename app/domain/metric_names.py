"""Every metric of the edge: name, help text and labels. The exporter and the documentation use this table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

CONNECTIONS: Final = "edgeproxy_connections"
CONNECTIONS_ACTIVE: Final = "edgeproxy_connections_active"
CONNECTIONS_ENDED: Final = "edgeproxy_connections_ended"
CONNECTIONS_REFUSED: Final = "edgeproxy_connections_refused"
BYTES_SENT: Final = "edgeproxy_bytes_sent"
BYTES_RECEIVED: Final = "edgeproxy_bytes_received"
BACKEND_CONNECTIONS: Final = "edgeproxy_backend_connections"
BACKEND_ACTIVE: Final = "edgeproxy_backend_connections_active"
BACKEND_ERRORS: Final = "edgeproxy_backend_errors"
BACKEND_RTT: Final = "edgeproxy_backend_rtt_seconds"
BACKEND_AVAILABLE: Final = "edgeproxy_backend_available"
BACKEND_BYTES_SENT: Final = "edgeproxy_backend_bytes_sent"
BACKEND_BYTES_RECEIVED: Final = "edgeproxy_backend_bytes_received"
HEALTH_CHANGES: Final = "edgeproxy_backend_health_changes"
PROBES: Final = "edgeproxy_probes"
FAIL_OPENS: Final = "edgeproxy_pool_fail_opens"
REQUESTS: Final = "edgeproxy_requests"
REQUEST_SECONDS: Final = "edgeproxy_request_duration_seconds"
CONFIG_RELOADS: Final = "edgeproxy_config_reloads"
CONFIG_RELOAD_SUCCESS: Final = "edgeproxy_config_last_reload_success"
LEASES: Final = "edgeproxy_leases"
BINDINGS: Final = "edgeproxy_bindings"
BINDINGS_EVICTED: Final = "edgeproxy_bindings_evicted"
RELOADS: Final = "edgeproxy_routing_reloads"
ROWS_REFUSED: Final = "edgeproxy_routing_rows_refused"
ROUTING_STALE: Final = "edgeproxy_routing_stale"
REPLICA_AGE: Final = "edgeproxy_replica_age_seconds"
REPLICA_RECORDS: Final = "edgeproxy_replica_records"
GEO_RELOADS: Final = "edgeproxy_geo_reloads"
GEO_BUILT: Final = "edgeproxy_geo_database_build_timestamp_seconds"
HANDLER_REQUESTS: Final = "edgeproxy_handler_requests"
HANDLER_ACTIVE: Final = "edgeproxy_handler_requests_active"
HANDLER_BLOCKS: Final = "edgeproxy_handler_loop_blocks"
VERSIONS_DRAINING: Final = "edgeproxy_handler_versions_draining"
DEPLOYMENTS: Final = "edgeproxy_handler_deployments"
SERVICE_CALLS: Final = "edgeproxy_service_calls"
SERVICE_WAITING: Final = "edgeproxy_service_calls_waiting"
SERVICE_CONNECTIONS: Final = "edgeproxy_service_connections"
SERVICE_IN_USE: Final = "edgeproxy_service_connections_in_use"
SERVICE_UP: Final = "edgeproxy_service_up"
ADMIN_REQUESTS: Final = "edgeproxy_admin_requests"
ACCEPT_ERRORS: Final = "edgeproxy_accept_errors"
INTERNAL_ERRORS: Final = "edgeproxy_internal_errors"
ACTOR_RESTARTS: Final = "edgeproxy_actor_restarts"
MAILBOX_DEPTH: Final = "edgeproxy_actor_mailbox_depth"
LOOP_PAUSE: Final = "edgeproxy_loop_pause_max_seconds"
HOST_NAMES: Final = "edgeproxy_host_names"
DNS_RESPONSES: Final = "edgeproxy_dns_responses"
LOG_LINES_DROPPED: Final = "edgeproxy_log_lines_dropped"

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric. `name` lacks the suffix `_total` that a counter has when it is exposed."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...] = ()

    @property
    def exposed_name(self) -> str:
        return f"{self.name}_total" if self.kind == COUNTER else self.name


ALL: Final = (
    Metric(CONNECTIONS, COUNTER, "Client connections accepted.", ("frontend",)),
    Metric(CONNECTIONS_ACTIVE, GAUGE, "Client connections open now.", ("frontend",)),
    Metric(CONNECTIONS_ENDED, COUNTER, "Client connections ended, by termination state.", ("state",)),
    Metric(CONNECTIONS_REFUSED, COUNTER, "Client connections refused before a backend was selected.", ("reason",)),
    Metric(BYTES_SENT, COUNTER, "Bytes sent to clients."),
    Metric(BYTES_RECEIVED, COUNTER, "Bytes received from clients."),
    Metric(REQUESTS, COUNTER, "HTTP requests completed.", ("pool", "backend", "frontend", "code", "method")),
    Metric(REQUEST_SECONDS, HISTOGRAM, "Duration of HTTP requests.", ("pool", "backend", "frontend", "code")),
    Metric(BACKEND_CONNECTIONS, COUNTER, "Connections established to a backend.", ("pool", "backend")),
    Metric(BACKEND_ACTIVE, GAUGE, "Leases on a backend now.", ("pool", "backend")),
    Metric(BACKEND_ERRORS, COUNTER, "Failures of a backend in traffic.", ("pool", "backend", "reason")),
    Metric(BACKEND_RTT, HISTOGRAM, "Time to establish a connection to a backend.", ("pool", "backend")),
    Metric(BACKEND_AVAILABLE, GAUGE, "1 if a backend may serve new or bound clients.", ("pool", "backend")),
    Metric(BACKEND_BYTES_SENT, COUNTER, "Bytes from a backend sent to clients.", ("pool", "backend")),
    Metric(BACKEND_BYTES_RECEIVED, COUNTER, "Bytes from clients sent to a backend.", ("pool", "backend")),
    Metric(HEALTH_CHANGES, COUNTER, "Health changes of a backend, by new state.", ("pool", "backend", "state")),
    Metric(PROBES, COUNTER, "Active probes of a backend, by result.", ("pool", "backend", "result")),
    Metric(FAIL_OPENS, COUNTER, "Times a pool failed open because all its backends were down.", ("pool",)),
    Metric(LEASES, COUNTER, "Lease requests, by affinity, or by reason if none was granted.", ("outcome",)),
    Metric(BINDINGS, GAUGE, "Clients bound to a backend."),
    Metric(BINDINGS_EVICTED, COUNTER, "Bindings dropped because the table was full."),
    Metric(RELOADS, COUNTER, "Loads of the routing database, by result.", ("result",)),
    Metric(ROWS_REFUSED, GAUGE, "Rows refused in the last load of the routing database."),
    Metric(ROUTING_STALE, GAUGE, "1 while the routing database cannot be read and the last good set is used."),
    Metric(REPLICA_AGE, GAUGE, "Time since the replica was last known to match etcd."),
    Metric(REPLICA_RECORDS, GAUGE, "Backend records in the replica, by state: good, suspect or bad.", ("state",)),
    Metric(CONFIG_RELOADS, COUNTER, "Reloads of the configuration file, by result.", ("result",)),
    Metric(CONFIG_RELOAD_SUCCESS, GAUGE, "1 if the present configuration file is in force."),
    Metric(GEO_RELOADS, COUNTER, "Reloads of the country database, by result.", ("result",)),
    Metric(GEO_BUILT, GAUGE, "When the country database was built (Unix time)."),
    Metric(HANDLER_REQUESTS, COUNTER, "Requests of an endpoint: answered, failed or busy.", ("endpoint", "outcome")),
    Metric(HANDLER_ACTIVE, GAUGE, "Requests in the handler of an endpoint now.", ("endpoint",)),
    Metric(HANDLER_BLOCKS, COUNTER, "Times a handler blocked the event loop for 0.1 s or longer.", ("endpoint",)),
    Metric(VERSIONS_DRAINING, GAUGE, "Former versions of a handler with unfinished requests.", ("endpoint",)),
    Metric(DEPLOYMENTS, COUNTER, "Deployments and rollbacks of handlers, by result.", ("result",)),
    Metric(SERVICE_CALLS, COUNTER, "Calls to a service: served, error, timeout, busy or down.", ("service", "outcome")),
    Metric(SERVICE_WAITING, GAUGE, "Calls waiting for a connection to a service.", ("service",)),
    Metric(SERVICE_CONNECTIONS, GAUGE, "Open connections to a service.", ("service",)),
    Metric(SERVICE_IN_USE, GAUGE, "Connections to a service with a call in progress.", ("service",)),
    Metric(SERVICE_UP, GAUGE, "1 if a service can be reached.", ("service",)),
    Metric(ADMIN_REQUESTS, COUNTER, "Requests to the admin API, by status.", ("code",)),
    Metric(ACCEPT_ERRORS, COUNTER, "Errors of accept(), by errno.", ("errno",)),
    Metric(INTERNAL_ERRORS, COUNTER, "Unexpected exceptions, by place.", ("where",)),
    Metric(ACTOR_RESTARTS, COUNTER, "Restarts of an actor by its supervisor.", ("actor",)),
    Metric(MAILBOX_DEPTH, GAUGE, "Messages in an actor's inbox.", ("actor",)),
    Metric(LOOP_PAUSE, GAUGE, "Longest pause of the event loop in the last minute."),
    Metric(HOST_NAMES, GAUGE, "Host names of backends, by state: resolved, stale or unresolved.", ("state",)),
    Metric(DNS_RESPONSES, COUNTER, "Responses of the internal DNS, by response code.", ("rcode",)),
    Metric(LOG_LINES_DROPPED, COUNTER, "Log lines lost because a disk was full or a reader stalled."),
)

BY_BACKEND: Final = frozenset(m.name for m in ALL if m.kind != GAUGE and m.labels[:2] == ("pool", "backend"))
"""Metrics of the actor whose first labels name a backend: its series are dropped when it leaves."""
BY_FRONTEND: Final = {m.name: m.labels.index("frontend") for m in ALL if m.kind != GAUGE and "frontend" in m.labels}
"""Metrics of the actor with a frontend label, and its position: its series are dropped when it is removed."""
