"""The gateway's services: each has a pool of connections and an actor; `supervision` starts and replaces them.

::

    handler ──ask──> service actor ──> its pool's backlog ──> one greenlet for each connection ──> the service
       ^                                                                    │
       └────────────────── the request's own future ────────────────────────┘

The actor only accepts calls and queues them, so it never waits. As many calls run at once as there are connections.
"""
