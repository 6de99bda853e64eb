"""The gateway's services: a pool of connections each, an actor before each pool, and who starts and replaces them.

::

    handler ──ask──> service actor ──> its pool's backlog ──> one greenlet for each connection ──> the service
       ^                                                                    │
       └────────────────── the request's own future ────────────────────────┘

An actor only takes calls in and hands them over, so it never waits; calls overlap as far as there are connections.
"""
