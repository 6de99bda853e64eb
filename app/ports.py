"""What the domain expects of the outside. The seeds have four ports; two are Protocols here.

BackendRepository and GeoResolver have adapters in app.outbound. The other two are kept by actors, and their messages
(actors.messages) are the port: FindBinding, ConfirmBinding and Unbind for the bindings; Count, BackendConnected and
TakeSnapshot for the metrics; leases and live counts for the registry. BackendStore is where people change backends: the
routing database, an edge that has it, or etcd; Registrar is where services do so themselves; ReplicaStore keeps a POP's
copy of etcd. ServiceConnection is the gateway's: what its service actors keep pools of, an adapter for each engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from app.domain.model import Backend, BadBackend, GeoInfo
from app.domain.registration import Granted, Registration
from app.domain.replica import BadRecord, Changes, Record


class RepositoryError(Exception):
    """The backends cannot be read now: the file is missing, locked, corrupt, or has no such table."""


@dataclass(frozen=True, slots=True)
class BackendSet:
    """What one load found: good rows (warnings name oddities among them) and refused ones."""

    backends: tuple[Backend, ...] = ()
    refused: tuple[BadBackend, ...] = ()
    warnings: tuple[str, ...] = field(default=())


class BackendRepository(Protocol):
    """Where backends are kept. All calls block and come from one thread."""

    def has_changed(self) -> bool:
        """Say cheaply whether a load would find something new. Raises RepositoryError."""
        ...

    def load(self) -> BackendSet:
        """Read every backend. Raises RepositoryError."""
        ...

    def close(self) -> None: ...


class BackendStore(Protocol):
    """What backends are changed through: the routing database, an edge that has it, or etcd.

    Where ids are given KeyError names those that have no row, and nothing is changed then.
    """

    def save(self, backends: Iterable[Backend], *, replaces_all: bool = False) -> None:
        """Insert or replace backends, all or none; with `replaces_all` remove every other.

        Where they are replicated, they are changed a hundred at a time, each hundred all or none.
        """
        ...

    def rows(self) -> list[dict[str, Any]]:
        """Return every row as it stands, bad ones too."""
        ...

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        """Give these backends no new connections, and end open ones after so long."""
        ...

    def undrain(self, ids: Sequence[str]) -> None: ...

    def remove(self, ids: Sequence[str]) -> None: ...


class BackendTable(BackendStore, Protocol):
    """A BackendStore that takes new backends too: what stands behind the admin API. Raises RepositoryError."""

    def insert(self, backend: Backend) -> None:
        """Insert a new backend. Raises KeyError when there is one of that id."""
        ...


class Registrar(Protocol):
    """Where services register themselves. Raises RepositoryError."""

    def register(self, registration: Registration) -> Granted:
        """Let a service serve for so long, from now on. Raises KeyError when its id is a backend's of another kind."""
        ...

    def deregister(self, backend_id: str) -> None:
        """End a registration. Raises KeyError when there is none of that id."""
        ...


@dataclass(frozen=True, slots=True)
class Position:
    """How far a replica follows: which cluster, and the revision of the last change that it has."""

    cluster: int
    revision: int


class ReplicaStore(Protocol):
    """Keeps a replica. All calls block and come from one thread; they raise RepositoryError."""

    def load(self) -> tuple[Position | None, list[Record], list[BadRecord]]:
        """Return how far it follows, None before the first snapshot, and everything in it."""
        ...

    def apply(self, changes: Changes, position: Position) -> None:
        """Write changes and how far they bring it, all or nothing."""
        ...

    def is_same_file(self) -> bool:
        """Say whether what was opened is still in its place."""
        ...

    def close(self) -> None: ...


class GeoResolver(Protocol):
    """Where an address is."""

    def resolve(self, address: str) -> GeoInfo | None:
        """Return the location of an IP address, None when unknown. Never raises, never blocks."""
        ...


class ServiceConnection(Protocol):
    """A connection to a service of the gateway, used by one greenlet at a time. All calls may wait, none blocks.

    Whatever is thrown into the greenlet during a call (a timeout, an end) passes through; `close` is all that may be
    called then.
    """

    def call(self, operation: object) -> object:
        """Carry out one of app.domain.service_calls. Raises OperationRefused, ConnectionLost."""
        ...

    def is_stale(self) -> bool:
        """Say, without asking the service, whether it has ended the connection while nobody used it."""
        ...

    def close(self) -> None:
        """End it, whatever its state. Raises nothing."""
        ...
