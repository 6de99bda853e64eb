"""A geo-aware, sticky TCP and HTTP proxy: greenlets copy bytes, actors own what connections share.

The rooms, from the door inwards::

    __main__ -> cli -> commands/ -> bootstrap   one file a command; the one place that knows every concrete class
    inbound/                            who calls us: doors and listeners, the story of a connection or a request, the
                                        relay, metrics over HTTP, the listener of the admin API, DNS
    admin/                              the admin API: one file a subject, behind tokens; the page at /
    proxy_service                       the use case: client -> lease, asked of the actors through futures
    ../actors/                          registry (pools, leases), bindings (affinity), metrics, health; their supervisor
    domain/                             the rules, pure: elections, pool, affinity, health, geography
    ports                               what the domain expects of the outside, as Protocols
    outbound/                           whom we call: routing and country database, name servers, probes, logs, metrics
    wire/                               bytes <-> meaning, no I/O: PROXY protocol, HTTP/1.1, DNS
    edge_view, gateway_view             what the edge says of itself: readiness and metrics
    pool_members                        every member of a pool, for those views
    dns_view                            what the internal DNS knows: the zone, made anew as the pools change
    config/                             command line, environment and YAML file -> one frozen Config
    serving_pools                       the pools in force: configuration, rows and names, told to the actors
    plans                               what the Config means to the actors: pools, elections, backends, probes
    reload                              the file read again, on SIGHUP or when it has changed
    housekeeping, garbage, loop_pauses  what is done every so often; the collector tamed; how long the loop was held
    registration_keeper                 services that register themselves: kept, renewed, let go, on one machine
    gateway_room                        puts the gateway together, as bootstrap does the edge
    gateway/                            requests answered here: routes, handlers swapped while they run, their calls
    simulation/                         a million clients drawn and elected for, in memory
    cluster/                            beyond one machine: etcd's client, the replicator of the routing database
    registration                        for services: a class that keeps one registered; needs nothing of the edge
    replication                         puts the replicator's process together, as bootstrap does the edge's
    announcer                           the process that announces anycast prefixes by BGP

The way of a connection: inbound/listener accepts -> inbound/tcp_server tells its story -> wire/proxy_protocol says who
the client is -> proxy_service leases a backend -> inbound/dialer connects -> inbound/relay copies until both directions
have ended -> the lease is released, the metrics are told, one access-log line is written. An HTTP connection is
inbound/http_server -> http_session (one request after the other) -> http_exchange (one request: lease, send, pass on).
"""
