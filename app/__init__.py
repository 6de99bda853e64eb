"""A geo-aware, sticky TCP and HTTP proxy: greenlets copy bytes, actors own what connections share.

The packages::

    __main__ cli commands/    the command line, one file a command
    edge/                     one serving process: built, started, reloaded, watched, stopped
    inbound/                  listeners, connections, access log; tcp/ http/ dns/ status/ have a protocol each
    proxy_service ports       the use case: client -> lease; what the domain expects of the outside
    ../actors/                pools and leases, bindings, health, metrics, handlers, services; their supervisor
    domain/                   the rules, pure: selection, pool, affinity, health, geography
    wire/                     bytes <-> meaning, no I/O: PROXY protocol, HTTP/1.1, DNS
    outbound/                 adapters, <technology>_<what>.py: databases, probes, names, logs
    config/                   command line, environment and YAML file -> one frozen Config
    admin/                    the admin API and its page
    gateway/                  requests that this process responds to: routes, deployments, request handlers
    registration/             services that register themselves: the client library and the registrar
    cluster/ anycast/         beyond one machine: etcd and the replicator; exabgp
    simulation/               a million clients, drawn and assigned in memory

The life of a connection: inbound/listener accepts it; inbound/tcp/server serves it, top to bottom. wire/proxy_protocol
says which client it is, proxy_service leases a backend, inbound/dialer connects to it, inbound/tcp/relay copies until
both directions have ended. Then the lease is released, the metrics are told, and one access line is written. On an HTTP
connection (inbound/http/connection) a lease lasts for one request; wire/http1_rules decides what is kept and resent.
Every metric has its name in domain/metric_names.

The life of an edge: edge/build makes the parts, edge/lifecycle starts them in order and stops them in reverse,
edge/serving opens the frontends of a configuration, edge/reload replaces it, edge/drain drains them.
"""
