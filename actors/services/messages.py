"""The messages of a service actor."""

from __future__ import annotations

from typing import Any

from actors.runtime import GeventFuture, Message, Request
from app.domain.services import ServiceSpec, ServiceView


class CallService(Request[Any], frozen=True):
    """Carry out an operation (app.domain.service_calls). The reply comes later: its result or a ServiceError."""

    operation: object
    deadline: float
    """In monotonic seconds; the service's own timeout also applies."""


class TestService(Request[float], frozen=True):
    """Open a separate connection, ping, close it. Replies with the seconds that took, or ServiceDown."""

    __test__ = False  # not a pytest class


class ReplaceService(Request[ServiceView], frozen=True):
    """Replace the connections by new ones for `spec`; the old ones serve until the new are up, then finish their calls.

    If the new connections do not come up, the old ones stay and the reply is ServiceDown, unless `even_if_down`.
    """

    spec: ServiceSpec
    even_if_down: bool = False


class ReplacementEnded(Message, frozen=True):
    """Sent by the actor's own greenlet: the new pool is up, or failed with `error`."""

    pool: Any
    """A ServicePool."""
    error: Exception | None
    response: GeventFuture[ServiceView]


class CloseService(Request[None], frozen=True):
    """Refuse new calls, give those in progress `within_seconds` to finish, close the connections."""

    within_seconds: float


class DescribeService(Request[ServiceView], frozen=True):
    pass
