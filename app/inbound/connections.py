"""The one table of open connections: what sweeps, drain, the byte totals and a rebuilt registry look at.

Greenlets write only their own Connection; everything here that looks at all of them runs in slices or once a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Final, Protocol

import gevent
from gevent.hub import get_hub

from app.domain.errors import Killed
from app.domain.model import Backend, Lease
from app.domain.outcome import State
from app.proxy_service import Client

if TYPE_CHECKING:
    from greenlet import greenlet

SWEPT_AT_ONCE: Final = 500
"""Connections looked at before the event loop gets its turn."""


class Progress(Protocol):
    """What the table reads of a connection's relay."""

    is_half_closed: bool

    def keep_alive(self) -> None: ...

    def notice_reset(self) -> None: ...

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...


class Connection:
    """One client connection: its greenlet, its client, its lease and its bytes."""

    __slots__ = (
        "accepted_at",
        "admission",
        "attempts",
        "client",
        "connect_seconds",
        "destination",
        "greenlet",
        "has_noticed_half_close",
        "is_open",
        "last_lease",
        "lease",
        "lease_id",
        "lease_seconds",
        "listener",
        "peer",
        "quiet_since",
        "relay",
        "seen_bytes_down",
        "seen_bytes_up",
        "source",
    )

    def __init__(self, greenlet: greenlet, peer: tuple[str, int], listener: str, accepted_at: float) -> None:
        self.greenlet = greenlet
        self.peer = peer
        """The socket's own peer."""
        self.source = peer
        """The client's address and port: the peer's, or those its PROXY header names."""
        self.destination: tuple[str, int] | None = None
        """Where a PROXY header says that the client connected to."""
        self.listener = listener
        self.accepted_at = accepted_at
        self.client: Client | None = None
        self.is_open = True
        """Until the accounting: its greenlet serves another connection later."""
        self.admission = 0
        """The number under which it counts against its client's limits; 0 = it does not."""
        self.attempts = 0
        self.lease_id = 0
        """Chosen before the registry is asked; 0 = none asked for."""
        self.lease: Lease | None = None
        """The one held now."""
        self.last_lease: Lease | None = None
        """The one granted last, held or not: for the log."""
        self.lease_seconds = 0.0
        self.connect_seconds = 0.0
        self.relay: Progress | None = None
        self.seen_bytes_up = 0
        self.seen_bytes_down = 0
        self.quiet_since = accepted_at
        self.has_noticed_half_close = False

    def end(self, state: State, reason: str) -> None:
        """Throw Killed into the connection's greenlet, at the loop's next turn, if it is still open then."""

        def throw() -> None:
            if self.is_open:
                self.greenlet.throw(Killed(state, reason))

        get_hub().loop.run_callback(throw)


class Connections:
    """All open connections of the process, and how many were accepted since the last report."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self._accepted = 0
        self._bytes_up = 0
        self._bytes_down = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a copy: connections may come and go meanwhile."""
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        self._accepted += 1

    def remove(self, connection: Connection) -> None:
        self._take_bytes(connection)
        self._open.discard(connection)
        connection.is_open = False

    def _take_bytes(self, connection: Connection) -> bool:
        """Add what the connection has copied since last time; say whether it was anything."""
        relay = connection.relay
        if relay is None:
            return False
        up, down = relay.bytes_up, relay.bytes_down
        moved = up - connection.seen_bytes_up, down - connection.seen_bytes_down
        connection.seen_bytes_up, connection.seen_bytes_down = up, down
        self._bytes_up += moved[0]
        self._bytes_down += moved[1]
        return moved != (0, 0)

    def sweep(self, now: float, idle_seconds: float, linger_seconds: float) -> None:
        """Collect byte counts, and end the connections that have been quiet for too long.

        A timer per connection would be two heap operations per chunk; instead the counts tell who moved.
        """
        for number, connection in enumerate(self, start=1):
            if number % SWEPT_AT_ONCE == 0:
                gevent.sleep(0)
            if connection.relay is None or not connection.is_open:
                continue
            connection.relay.keep_alive()  # here, because a short connection need not pay four system calls for it
            if self._take_bytes(connection) or connection.has_noticed_half_close != connection.relay.is_half_closed:
                connection.has_noticed_half_close = connection.relay.is_half_closed
                connection.quiet_since = now
            elif connection.relay.is_half_closed:
                connection.relay.notice_reset()
                if now - connection.quiet_since >= linger_seconds:
                    connection.end(State.LINGER_TIMEOUT, "linger_timeout")
            elif now - connection.quiet_since >= idle_seconds:
                connection.end(State.IDLE_TIMEOUT, "idle_timeout")

    def totals(self) -> tuple[int, int, int]:
        """Return connections accepted, bytes to clients and bytes from clients, as swept since `forget_totals`."""
        return self._accepted, self._bytes_down, self._bytes_up

    def forget_totals(self) -> None:
        """Start the totals over: they were reported."""
        self._accepted = self._bytes_down = self._bytes_up = 0

    def leases(self) -> list[tuple[int, Backend]]:
        """Return (lease id, backend) of every lease held now."""
        return [(c.lease.lease_id, c.lease.backend) for c in self._open if c.lease is not None]

    def admissions(self) -> list[tuple[str, int]]:
        """Return (client key, admission) of every connection that counts against its client's limits."""
        return [(c.client.key, c.admission) for c in self._open if c.admission and c.client is not None]

    def end_backends(self, backend_ids: Collection[str], reason: str) -> Counter[str]:
        """End every connection to these backends; returns how many of each."""
        ended: Counter[str] = Counter()
        for connection in self._open:
            if connection.lease is not None and connection.lease.backend.id in backend_ids:
                connection.end(State.KILLED, reason)
                ended[connection.lease.backend.id] += 1
        return ended

    def end_all(self, reason: str) -> int:
        """End every connection; returns how many."""
        for connection in self:
            connection.end(State.KILLED if connection.relay else State.KILLED_EARLY, reason)
        return len(self)
