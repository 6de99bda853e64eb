"""The ports: what the domain requires of the outside.

Adapters in app.outbound implement the Protocols. Bindings, metrics and leases belong to actors, whose messages
(actors.messages) are the port: FindBinding, ConfirmBinding and Unbind for the bindings; Count, BackendConnected and
TakeSnapshot for the metrics; leases and live counts for the registry.

Operators change backends through a BackendStore: the routing database, an edge that has it, or etcd. Services register
through a Registrar. A ReplicaStore holds a POP's copy of etcd. The gateway's service actors pool ServiceConnections;
each engine has an adapter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.model import Backend, BadBackend, GeoInfo
from app.domain.registration import Granted, Registration
from app.domain.replica import BadRecord, Changes, Record


class RepositoryError(Exception):
    """The backends cannot be read or changed now: the store is missing, locked, corrupt or cannot be reached."""


class RepositoryConflict(RepositoryError):
    """What is stored forbids the change. Nothing was changed."""


class RepositoryFull(RepositoryError):
    """The store has no space left. Nothing was changed."""


class RepositoryDenied(RepositoryError):
    """The store refuses this process: its user, password, certificate or permission. Nothing was changed.

    No retry succeeds before somebody has changed the settings.
    """


@dataclass(frozen=True, slots=True)
class BackendSet:
    """The result of one load: good rows, refused rows, and warnings about good rows."""

    backends: tuple[Backend, ...] = ()
    refused: tuple[BadBackend, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class BackendRepository(Protocol):
    """Reads the backends. All calls block and come from one thread."""

    def has_changed(self) -> bool:
        """Return cheaply whether a load would find a change. Raises RepositoryError."""
        ...

    def load(self) -> BackendSet:
        """Read every backend. Raises RepositoryError."""
        ...

    def close(self) -> None: ...


class BackendStore(Protocol):
    """Changes backends: in the routing database, through an edge that has it, or in etcd.

    Methods that take ids raise KeyError with the ids that have no row, and then change nothing.
    """

    def save(self, backends: Iterable[Backend], *, replaces_all: bool = False) -> None:
        """Insert or replace backends, all or none. With `replaces_all` remove all others.

        Replicated backends are changed in batches of a hundred, each batch all or none.
        """
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Return every row unparsed, including bad ones."""
        ...

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        """Send these backends no new connections, and close open ones after the deadline (None = never)."""
        ...

    def undrain(self, ids: Sequence[str]) -> None: ...

    def remove(self, ids: Sequence[str]) -> None: ...


class BackendTable(BackendStore, Protocol):
    """A BackendStore that also inserts, as the admin API needs it. Raises RepositoryError."""

    def insert(self, backend: Backend) -> None:
        """Insert a new backend. Raises KeyError if its id exists."""
        ...


class Registrar(Protocol):
    """Stores the registrations of services. Raises RepositoryError."""

    def register(self, registration: Registration) -> Granted:
        """Add or renew a registration. Raises KeyError if its id belongs to a backend that did not register itself."""
        ...

    def deregister(self, backend_id: str) -> None:
        """End a registration. Raises KeyError if there is none with that id."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """The position of a replica: the cluster that it follows, and the revision of the last change that it has."""

    cluster: int
    revision: int


class ReplicaStore(Protocol):
    """Stores a replica. All calls block and come from one thread; they raise RepositoryError."""

    def load(self) -> tuple[Position | None, list[Record], list[BadRecord]]:
        """Return the position (None before the first snapshot), the records and the bad records."""
        ...

    def apply(self, changes: Changes, position: Position) -> None:
        """Write changes together with the new position, all or nothing."""
        ...

    def is_same_file(self) -> bool:
        """Say whether what was opened is still in its place."""
        ...

    def close(self) -> None: ...


class GeoResolver(Protocol):
    """Locates addresses."""

    def resolve(self, address: str) -> GeoInfo | None:
        """Return the location of an IP address, None if unknown. Never raises, never blocks."""
        ...


class ServiceConnection(Protocol):
    """A connection to a service of the gateway, used by one greenlet at a time. Calls may wait but never block.

    An exception thrown into the greenlet during a call (a timeout, a kill) passes through. After that, only `close` may
    be called.
    """

    def call(self, operation: object) -> object:
        """Execute an operation of app.domain.service_calls. Raises OperationRefused, ConnectionLost."""
        ...

    def is_stale(self) -> bool:
        """Return, without asking the service, whether it has closed the connection while it was idle."""
        ...

    def close(self) -> None:
        """Close the connection in any state. Never raises."""
        ...
