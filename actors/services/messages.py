"""The messages of a service actor."""

from __future__ import annotations

from typing import Any

from actors.runtime import GeventFuture, Message, Request
from app.domain.services import ServiceSpec, ServiceView


class CallService(Request[Any], frozen=True):
    """Execute an operation of app.domain.service_calls. The reply is its result or a ServiceError."""

    operation: object
    deadline: float
    """In monotonic seconds; the service's own timeout applies as well."""


class TestService(Request[float], frozen=True):
    """Ping the service on a separate connection. The reply is the duration in seconds or ServiceDown."""

    __test__ = False  # not a test class, despite its name


class ReplaceService(Request[ServiceView], frozen=True):
    """Replace the connections according to `spec`. The old ones serve until the new ones are up.

    If the new connections fail, the old ones stay and the reply is ServiceDown, unless `even_if_down` is set.
    """

    spec: ServiceSpec
    even_if_down: bool = False


class ReplacementEnded(Message, frozen=True):
    """Sent by the actor to itself: the new pool is up or has failed."""

    pool: Any
    """A ServicePool."""
    error: Exception | None
    response: GeventFuture[ServiceView]


class CloseService(Request[None], frozen=True):
    """Accept no more calls, give running ones `within_seconds` to end, and close the connections."""

    within_seconds: float


class DescribeService(Request[ServiceView], frozen=True):
    pass
