"""A geo-aware, sticky TCP proxy: greenlets copy bytes, actors own what connections share.

The rooms, from the door inwards::

    __main__ -> cli -> bootstrap        the command line; the one place that knows every concrete class
    inbound/                            who calls us: listeners, the story of a connection, the relay, metrics over HTTP
    proxy_service                       the use case: client -> lease, asked of the actors through futures
    ../actors/                          registry (backends, leases), bindings (affinity), metrics; their supervisor
    domain/                             the rules, pure: election, pool, affinity, health, geography
    ports                               what the domain expects of the outside, as Protocols
    outbound/                           whom we call: routing database, country database, logs, metrics format
    wire/                               bytes <-> meaning, no I/O
    edge_view                           what the edge says of itself: readiness and metrics
    config                              environment -> one frozen Config
    housekeeping, garbage, loop_pauses  what is done every so often; the collector tamed; how long the loop was held
    backend_commands                    the commands that write the routing database

The way of a connection: inbound/listener accepts -> inbound/tcp_server tells its story -> wire/proxy_protocol says who
the client is -> proxy_service leases a backend -> inbound/dialer connects -> inbound/relay copies until both directions
have ended -> the lease is released, the metrics are told, one access-log line is written.
"""
