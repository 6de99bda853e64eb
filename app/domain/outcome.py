"""Outcomes: termination states, lease outcomes and refusals, as logs and metric labels have them.

A termination state has two letters, like HAProxy's. The first letter is the cause of the end, the second the phase of
the connection.

====== ======================================================================================
first  cause
====== ======================================================================================
``-``  none: both sides closed
``C``  the client: it reset the connection or disconnected
``S``  the server (backend): it refused, reset or was unreachable
``P``  the proxy itself: a limit, a bad PROXY header, no backend
``K``  killed by the edge: drain timeout, a backend's drain deadline, an operator
``I``  an internal error; the log has its traceback
``c``  a timeout while waiting for the client
``s``  a timeout while waiting for the server
``t``  the idle or linger timeout, which covers both sides together
====== ======================================================================================

====== ======================================================================================
second phase
====== ======================================================================================
``A``  admission: the PROXY header
``L``  admission: a limit on connections
``R``  reading an HTTP request
``B``  the size of an HTTP request's body
``E``  electing, that is selecting, a backend
``C``  connecting to the backend
``W``  waiting for the head of an HTTP response
``D``  data: bytes were being copied
``H``  half-closed: one direction has ended
``-``  after the end of both directions
====== ======================================================================================
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How a connection ended (`termination` in the access log, label `state` of connections_ended)."""

    NORMAL = "--"
    CLIENT_RESET = "CD"
    CLIENT_RESET_HALF_CLOSED = "CH"
    CLIENT_GONE_IN_HEADER = "CA"
    SERVER_RESET = "SD"
    SERVER_RESET_HALF_CLOSED = "SH"
    CONNECT_REFUSED = "SC"
    CONNECT_TIMEOUT = "sC"
    HEADER_TIMEOUT = "cA"
    HEADER_BAD = "PA"
    REQUEST_TIMEOUT = "cR"
    REQUEST_BAD = "PR"
    CLIENT_GONE_IN_REQUEST = "CR"
    NO_BACKEND = "PE"
    CLIENT_GONE_WAITING = "CW"
    RESPONSE_FAILED = "SW"
    RESPONSE_BAD = "PW"
    RESPONSE_TIMEOUT = "sW"
    BODY_BAD = "PD"
    BODY_TOO_LARGE = "PB"
    OUT_OF_RESOURCES = "PC"
    CLIENT_LIMIT = "PL"
    SEND_TIMEOUT = "cD"
    IDLE_TIMEOUT = "tD"
    LINGER_TIMEOUT = "tH"
    KILLED = "KD"
    KILLED_EARLY = "KC"
    INTERNAL_ERROR = "ID"


class Affinity(StrEnum):
    """How the client's binding affected a lease (`affinity` in the access log, label of leases_total)."""

    HIT = "hit"
    """The bound backend was a candidate and got the connection."""
    NEW = "new"
    """The client had no binding: a backend was selected."""
    REBIND = "rebind"
    """The bound backend is gone, down, drained or unreachable: another was selected, and the binding moves to it."""
    OVERFLOW = "overflow"
    """The bound backend is full: this connection goes to another one, and the binding stays."""


class NoLease(StrEnum):
    """Why no backend was leased (`reason` in the access log, label `outcome` of leases_total)."""

    EMPTY = "no_backends"
    """The pool has no backends, or only deleted ones."""
    DOWN = "none_available"
    """Every backend is unhealthy, ejected, or has weight 0."""
    FULL = "all_full"
    """Every backend that could serve is at its hard limit or has already been tried for this connection."""
    BINDING_BROKEN = "binding_broken"
    """The bound backend can no longer serve. Never final: another is selected, and the client is bound to it."""


class Refusal(StrEnum):
    """Why a connection was refused before a selection (`reason`, label of connections_refused)."""

    MAX_CONNECTIONS = "max_connections"
    CLIENT_CONNECTIONS = "client_connections"
    CLIENT_RATE = "client_rate"
    BAD_PROXY_HEADER = "bad_proxy_header"
    SLOW_PROXY_HEADER = "slow_proxy_header"
    CLIENT_GONE = "client_gone"
