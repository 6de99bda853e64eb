"""Every metric of the edge: its name, its help text, its labels. The exporter and the documentation use this table."""

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
    """`name` is without the `_total` that a counter gets when it is exposed."""

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
    Metric(CONNECTIONS_REFUSED, COUNTER, "Client connections refused before an election.", ("reason",)),
    Metric(BYTES_SENT, COUNTER, "Bytes sent to clients."),
    Metric(BYTES_RECEIVED, COUNTER, "Bytes received from clients."),
    Metric(REQUESTS, COUNTER, "HTTP requests answered.", ("pool", "backend", "frontend", "code", "method")),
    Metric(REQUEST_SECONDS, HISTOGRAM, "Time to answer an HTTP request.", ("pool", "backend", "frontend", "code")),
    Metric(BACKEND_CONNECTIONS, COUNTER, "Connections established to a backend.", ("pool", "backend")),
    Metric(BACKEND_ACTIVE, GAUGE, "Leases held on a backend now.", ("pool", "backend")),
    Metric(BACKEND_ERRORS, COUNTER, "Failures of a backend in traffic.", ("pool", "backend", "reason")),
    Metric(BACKEND_RTT, HISTOGRAM, "Time to establish a connection to a backend.", ("pool", "backend")),
    Metric(BACKEND_AVAILABLE, GAUGE, "1 when a backend may be elected or keep its clients.", ("pool", "backend")),
    Metric(BACKEND_BYTES_SENT, COUNTER, "Bytes of a backend sent to clients.", ("pool", "backend")),
    Metric(BACKEND_BYTES_RECEIVED, COUNTER, "Bytes of clients sent to a backend.", ("pool", "backend")),
    Metric(HEALTH_CHANGES, COUNTER, "Changes of a backend's health, by the new state.", ("pool", "backend", "state")),
    Metric(PROBES, COUNTER, "Active probes of a backend, by result.", ("pool", "backend", "result")),
    Metric(FAIL_OPENS, COUNTER, "How often a pool began to serve though all its backends were down.", ("pool",)),
    Metric(LEASES, COUNTER, "Lease requests, by what the client's binding did or why nobody was leased.", ("outcome",)),
    Metric(BINDINGS, GAUGE, "Clients bound to a backend."),
    Metric(BINDINGS_EVICTED, COUNTER, "Bindings dropped because the table was full."),
    Metric(RELOADS, COUNTER, "Loads of the routing database, by result.", ("result",)),
    Metric(ROWS_REFUSED, GAUGE, "Rows refused in the routing database as loaded last."),
    Metric(ROUTING_STALE, GAUGE, "1 while the routing database cannot be read and the last good set serves."),
    Metric(REPLICA_AGE, GAUGE, "Since the routing database was last known to be as etcd has the backends."),
    Metric(REPLICA_RECORDS, GAUGE, "Records of backends in the replica, by state: good, suspect, bad.", ("state",)),
    Metric(CONFIG_RELOADS, COUNTER, "Reloads of the configuration file, by result.", ("result",)),
    Metric(CONFIG_RELOAD_SUCCESS, GAUGE, "1 while the configuration file as it is now is the one that serves."),
    Metric(GEO_RELOADS, COUNTER, "Loads of a replaced country database, by result.", ("result",)),
    Metric(GEO_BUILT, GAUGE, "When the country database was built (Unix time)."),
    Metric(HANDLER_REQUESTS, COUNTER, "Requests of an endpoint: answered, failed or busy.", ("endpoint", "outcome")),
    Metric(HANDLER_ACTIVE, GAUGE, "Requests that a handler of an endpoint has now.", ("endpoint",)),
    Metric(HANDLER_BLOCKS, COUNTER, "How often a handler held the event loop for 0.1 s or longer.", ("endpoint",)),
    Metric(VERSIONS_DRAINING, GAUGE, "Versions of a handler that end their last requests.", ("endpoint",)),
    Metric(DEPLOYMENTS, COUNTER, "Deployments and rollbacks of handlers, by result.", ("result",)),
    Metric(SERVICE_CALLS, COUNTER, "Calls of a service: served, error, timeout, busy or down.", ("service", "outcome")),
    Metric(SERVICE_WAITING, GAUGE, "Calls that wait for a connection of a service.", ("service",)),
    Metric(SERVICE_CONNECTIONS, GAUGE, "Connections of a service that stand.", ("service",)),
    Metric(SERVICE_IN_USE, GAUGE, "Connections of a service that carry a call now.", ("service",)),
    Metric(SERVICE_UP, GAUGE, "1 while a service can be reached.", ("service",)),
    Metric(ADMIN_REQUESTS, COUNTER, "Requests that the admin API answered, by status.", ("code",)),
    Metric(ACCEPT_ERRORS, COUNTER, "Errors of accept, by errno.", ("errno",)),
    Metric(INTERNAL_ERRORS, COUNTER, "Unexpected exceptions, by where.", ("where",)),
    Metric(ACTOR_RESTARTS, COUNTER, "Restarts of an actor by its supervisor.", ("actor",)),
    Metric(MAILBOX_DEPTH, GAUGE, "Messages waiting in an actor's inbox.", ("actor",)),
    Metric(LOOP_PAUSE, GAUGE, "Longest pause of the event loop in the last minute."),
    Metric(HOST_NAMES, GAUGE, "Host names of backends: resolved, stale or unresolved.", ("state",)),
    Metric(DNS_RESPONSES, COUNTER, "Responses of the internal DNS, by response code.", ("rcode",)),
    Metric(LOG_LINES_DROPPED, COUNTER, "Log lines lost to a full disk or a stalled reader."),
)

BY_BACKEND: Final = frozenset(m.name for m in ALL if m.kind != GAUGE and m.labels[:2] == ("pool", "backend"))
"""Metrics of the actor whose first labels name a backend: they go when it goes."""
BY_FRONTEND: Final = {m.name: m.labels.index("frontend") for m in ALL if m.kind != GAUGE and "frontend" in m.labels}
"""Metrics of the actor with a frontend among their labels, and its place: they go when it goes."""
