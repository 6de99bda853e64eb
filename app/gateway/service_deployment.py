"""The use case of services: create, replace and remove them, in their actors and in the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from gevent.lock import BoundedSemaphore

from actors.services.supervision import Services
from app.domain.service_errors import NoSuchService
from app.domain.services import BadService, ServiceSpec, ServiceView, parse_service
from app.domain.stored import ServiceRow

T = TypeVar("T")


class Store(Protocol):
    """The store of services. All calls block; all may raise StoreError."""

    def services(self) -> list[ServiceRow]: ...

    def save_service(self, service: ServiceRow) -> None: ...

    def remove_service(self, name: str) -> bool: ...


class ServiceDeployment:
    """Changes the services of the gateway. `run(work, *arguments)` runs blocking work off the event loop.

    Every method may raise StoreError and AskTimeoutError.
    """

    def __init__(self, store: Store, run: Callable[..., Any], services: Services) -> None:
        self._store = store
        self._run = run
        self.services = services
        self._lock = BoundedSemaphore()

    def restore(self) -> None:
        """Start the stored services. Damaged rows are left out."""
        specs = []
        for row in self._in_thread(self._store.services):
            with suppress(BadService):
                specs.append(parse_service(row._asdict()))
        self.services.start_all(specs)

    def create(self, given: Mapping[str, object]) -> ServiceView:
        """Start a service, even if it is down, and store it. Raises BadService, ServiceExists."""
        with self._lock:
            spec = parse_service(given)
            view = self.services.start(spec)
            try:
                self._write(spec)
            except BaseException:
                self.services.stop(spec.name)
                raise
            return view

    def replace(self, given: Mapping[str, object], *, even_if_down: bool) -> ServiceView:
        """Change a service's settings. Raises BadService, NoSuchService, ServiceDown, ServiceBusy, ServiceError."""
        with self._lock:
            former = self.services.describe_one(str(given.get("name"))).spec
            spec = parse_service(given, former)
            view = self.services.replace(spec, even_if_down=even_if_down)
            try:
                self._write(spec)
            except BaseException:
                self.services.replace(former, even_if_down=True)
                raise
            return view

    def remove(self, name: str) -> None:
        """Remove a service and stop it. Raises NoSuchService."""
        with self._lock:
            if not self._in_thread(self._store.remove_service, name):
                raise NoSuchService(f"there is no service {name}")
            with suppress(NoSuchService):  # the row was damaged, so nothing was started
                self.services.stop(name)

    def _write(self, spec: ServiceSpec) -> None:
        row = spec.stored()
        settings = row["settings"]
        assert isinstance(settings, Mapping)
        self._in_thread(self._store.save_service, ServiceRow(spec.name, spec.kind, settings))

    def _in_thread(self, work: Callable[..., T], *arguments: object) -> T:
        return self._run(work, *arguments)  # type: ignore[no-any-return]
