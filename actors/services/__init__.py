"""The gateway's services: a connection pool and an actor for each, and their supervision.

::

    handler ──ask──> service actor ──> its pool's backlog ──> one greenlet for each connection ──> the service
       ^                                                                    │
       └────────────────── the request's own future ────────────────────────┘

An actor only accepts calls and passes them on, so it never waits. As many calls run at once as there are connections.
"""
