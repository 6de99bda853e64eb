"""The actors, the messages between them, and their supervision.

::

    connection greenlets ──ask──> registry   pools: backends, live counts, health, leases
          │  │                      ^ ^
          │  └────────ask──> bindings │  bindings of clients, selections in progress, per-client limits
          │                         │ │
          └──tell──> metrics        │ └──tell── routing watcher (a greenlet that reads the database in a thread), reload
                       ^            │
                       └──tell── health   the schedule of probes; a greenlet runs each probe and tells its result

    app.gateway.dispatch ──ask──> handlers   the version that handles each request, and the requests of each version

    app.registration.registrar ──ask──> registrations   the last registration of each service, and when it expires

    supervisor ── watches all of them; it builds a successor from present facts and publishes it under the same name

Asks go inwards only: greenlets (connections, /ready, /metrics, the snapshot of bindings) ask actors. An actor never
asks and never waits. Messages never carry bytes or sockets.
"""
