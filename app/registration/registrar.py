"""Keeps the registrations of services on one machine: a Registrar over the routing database that this edge follows.

The actor knows what each service said last and when that expires; a heartbeat that says the same again ends there. All
else is written to the database, one piece of work after the other and off the event loop, and the edge looks at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar

from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.registration_messages import (
    AddRegistration,
    FindExpired,
    RemoveRegistrations,
    RenewRegistration,
    ReplaceRegistrations,
)
from actors.runtime import Address, ask
from app.domain.registration import Granted, Registration
from app.ports import RepositoryError

TICK_SECONDS: Final = 0.25
"""Between looks for registrations that have expired."""
ASK_TIMEOUT_SECONDS: Final = 5.0

T = TypeVar("T")


class RegistrationStore(Protocol):
    """Where registrations are written down. All calls block; they raise RepositoryError."""

    def register(self, registration: Registration) -> bool:
        """Write one down; returns whether it was not there. Raises KeyError for the id of another kind of backend."""
        ...

    def deregister(self, backend_id: str) -> bool:
        """Remove one; returns whether there was one of that id."""
        ...

    def expire(self, ids: Iterable[str]) -> None:
        """Remove those of these that are still ours."""
        ...


class Run(Protocol):
    """Carries out work in a thread."""

    def __call__(self, work: Callable[[], T]) -> T: ...


OpenStore = Callable[[], AbstractContextManager[RegistrationStore]]


class DatabaseRegistrar:
    """A Registrar.

    `run` carries out work in a thread: `is_there` says whether there is a database, `read` returns what it has of ours,
    by id. `look` makes the edge take over what was written.
    """

    def __init__(
        self,
        actor: Address,
        open_store: OpenStore,
        read: Callable[[], Mapping[str, Registration]],
        is_there: Callable[[], bool],
        run: Run,
        look: Callable[[], None],
    ) -> None:
        self._actor = actor
        self._open_store = open_store
        self._read = read
        self._is_there = is_there
        self._run = run
        self._look = look
        self._turn = BoundedSemaphore(1)
        self._has_changed = True
        self._error = ""

    def register(self, registration: Registration) -> Granted:
        if ask(self._actor, RenewRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS):
            return Granted(registration.ttl_seconds, is_new=False, is_renewal=True)
        with self._turn:
            is_new = bool(self._stored(lambda store: store.register(registration), makes_store=True))
            ask(self._actor, AddRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS)
        self._look()
        backend = registration.backend
        logger.bind(backend=backend.id).info(
            "registration {}: {} at {} port {}{}, for {} s at a time",
            backend.id,
            "new" if is_new else "as it is said now",
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
            ask(self._actor, RemoveRegistrations((backend_id,)), timeout_s=ASK_TIMEOUT_SECONDS)
        self._look()
        logger.bind(backend=backend_id).info("registration {}: ended by itself", backend_id)

    def routing_changed(self) -> None:
        """The database is not as it was: see at the next tick what became of our registrations there."""
        self._has_changed = True

    def tick(self) -> None:
        """End what has expired. What cannot be done now is tried again at the next tick."""
        try:
            if self._end_expired():
                self._look()
            self._error = ""
        except RepositoryError as error:
            if str(error) != self._error:
                logger.error("registrations: {}; those that have expired serve on", error)
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
            ask(self._actor, RemoveRegistrations(ids), timeout_s=ASK_TIMEOUT_SECONDS)
        for one in expired:
            logger.bind(backend=one.backend.id).warning(
                "registration {}: expired, nothing was heard for {} s", one.backend.id, one.ttl_seconds
            )
        return True

    def _adopt(self) -> None:
        self._has_changed = False
        try:
            found = self._run(lambda: self._read() if self._is_there() else {})
            ask(self._actor, ReplaceRegistrations(found), timeout_s=ASK_TIMEOUT_SECONDS)
        except Exception:
            self._has_changed = True
            raise

    def _stored(self, work: Callable[[RegistrationStore], T], *, makes_store: bool = False) -> T | None:
        """Carry out work in the thread; where there is no database and none is to be made, it is not, and None."""

        def with_store() -> T | None:
            if not makes_store and not self._is_there():
                return None
            with self._open_store() as store:
                return work(store)

        return self._run(with_store)
