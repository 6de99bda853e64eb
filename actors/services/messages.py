"""What a service actor understands."""

from __future__ import annotations

from typing import Any

from actors.runtime import GeventFuture, Message, Request
from app.domain.services import ServiceSpec, ServiceView


class CallService(Request[Any], frozen=True):
    """Carry out an operation (app.domain.service_calls). Answered late, with its result or a ServiceError."""

    operation: object
    deadline: float
    """In monotonic seconds; the service's own timeout bounds it, too."""


class TestService(Request[float], frozen=True):
    """Open a connection of its own, ask for a sign of life, close it. Answers the seconds that took, or ServiceDown."""

    __test__ = False  # no test, whatever its name


class ReplaceService(Request[ServiceView], frozen=True):
    """Build the connections anew as `spec` says; the old ones serve until the new are up, then finish what they began.

    Answers ServiceDown, and the old ones stay, when the new ones do not come up, unless `even_if_down`.
    """

    spec: ServiceSpec
    even_if_down: bool = False


class ReplacementEnded(Message, frozen=True):
    """The actor's note to itself: the new pool is up, or is not to be."""

    pool: Any
    """A ServicePool."""
    error: Exception | None
    response: GeventFuture[ServiceView]


class CloseService(Request[None], frozen=True):
    """Take no more calls, let those under way end within so many seconds, close the connections."""

    within_seconds: float


class DescribeService(Request[ServiceView], frozen=True):
    pass
