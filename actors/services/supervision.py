"""Starts, tests, replaces and stops the services of the gateway, each independently of the others.

Its methods wait, so only greenlets that may wait call them: the admin API and the startup. They send messages to the
service's actor.
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
"""Timeout of an ask that does not involve the service itself."""
CLOSE_SECONDS: Final = 5.0
"""Time for running calls when a service is stopped."""


class ServiceExists(ServiceError):
    """A service of this name exists."""


class Services:
    """The services by name. `connector(spec)` returns a function that opens a connection or raises ConnectionLost."""

    def __init__(
        self, supervisor: Supervisor, connector: Callable[[ServiceSpec], Callable[[], ServiceConnection]]
    ) -> None:
        self._supervisor = supervisor
        self._connector = connector
        self._slots: dict[str, tuple[Address, ServiceSlot]] = {}

    def start(self, spec: ServiceSpec) -> ServiceView:
        """Start a service and wait until it is known whether it is up. A service that is down keeps retrying.

        Raises ServiceExists.
        """
        if spec.name in self._slots:
            raise ServiceExists(spec.name, "exists already")
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
        """Start services concurrently, so that one that hangs does not delay the others. Raises ServiceExists."""
        starts = [gevent.spawn(self.start, spec) for spec in specs]
        for one in starts:
            one.get()

    def replace(self, spec: ServiceSpec, *, even_if_down: bool = False) -> ServiceView:
        """Apply new settings to a service: the new connections come up before the old ones are closed.

        Raises NoSuchService; ServiceDown if the new connections fail, in which case the old ones stay, unless
        `even_if_down` is set; ServiceBusy during another replacement.
        """
        address, slot = self._find(spec.name)
        if slot.pool.spec.kind != spec.kind:
            raise ServiceError(
                spec.name,
                f"is of kind {slot.pool.spec.kind}; to change the kind, delete the service first",
            )
        timeout = spec.connect_timeout_seconds + GRACE_SECONDS + ASK_SECONDS
        return ask(address, ReplaceService(spec, even_if_down), timeout_s=timeout)

    def test(self, name: str) -> float:
        """Ping a service on a separate connection with its settings; return the duration in seconds.

        Raises NoSuchService, ServiceDown.
        """
        address, slot = self._find(name)
        spec = slot.pool.spec
        timeout = spec.connect_timeout_seconds + spec.timeout_seconds + ASK_SECONDS
        return ask(address, TestService(), timeout_s=timeout)

    def test_spec(self, spec: ServiceSpec) -> float:
        """Test settings before a service has them; return the duration in seconds. Raises ServiceDown."""
        return self._build(spec).test()

    def stop(self, name: str, *, within_seconds: float = CLOSE_SECONDS) -> None:
        """Stop a service; running calls get `within_seconds` to end. Raises NoSuchService."""
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
        """Ask every actor for a view of its service; sorted by name."""
        return [self.describe_one(name) for name in sorted(self._slots)]

    def views(self) -> list[ServiceView]:
        """Return a view of every service, sorted by name, without asking its actor, which may be restarting."""
        return [slot.view() for _, (_, slot) in sorted(self._slots.items())]

    def describe_one(self, name: str) -> ServiceView:
        """Ask one actor for a view of its service. Raises NoSuchService."""
        return ask(self._find(name)[0], DescribeService(), timeout_s=ASK_SECONDS)

    def address(self, kind: str, name: str) -> tuple[Address, ServiceSpec]:
        """Return the address of a service's actor, and its present settings. Raises NoSuchService."""
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
