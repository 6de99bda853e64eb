"""Stores registrations of services in the routing database of this edge, for edges without etcd.

The actor knows the last registration of each service and its expiry, so an unchanged renewal ends there. Changes are
written to the database one at a time and off the event loop, and the edge reads them at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar

from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.registration_messages import (
    AdoptRegistrations,
    EndRegistrations,
    EnterRegistration,
    FindExpired,
    RenewRegistration,
)
from actors.runtime import Address, ask
from app.domain.registration import Granted, Registration
from app.ports import RepositoryError

TICK_SECONDS: Final = 0.25
"""Between two checks for expired registrations."""
ASK_TIMEOUT_SECONDS: Final = 5.0

T = TypeVar("T")


class RegistrationStore(Protocol):
    """A database of registrations. All calls block and may raise RepositoryError."""

    def register(self, registration: Registration) -> bool:
        """Store a registration. Returns whether it is new. Raises KeyError for the id of an operator's backend."""
        ...

    def deregister(self, backend_id: str) -> bool:
        """Delete a registration. Returns whether it existed."""
        ...

    def expire(self, ids: Iterable[str]) -> None:
        """Delete those of these registrations that this edge still owns."""
        ...


class Run(Protocol):
    """Runs work in a thread."""

    def __call__(self, work: Callable[[], T]) -> T: ...


OpenStore = Callable[[], AbstractContextManager[RegistrationStore]]


class DatabaseRegistrar:
    """A Registrar that stores registrations in the routing database.

    `run` runs work in a thread. `has_database` returns whether the database exists, `read` returns the registrations of
    this edge by id. `reload` makes the edge read what was written.
    """

    def __init__(
        self,
        actor: Address,
        open_store: OpenStore,
        read: Callable[[], Mapping[str, Registration]],
        has_database: Callable[[], bool],
        run: Run,
        reload: Callable[[], None],
    ) -> None:
        self._actor = actor
        self._open_store = open_store
        self._read = read
        self._has_database = has_database
        self._run = run
        self._reload = reload
        self._turn = BoundedSemaphore(1)
        self._has_changed = True
        self._error = ""

    def register(self, registration: Registration) -> Granted:
        if ask(self._actor, RenewRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS):
            return Granted(registration.ttl_seconds, is_new=False, is_renewal=True)
        with self._turn:
            is_new = bool(self._stored(lambda store: store.register(registration), creates_store=True))
            ask(self._actor, EnterRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS)
        self._reload()
        backend = registration.backend
        logger.bind(backend=backend.id).info(
            "registration {}: {}, {} port {}{}, TTL {} s",
            backend.id,
            "new" if is_new else "updated",
            backend.host,
            backend.port,
            ", draining" if registration.is_draining else "",
            registration.ttl_seconds,
        )
        return Granted(registration.ttl_seconds, is_new)

    def deregister(self, backend_id: str) -> None:
        with self._turn:
            if not self._stored(lambda store: store.deregister(backend_id)):
                raise KeyError(backend_id)
            ask(self._actor, EndRegistrations((backend_id,)), timeout_s=ASK_TIMEOUT_SECONDS)
        self._reload()
        logger.bind(backend=backend_id).info("registration {}: ended by the service", backend_id)

    def routing_changed(self) -> None:
        """Record that the database has changed: the next tick reads our registrations from it again."""
        self._has_changed = True

    def tick(self) -> None:
        """End expired registrations. Failures are retried at the next tick."""
        try:
            if self._end_expired():
                self._reload()
            self._error = ""
        except RepositoryError as error:
            if str(error) != self._error:
                logger.error("registrations: {}; expired ones are kept meanwhile", error)
            self._error = str(error)

    def _end_expired(self) -> bool:
        with self._turn:
            if self._has_changed:
                self._adopt()
            expired = ask(self._actor, FindExpired(), timeout_s=ASK_TIMEOUT_SECONDS)
            if not expired:
                return False
            ids = tuple(one.backend.id for one in expired)
            self._stored(lambda store: store.expire(ids))
            ask(self._actor, EndRegistrations(ids), timeout_s=ASK_TIMEOUT_SECONDS)
        for one in expired:
            logger.bind(backend=one.backend.id).warning(
                "registration {}: expired after {} s without renewal", one.backend.id, one.ttl_seconds
            )
        return True

    def _adopt(self) -> None:
        self._has_changed = False
        try:
            found = self._run(lambda: self._read() if self._has_database() else {})
            ask(self._actor, AdoptRegistrations(found), timeout_s=ASK_TIMEOUT_SECONDS)
        except Exception:
            self._has_changed = True
            raise

    def _stored(self, work: Callable[[RegistrationStore], T], *, creates_store: bool = False) -> T | None:
        """Run work on the store, in the thread. Returns None without a database, unless `creates_store`."""

        def with_store() -> T | None:
            if not creates_store and not self._has_database():
                return None
            with self._open_store() as store:
                return work(store)

        return self._run(with_store)
