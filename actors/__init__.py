"""The actors, who may ask whom, and who watches over them.

::

    connection greenlets ──ask──> registry   pools: backends, live counts, health, leases
          │  │                      ^ ^
          │  └────────ask──> bindings │  who is bound where, elections under way, per-client limits
          │                         │ │
          └──tell──> metrics        │ └──tell── routing watcher (a greenlet that reads the database in a thread), reload
                       ^            │
                       └──tell── health   when which backend is probed; a greenlet runs each probe and tells its end

    app.gateway.dispatch ──ask──> handlers   which version of which handler answers a request, and who still holds one

    app.registration.registrar ──ask──> registrations   which service said last when that it serves, and who is overdue

    supervisor ── watches all of them; a successor is built from the facts of the moment and published under the name

Asks go inwards only: greenlets (connections, /ready, /metrics, the snapshot of bindings) ask actors. An actor never
asks and never waits. Bytes and sockets never travel in messages.
"""
