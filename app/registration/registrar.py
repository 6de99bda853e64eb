"""The registrar of one machine: stores registrations of services in the routing database that this edge follows.

The registrations actor knows what each service sent last and when that expires; a heartbeat that repeats it goes no
further. Everything else is written to the database, one change after the other and off the event loop, and the edge
loads the change at once.
"""

from __future__ import annotations

import time
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
from app.domain.words import listed
from app.ports import RepositoryError

TICK_SECONDS: Final = 0.25
"""Between two checks for expired registrations."""
BURST_SECONDS: Final = 1.0
"""Registrations that expire with shorter pauses, as those of a machine that is gone, are one line of the log."""
LONGEST_BURST_SECONDS: Final = 10.0
"""Then it is logged, though others may follow."""
NAMES_LOGGED: Final = 20
ASK_TIMEOUT_SECONDS: Final = 5.0

T = TypeVar("T")


class RegistrationStore(Protocol):
    """Stores registrations. All calls block; they raise RepositoryError."""

    def register(self, registration: Registration) -> bool:
        """Store a registration; returns whether it is new. Raises KeyError for the id of another kind of backend."""
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


class Routing(Protocol):
    """The routing database, as the edge follows it."""

    @property
    def current(self) -> object:
        """What was loaded last: another object after every change."""
        ...

    def check(self) -> None:
        """Load what has changed, now."""
        ...


OpenStore = Callable[[], AbstractContextManager[RegistrationStore]]


class DatabaseRegistrar:
    """A Registrar (app.ports) over a database.

    `run` runs in a thread what blocks: `has_database` says whether there is one, `read` returns the registrations of
    this edge in it, by id.
    """

    def __init__(
        self,
        actor: Address,
        open_store: OpenStore,
        read: Callable[[], Mapping[str, Registration]],
        has_database: Callable[[], bool],
        run: Run,
        routing: Routing,
    ) -> None:
        self._actor = actor
        self._open_store = open_store
        self._read = read
        self._has_database = has_database
        self._run = run
        self._routing = routing
        self._turn = BoundedSemaphore(1)
        self._adopted: object = None
        """What the routing database had when its registrations were adopted last."""
        self._error = ""
        self._expired: list[Registration] = []
        """Those that the log does not have yet."""
        self._burst_began = self._expired_at = 0.0
        """When the first and the latest of them expired, in monotonic seconds."""

    def register(self, registration: Registration) -> Granted:
        if ask(self._actor, RenewRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS):
            return Granted(registration.ttl_seconds, is_new=False, is_renewal=True)
        with self._turn:
            is_new = bool(self._stored(lambda store: store.register(registration), creates_database=True))
            ask(self._actor, AddRegistration(registration), timeout_s=ASK_TIMEOUT_SECONDS)
        self._routing.check()
        backend = registration.backend
        logger.bind(backend=backend.id).info(
            "registration {}: {}, {} port {}{}, TTL {} s",
            backend.id,
            "new" if is_new else "changed",
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
        self._routing.check()
        logger.bind(backend=backend_id).info("registration {}: ended by its service", backend_id)

    def tick(self) -> None:
        """Adopt what others changed, and end what has expired. Retries at the next tick what fails now."""
        try:
            if self._end_expired():
                self._routing.check()
            self._error = ""
        except (RepositoryError, TimeoutError) as error:
            if str(error) != self._error:
                logger.error("registrations: {}; expired ones stay until it works again", error)
            self._error = str(error)
        self._log_expired()

    def _end_expired(self) -> bool:
        with self._turn:
            self._adopt()
            expired = ask(self._actor, FindExpired(), timeout_s=ASK_TIMEOUT_SECONDS)
            if not expired:
                return False
            ids = tuple(one.backend.id for one in expired)
            self._stored(lambda store: store.expire(ids))
            ask(self._actor, RemoveRegistrations(ids), timeout_s=ASK_TIMEOUT_SECONDS)
        self._expired_at = time.monotonic()
        if not self._expired:
            self._burst_began = self._expired_at
        self._expired += expired
        return True

    def _log_expired(self) -> None:
        """Log what has expired, when the burst is over or has been long."""
        expired, now = self._expired, time.monotonic()
        is_over = now - self._expired_at >= BURST_SECONDS or now - self._burst_began >= LONGEST_BURST_SECONDS
        if not expired or not is_over:
            return
        self._expired = []
        ids = [one.backend.id for one in expired]
        if len(expired) == 1:
            logger.bind(backend=ids[0]).warning(
                "registration {}: expired after {} s without renewal", ids[0], expired[0].ttl_seconds
            )
        else:
            logger.bind(backends=ids).warning(
                "{} registrations expired together, without renewal: {}", len(ids), listed(ids, NAMES_LOGGED)
            )

    def _adopt(self) -> None:
        current = self._routing.current
        if current is self._adopted:
            return
        found = self._run(lambda: self._read() if self._has_database() else {})
        ask(self._actor, ReplaceRegistrations(found), timeout_s=ASK_TIMEOUT_SECONDS)
        self._adopted = current

    def _stored(self, work: Callable[[RegistrationStore], T], *, creates_database: bool = False) -> T | None:
        """Run work on the store in the thread; None without a database, unless it is to be created."""

        def with_store() -> T | None:
            if not creates_database and not self._has_database():
                return None
            with self._open_store() as store:
                return work(store)

        return self._run(with_store)
