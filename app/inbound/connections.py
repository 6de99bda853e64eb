"""The table of open connections, used by the sweep, drain, the byte totals and a rebuilt registry.

A greenlet writes only its own Connection. Whatever visits all connections runs in slices or once a second.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Final, Protocol

import gevent
from greenlet import greenlet

from app.domain.client import Client
from app.domain.errors import Killed
from app.domain.model import Backend, Lease
from app.domain.outcome import State
from app.inbound.event_loop import throw_soon
from app.inbound.frontend import LiveFrontend, OpenFrontend

SWEPT_AT_ONCE: Final = 500
"""Connections visited before yielding to the event loop."""


_LINGERS: Final = (State.LINGER_TIMEOUT, "linger_timeout")
_TAKES_NOTHING: Final = (State.SEND_TIMEOUT, "send_timeout")
_IS_IDLE: Final = (State.IDLE_TIMEOUT, "idle_timeout")


class Progress(Protocol):
    """What the table needs of a TCP connection's relay, or of the current request of an HTTP connection."""

    @property
    def is_half_closed(self) -> bool: ...

    @property
    def awaits_client(self) -> bool:
        """An HTTP response waits for its client to take more."""

    def unacknowledged(self) -> int:
        """Return how many bytes either side has been sent and has not acknowledged: one system call a socket."""

    def keep_alive(self) -> None: ...

    def notice_reset(self) -> None:
        """End the connection if a side that is not watched was reset."""

    @property
    def bytes_up(self) -> int: ...

    @property
    def bytes_down(self) -> int: ...


class _NoProgress:
    """Between two HTTP requests."""

    is_half_closed = False
    awaits_client = False
    bytes_up = 0
    bytes_down = 0

    def unacknowledged(self) -> int:
        return 0

    def keep_alive(self) -> None: ...

    def notice_reset(self) -> None: ...


NO_PROGRESS: Final = _NoProgress()


class Connection:
    """One client connection: its greenlet, its client, its lease and its bytes."""

    __slots__ = (
        "accepted_at",
        "admission",
        "admitted",
        "attempts",
        "client",
        "connect_seconds",
        "deadline",
        "destination",
        "former_bytes_down",
        "former_bytes_up",
        "frontend",
        "greenlet",
        "has_noticed_half_close",
        "has_succeeded",
        "is_idle",
        "is_open",
        "last_lease",
        "late",
        "lease",
        "lease_id",
        "lease_seconds",
        "listener",
        "live",
        "peer",
        "progress",
        "quiet_since",
        "seen_bytes_down",
        "seen_bytes_up",
        "source",
        "tlvs",
        "unacknowledged",
        "watched_bytes",
    )

    def __init__(
        self, greenlet: greenlet, live: LiveFrontend, peer: tuple[str, int], listener: str, accepted_at: float
    ) -> None:
        self.greenlet = greenlet
        self.live = live
        self.frontend = live.current
        self.peer = peer
        """The socket's own peer."""
        self.source = peer
        """The client's address and port: those in its PROXY header, else the peer's."""
        self.destination: tuple[str, int] | None = None
        """The destination in the PROXY header."""
        self.tlvs = b""
        """What the PROXY header says beyond the addresses."""
        self.listener = listener
        self.accepted_at = accepted_at
        self.client: Client | None = None
        self.admitted: Client | None = None
        """The client as it was counted against its limits."""
        self.is_open = True
        """False once it is accounted for: its greenlet serves other connections later."""
        self.admission = 0
        """The id under which it counts against its client's limits; 0 = not counted."""
        self.attempts = 0
        self.lease_id = 0
        """Chosen before the registry is asked; 0 = no lease requested."""
        self.lease: Lease | None = None
        """The lease held now."""
        self.last_lease: Lease | None = None
        """The last lease granted, held or not: for the log."""
        self.lease_seconds = 0.0
        self.connect_seconds = 0.0
        self.progress: Progress | None = None
        self.former_bytes_up = 0
        self.former_bytes_down = 0
        """Bytes of the previous HTTP requests."""
        self.seen_bytes_up = 0
        self.seen_bytes_down = 0
        self.watched_bytes = 0
        """Of its progress, when the sweep saw it last."""
        self.quiet_since = accepted_at
        """When its bytes moved last, or a side acknowledged some."""
        self.unacknowledged = 0
        """When it had been quiet for its whole timeout."""
        self.has_noticed_half_close = False
        self.has_succeeded = False
        """The backend has sent data, and the success was reported."""
        self.deadline: float | None = None
        """When the sweep ends the connection, in monotonic seconds, unless the expected event happens before."""
        self.late = (State.IDLE_TIMEOUT, "")
        """Termination state and reason at the deadline."""
        self.is_idle = False
        """Between two HTTP requests."""

    def expect(self, seconds: float, late: tuple[State, str]) -> None:
        """Set the deadline in `seconds`: the connection then ends with the state and reason in `late`."""
        self.deadline = time.monotonic() + seconds
        self.late = late

    def begin_request(self) -> None:
        """Reset what belongs to the previous HTTP request."""
        self.attempts = self.lease_id = 0
        self.lease = self.last_lease = None
        self.lease_seconds = self.connect_seconds = 0.0

    def report_success(self) -> None:
        """Report a success of the backend, once, after its first byte: it clears the backend's counted failures."""
        if not self.has_succeeded and self.lease is not None and self.progress is not None and self.progress.bytes_down:
            self.has_succeeded = True
            self.frontend.service.traffic_succeeded(self.lease)

    def end(self, state: State, reason: str, is_still_due: Callable[[], bool] = lambda: True) -> None:
        """Throw Killed into the connection's greenlet at the loop's next turn, if it is then still open and due."""

        throw_soon(self.greenlet, Killed(state, reason), lambda: self.is_open and is_still_due())

    def end_if_late(self, now: float) -> None:
        """End the connection if its deadline has passed and does not change before the loop's next turn."""
        deadline = self.deadline
        if deadline is not None and now >= deadline:
            self.end(*self.late, is_still_due=lambda: self.deadline == deadline)


class Connections:
    """All open connections of the process, and the counts since the last report."""

    def __init__(self) -> None:
        self._open: set[Connection] = set()
        self.open_at: Counter[str] = Counter()
        """Open connections by frontend."""
        self._accepted: Counter[str] = Counter()
        self._bytes: dict[tuple[str, str], list[int]] = {}
        """[down, up] by pool and backend."""

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Connection]:
        """Iterate over a copy: connections may open and close meanwhile."""
        return iter(list(self._open))

    def add(self, connection: Connection) -> None:
        self._open.add(connection)
        name = connection.frontend.config.name
        self.open_at[name] += 1
        self._accepted[name] += 1

    def remove(self, connection: Connection) -> None:
        self.take_bytes(connection)
        self._open.discard(connection)
        name = connection.frontend.config.name
        self.open_at[name] -= 1
        if not self.open_at[name]:
            del self.open_at[name]
        connection.is_open = False

    def take_bytes(self, connection: Connection) -> bool:
        """Count the bytes the connection has copied since the last call. Returns whether there were any."""
        progress, lease = connection.progress, connection.last_lease
        if progress is None or lease is None:
            return False
        up, down = progress.bytes_up - connection.seen_bytes_up, progress.bytes_down - connection.seen_bytes_down
        if not up and not down:
            return False
        connection.seen_bytes_up += up
        connection.seen_bytes_down += down
        self.moved(connection.frontend.service.route.pool, lease.backend.id, down, up)
        return True

    def moved(self, pool: str, backend_id: str, down: int, up: int) -> None:
        """Count bytes sent to clients and received from them."""
        counts = self._bytes.get((pool, backend_id))
        if counts is None:
            self._bytes[pool, backend_id] = [down, up]
        else:
            counts[0] += down
            counts[1] += up

    def sweep(self, now: float) -> None:
        """Collect byte counts, and end connections that are past a deadline or a timeout.

        The byte counts show which connections are active; a timer for each would cost two heap operations a chunk.
        """
        for number, connection in enumerate(self, start=1):
            if number % SWEPT_AT_ONCE == 0:
                gevent.sleep(0)
            connection.end_if_late(now)
            progress = connection.progress
            if progress is None or not connection.is_open:
                continue
            progress.keep_alive()  # set here: saves a short connection four system calls
            self.take_bytes(connection)
            moved = progress.bytes_up + progress.bytes_down
            if moved != connection.watched_bytes or connection.has_noticed_half_close != progress.is_half_closed:
                connection.watched_bytes, connection.has_noticed_half_close = moved, progress.is_half_closed
                connection.quiet_since, connection.unacknowledged = now, 0
                connection.report_success()
            else:
                self._end_if_quiet(connection, progress, now)

    @staticmethod
    def _end_if_quiet(connection: Connection, progress: Progress, now: float) -> None:
        config = connection.frontend.config
        progress.notice_reset()
        if progress.is_half_closed:
            limit, late = config.tcp.linger_timeout_seconds, _LINGERS
        elif progress.awaits_client:
            limit, late = config.http.send_timeout_seconds, _TAKES_NOTHING
        elif connection.deadline is None:
            limit, late = config.tcp.idle_timeout_seconds, _IS_IDLE
        else:
            return
        if now - connection.quiet_since < limit:
            return
        unacknowledged = progress.unacknowledged()
        if unacknowledged and unacknowledged != connection.unacknowledged:  # a slow reader took some, or may have
            connection.quiet_since, connection.unacknowledged = now, unacknowledged
        else:
            connection.end(*late)

    def totals(self) -> tuple[dict[str, int], dict[tuple[str, str], tuple[int, int]]]:
        """Return the counts since `forget_totals`.

        They are the connections accepted by frontend, and (bytes to clients, bytes from clients) by (pool, backend id).
        """
        return dict(self._accepted), {backend: (down, up) for backend, (down, up) in self._bytes.items()}

    def forget_totals(self) -> None:
        """Reset the totals after they were reported."""
        self._accepted.clear()
        self._bytes.clear()

    def leases(self) -> list[tuple[str, int, Backend]]:
        """Return (pool, lease id, backend) of every lease held now."""
        return [
            (c.frontend.service.route.pool, c.lease.lease_id, c.lease.backend)
            for c in self._open
            if c.lease is not None
        ]

    def admissions(self, frontend: str) -> list[tuple[str, int]]:
        """Return (client key, admission) of every connection of a frontend that counts against its client's limits."""
        return [
            (c.admitted.key, c.admission)
            for c in self._open
            if c.admitted is not None and c.frontend.config.name == frontend
        ]

    def end_backends(self, pool: str, backend_ids: Collection[str], reason: str) -> Counter[str]:
        """End every connection to these backends of a pool. Returns how many by backend id."""
        ended: Counter[str] = Counter()
        for connection in self._open:
            lease = connection.lease
            is_there = lease is not None and connection.frontend.service.route.pool == pool
            if lease is not None and is_there and lease.backend.id in backend_ids:
                connection.end(State.KILLED, reason)
                ended[lease.backend.id] += 1
        return ended

    def frontends(self) -> set[OpenFrontend]:
        """Return the frontends of all open connections, each as it was when the connection was accepted."""
        return {connection.frontend for connection in self._open}

    def end_idle(self, reason: str) -> None:
        """End the idle HTTP connections of closing frontends."""
        for connection in self:
            if connection.is_idle and connection.live.is_closing:
                connection.end(State.NORMAL, reason, is_still_due=partial(getattr, connection, "is_idle"))

    def end_all(self, reason: str) -> int:
        """End every connection. Returns how many."""
        for connection in self:
            connection.end(State.KILLED if connection.progress else State.KILLED_EARLY, reason)
        return len(self)
