"""The services of the gateway: each is started under supervision, tested, replaced and stopped on its own.

These calls wait, so only greenlets of the admin API and of the start use them. They send messages to the actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import gevent

from actors.runtime import Address, ask, stop
from actors.services.messages import CloseService, DescribeService, ReplaceService, TestService
from actors.services.pool import ServicePool
from actors.services.service import GRACE_SECONDS, ServiceActor, ServiceSlot
from actors.supervisor import Supervisor
from app.domain.service_errors import NoSuchService, ServiceError
from app.domain.services import ServiceSpec, ServiceView
from app.ports import ServiceConnection

ASK_SECONDS: Final = 5.0
"""Limit for replies that need no work of a service."""
CLOSE_SECONDS: Final = 5.0
"""Default time for calls in progress when a service is stopped."""


class ServiceExists(ServiceError):
    """A service of this name already exists."""


class Services:
    """All services by name. `connector(spec)` returns a function that opens a connection or raises ConnectionLost."""

    def __init__(
        self, supervisor: Supervisor, connector: Callable[[ServiceSpec], Callable[[], ServiceConnection]]
    ) -> None:
        self._supervisor = supervisor
        self._connector = connector
        self._slots: dict[str, tuple[Address, ServiceSlot]] = {}

    def start(self, spec: ServiceSpec) -> ServiceView:
        """Start a service and wait until it is known to be up or down; a service that is down keeps retrying.

        Raises ServiceExists.
        """
        if spec.name in self._slots:
            raise ServiceExists(spec.name, "a service of this name already exists")
        slot = ServiceSlot(spec, self._build)
        address = Address(f"service {spec.name}")
        self._slots[spec.name] = address, slot
        slot.pool.start()
        try:
            self._supervisor.supervise(address, lambda: ServiceActor.start(slot))
        except BaseException:
            del self._slots[spec.name]
            self._supervisor.dismiss(address)
            slot.pool.close(0.0)
            raise
        slot.pool.wait(spec.connect_timeout_seconds + GRACE_SECONDS)
        return slot.view()

    def start_all(self, specs: Iterable[ServiceSpec]) -> None:
        """Start several services concurrently: one that hangs does not delay the others. Raises ServiceExists."""
        starts = [gevent.spawn(self.start, spec) for spec in specs]
        for one in starts:
            one.get()

    def replace(self, spec: ServiceSpec, *, even_if_down: bool = False) -> ServiceView:
        """Change a service's settings: the new connections are up before the old ones are closed.

        Raises NoSuchService; ServiceDown if the new connections do not come up, unless `even_if_down` (the old ones
        stay); ServiceBusy during another replacement.
        """
        address, slot = self._find(spec.name)
        if slot.pool.spec.kind != spec.kind:
            raise ServiceError(
                spec.name, f"is of kind {slot.pool.spec.kind}, which cannot be changed: delete the service first"
            )
        patience = spec.connect_timeout_seconds + GRACE_SECONDS + ASK_SECONDS
        return ask(address, ReplaceService(spec, even_if_down), timeout_s=patience)

    def test(self, name: str) -> float:
        """Open a connection with a service's settings and ping. Returns the seconds that took.

        Raises NoSuchService, ServiceDown.
        """
        address, slot = self._find(name)
        spec = slot.pool.spec
        timeout = spec.connect_timeout_seconds + spec.timeout_seconds + ASK_SECONDS
        return ask(address, TestService(), timeout_s=timeout)

    def test_spec(self, spec: ServiceSpec) -> float:
        """Test settings that no service uses yet. Raises ServiceDown."""
        return self._build(spec).test()

    def stop(self, name: str, *, within_seconds: float = CLOSE_SECONDS) -> None:
        """Stop a service; calls in progress get `within_seconds`. Raises NoSuchService."""
        address, _ = self._find(name)
        del self._slots[name]
        self._supervisor.dismiss(address)
        try:
            ask(address, CloseService(within_seconds), timeout_s=within_seconds + ASK_SECONDS)
        finally:
            stop([address], timeout_s=ASK_SECONDS)

    def stop_all(self, *, within_seconds: float = CLOSE_SECONDS) -> None:
        """Stop all services concurrently."""
        gevent.joinall([gevent.spawn(self.stop, name, within_seconds=within_seconds) for name in self._slots])

    def describe(self) -> list[ServiceView]:
        """Return the state of every service, by name, from its actor."""
        return [self.describe_one(name) for name in sorted(self._slots)]

    def views(self) -> list[ServiceView]:
        """Return the state of every service, by name, without asking its actor, which may be restarting."""
        return [slot.view() for _, (_, slot) in sorted(self._slots.items())]

    def describe_one(self, name: str) -> ServiceView:
        """Return the state of one service, from its actor. Raises NoSuchService."""
        return ask(self._find(name)[0], DescribeService(), timeout_s=ASK_SECONDS)

    def address(self, kind: str, name: str) -> tuple[Address, ServiceSpec]:
        """Return a service's actor and current settings. Raises NoSuchService."""
        address, slot = self._find(name)
        if slot.pool.spec.kind != kind:
            raise NoSuchService(f"service {name} is of kind {slot.pool.spec.kind}, not {kind}")
        return address, slot.pool.spec

    def _find(self, name: str) -> tuple[Address, ServiceSlot]:
        found = self._slots.get(name)
        if found is None:
            raise NoSuchService(f"there is no service {name}")
        return found

    def _build(self, spec: ServiceSpec) -> ServicePool:
        return ServicePool(spec, self._connector(spec))
