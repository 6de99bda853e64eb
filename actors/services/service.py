"""The actor of one service: it passes calls to the connection pool, and replaces, tests and closes the pool.

It never waits. Slow work runs in a greenlet that sets the request's future or tells the actor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import gevent
from loguru import logger

from actors.runtime import ActorDead, GeventActor, GeventFuture
from actors.services.messages import (
    CallService,
    CloseService,
    DescribeService,
    ReplacementEnded,
    ReplaceService,
    TestService,
)
from actors.services.pool import ServicePool
from app.domain.service_errors import ServiceBusy, ServiceDown, ServiceError
from app.domain.services import ServiceSpec, ServiceView

GRACE_SECONDS: Final = 1.0
"""Time beyond the connect timeout for new connections to come up."""

T = TypeVar("T")


class ServiceSlot:
    """The present pool of a service. It outlives the actor, so that a successor takes over the open connections."""

    def __init__(self, spec: ServiceSpec, build: Callable[[ServiceSpec], ServicePool]) -> None:
        self._build = build
        self.pool = build(spec)
        self.replacing: ServicePool | None = None
        self.is_closed = False

    def build(self, spec: ServiceSpec) -> ServicePool:
        return self._build(spec)

    def view(self) -> ServiceView:
        return ServiceView(self.pool.spec, self.pool.counts(), self.replacing is not None)


class ServiceActor(GeventActor):
    """Translates messages to the present pool."""

    def __init__(self, slot: ServiceSlot) -> None:
        super().__init__()
        self._slot = slot

    def on_start(self) -> None:
        """Discard a replacement whose ReplacementEnded was lost with a predecessor."""
        orphan, self._slot.replacing = self._slot.replacing, None
        if orphan is not None:
            gevent.spawn(orphan.close, 0.0)

    def handle(self, message: object) -> object:
        match message:
            case CallService(operation, deadline):
                return self._slot.pool.submit(operation, deadline)
            case DescribeService():
                return self._slot.view()
            case TestService():
                return _in_background(self._slot.pool.test)
            case ReplaceService(spec, even_if_down):
                return self._replace(spec, even_if_down)
            case ReplacementEnded(pool, error, response):
                self._end_replacement(pool, error, response)
            case CloseService(within_seconds):
                return self._close(within_seconds)
            case _:
                return super().handle(message)
        return None

    def _replace(self, spec: ServiceSpec, even_if_down: bool) -> GeventFuture[ServiceView]:
        slot, response = self._slot, GeventFuture[ServiceView]()
        if slot.replacing is not None or slot.is_closed:
            _fail(response, ServiceBusy(spec.name, "it is being replaced or closed already"))
            return response
        pool = slot.replacing = slot.build(spec)
        gevent.spawn(self._bring_up, pool, even_if_down, response)
        return response

    def _bring_up(self, pool: ServicePool, even_if_down: bool, response: GeventFuture[ServiceView]) -> None:
        """Wait for the new connections, in a separate greenlet."""
        error: Exception | None = None
        try:
            pool.start()
            reason = pool.wait(pool.spec.connect_timeout_seconds + GRACE_SECONDS)
            if reason is not None and not even_if_down:
                error = ServiceDown(pool.spec.name, reason)
        except Exception as broken:
            logger.exception("service {} could not be replaced", pool.spec.name)
            error = ServiceError(pool.spec.name, f"could not be replaced: {broken!r}")
        try:
            self.actor_ref.tell(ReplacementEnded(pool, error, response))
        except ActorDead:  # the successor does not know of the replacement and keeps the old connections
            if self._slot.replacing is pool:
                self._slot.replacing = None
            _fail(response, error or ServiceDown(pool.spec.name, "the actor ended during the replacement"))
            pool.close(0.0)

    def _end_replacement(self, pool: ServicePool, error: Exception | None, response: GeventFuture[ServiceView]) -> None:
        slot = self._slot
        slot.replacing = None
        if error is None and slot.is_closed:
            error = ServiceDown(pool.spec.name, "it was closed during the replacement")
        if error is not None:
            gevent.spawn(pool.close, 0.0)
            _fail(response, error)
            return
        old, slot.pool = slot.pool, pool
        gevent.spawn(old.close, old.spec.timeout_seconds)
        logger.info("service {} was replaced", pool.spec.name)
        response.set(slot.view())

    def _close(self, within_seconds: float) -> GeventFuture[None]:
        self._slot.is_closed = True
        return _in_background(lambda: self._slot.pool.close(within_seconds))


def _in_background(work: Callable[[], T]) -> GeventFuture[T]:
    """Run slow work in a greenlet; the future gets its result."""
    response: GeventFuture[T] = GeventFuture()

    def do() -> None:
        try:
            response.set(work())
        except Exception as error:
            if not isinstance(error, ServiceError):
                logger.exception("background work of a service failed unexpectedly")
            _fail(response, error)

    gevent.spawn(do)
    return response


def _fail(response: GeventFuture[T], error: Exception) -> None:
    response.set_exception((type(error), error, None))
