"""Settles every HTTP request at its end: health of its backend, lease, bytes, metrics and access line."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Final

from app.domain.model import Lease
from app.domain.outcome import State
from app.inbound.access_log import AccessLog, ServedRequest
from app.inbound.connections import NO_PROGRESS, Connection, Connections
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.responder import Outcome
from app.wire.http1 import RequestHead

_METHODS: Final = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"))
_CODES: Final = {int(code): str(int(code)) for code in HTTPStatus}


class RequestAccounts:
    """Where the requests of a process are accounted for."""

    def __init__(self, connections: Connections, requests: RequestTally, access_log: AccessLog) -> None:
        self._connections = connections
        self._requests = requests
        self._access_log = access_log

    def settle(
        self, connection: Connection, head: RequestHead | None, outcome: Outcome, own_bytes: int, started_at: float
    ) -> None:
        """Account for a request; `head` is None when it could not be read.

        `own_bytes` were sent to the client by the edge itself; `started_at` is when the request's first byte came, in
        monotonic seconds.
        """
        now = time.monotonic()
        service, lease = connection.frontend.service, connection.last_lease
        status = outcome.status if outcome.refusal is None else outcome.refusal.status
        connection.deadline, connection.quiet_since = None, now
        self._count_bytes(connection, outcome, own_bytes)
        if connection.lease is not None:
            self._judge(connection, connection.lease, outcome, status)
        if connection.lease_id:
            service.release(connection.lease_id)
            connection.lease = None
        seconds = now - started_at
        backend = lease.backend.id if lease is not None else ""
        code = _code_label(status) if status is not None else ""
        method = _method_label(head) if head is not None else ""
        self._requests.served((outcome.pool, backend, service.route.frontend, code, method), seconds)
        down = outcome.bytes_down + own_bytes
        request_id, state, reason = outcome.request_id, outcome.state, outcome.reason
        self._access_log.request_ended(
            connection,
            ServedRequest(head, request_id, status, outcome.bytes_up, down, seconds, state, reason, outcome.endpoint),
            now,
        )

    def _count_bytes(self, connection: Connection, outcome: Outcome, own_bytes: int) -> None:
        """Add the request's bytes to its backend's, except those that a sweep has already counted."""
        lease, moved = connection.last_lease, self._connections.moved
        up, down = outcome.bytes_up, outcome.bytes_down
        if lease is not None:
            moved(outcome.pool, lease.backend.id, down - connection.seen_bytes_down, up - connection.seen_bytes_up)
        elif up or down:
            moved(outcome.pool, "", down, up)
        if own_bytes:
            moved(outcome.pool, "", own_bytes, 0)
        connection.former_bytes_up += up
        connection.former_bytes_down += down + own_bytes
        connection.seen_bytes_up = connection.seen_bytes_down = 0
        connection.progress = NO_PROGRESS

    @staticmethod
    def _judge(connection: Connection, lease: Lease, outcome: Outcome, status: int | None) -> None:
        """Tell the registry, once, what the request says about its backend: a failure, or that all went well."""
        frontend, failure = connection.frontend, outcome.backend_failure
        if failure is None and status in frontend.pool.health_check.passive_statuses:
            failure = f"status_{status}"
        if failure is not None:
            frontend.service.traffic_failed(lease.backend, failure)
        elif outcome.state is State.NORMAL:
            frontend.service.traffic_succeeded(lease)


def _code_label(status: int) -> str:
    """Return a status as a label: registered ones as they are, others by their class."""
    return _CODES.get(status) or f"{status // 100}xx"


def _method_label(head: RequestHead) -> str:
    return head.method.decode() if head.method in _METHODS else "other"
