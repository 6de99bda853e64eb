"""The services of the gateway: started under supervision, tested, replaced, stopped, each without touching another.

For greenlets that may wait: the admin API's and the start's. They talk to a service by messages to its actor.
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
"""For an answer that needs no service."""
CLOSE_SECONDS: Final = 5.0
"""For the calls under way when a service is stopped."""


class ServiceExists(ServiceError):
    """There is one of this name already."""


class Services:
    """`connector` makes, for a spec, what opens a connection to it or raises ConnectionLost."""

    def __init__(
        self, supervisor: Supervisor, connector: Callable[[ServiceSpec], Callable[[], ServiceConnection]]
    ) -> None:
        self._supervisor = supervisor
        self._connector = connector
        self._slots: dict[str, tuple[Address, ServiceSlot]] = {}

    def start(self, spec: ServiceSpec) -> ServiceView:
        """Start a service and wait until it is known whether it is up; one that is down keeps trying.

        Raises ServiceExists.
        """
        if spec.name in self._slots:
            raise ServiceExists(spec.name, "there is one of this name already")
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
        """Start several, side by side: one that hangs does not hold up the others. Raises what a start raises."""
        starts = [gevent.spawn(self.start, spec) for spec in specs]
        for one in starts:
            one.get()

    def replace(self, spec: ServiceSpec, *, even_if_down: bool = False) -> ServiceView:
        """Give a service new settings: the new connections are up before the old ones end.

        Raises NoSuchService; ServiceDown, and the old ones stay, when the new ones do not come up, unless
        `even_if_down`; ServiceBusy while another replacement is under way.
        """
        address, slot = self._find(spec.name)
        if slot.pool.spec.kind != spec.kind:
            raise ServiceError(spec.name, f"is of kind {slot.pool.spec.kind}: handlers rely on that; delete it first")
        patience = spec.connect_timeout_seconds + GRACE_SECONDS + ASK_SECONDS
        return ask(address, ReplaceService(spec, even_if_down), timeout_s=patience)

    def test(self, name: str) -> float:
        """Open a connection with a service's settings and ask for a sign of life; returns the seconds that took.

        Raises NoSuchService, ServiceDown.
        """
        address, slot = self._find(name)
        spec = slot.pool.spec
        patience = spec.connect_timeout_seconds + spec.timeout_seconds + ASK_SECONDS
        return ask(address, TestService(), timeout_s=patience)

    def test_spec(self, spec: ServiceSpec) -> float:
        """The same for settings that no service has yet. Raises ServiceDown."""
        return self._build(spec).test()

    def stop(self, name: str, *, within_seconds: float = CLOSE_SECONDS) -> None:
        """End a service: calls under way get so long. Raises NoSuchService."""
        address, _ = self._find(name)
        del self._slots[name]
        self._supervisor.dismiss(address)
        try:
            ask(address, CloseService(within_seconds), timeout_s=within_seconds + ASK_SECONDS)
        finally:
            stop([address], timeout_s=ASK_SECONDS)

    def stop_all(self, *, within_seconds: float = CLOSE_SECONDS) -> None:
        """End them all, side by side."""
        gevent.joinall([gevent.spawn(self.stop, name, within_seconds=within_seconds) for name in self._slots])

    def describe(self) -> list[ServiceView]:
        """Return every service as its actor sees it, by name."""
        return [self.describe_one(name) for name in sorted(self._slots)]

    def views(self) -> list[ServiceView]:
        """Return every service by name without asking its actor, which may be restarting."""
        return [slot.view() for _, (_, slot) in sorted(self._slots.items())]

    def describe_one(self, name: str) -> ServiceView:
        """Raises NoSuchService."""
        return ask(self._find(name)[0], DescribeService(), timeout_s=ASK_SECONDS)

    def address(self, kind: str, name: str) -> tuple[Address, ServiceSpec]:
        """Return whom to ask, and the settings of the moment. Raises NoSuchService."""
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
