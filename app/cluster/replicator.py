"""Maintains this POP's replica of the backends in etcd: a snapshot at a revision, then every change after it.

One greenlet follows etcd in a loop: it opens the replica, takes a snapshot unless it can resume, and watches until the
watch fails. A second one writes the heartbeat when nothing else changes, so that a dead watch is noticed. A third one
writes the status file and removes suspects after their grace period.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import gevent
from gevent.event import Event as GeventEvent
from gevent.lock import BoundedSemaphore
from loguru import logger

from app.cluster.etcd import EtcdClient
from app.cluster.etcd_errors import Compacted, EtcdError, EtcdUnavailable, EtcdUntrusted, Silence
from app.cluster.etcd_responses import Event, WatchMessage
from app.cluster.records import BACKENDS, HEARTBEAT, PREFIX, read_record
from app.domain.replica import BURST_SECONDS, GRACE_SECONDS, Changes, Gone, Replica, shown
from app.domain.replica import Event as ReplicaEvent
from app.domain.words import counted, listed
from app.ports import Position, ReplicaStore, RepositoryError

HEARTBEAT_SECONDS: Final = 1.0
"""Silence after which a heartbeat is written, plus up to 50 %, so that not all POPs write at the same time."""
SILENCE_SECONDS: Final = 3.0
"""A watch that is silent for this long is considered dead; then the next endpoint is tried."""
LOST_SECONDS: Final = 5.0
"""Silence after which contact with etcd is reported as lost. Failover to another endpoint takes less."""
STATUS_SECONDS: Final = 0.5
MIN_PAUSE_SECONDS: Final = 0.1
MAX_PAUSE_SECONDS: Final = 2.0
"""Between two attempts to follow etcd."""
RECORDS_LOGGED: Final = 20
"""Bad records, suspects and losses logged by name per change."""
_STARTING: Final = "starting"
_NO_HEARTBEAT: Final = "the heartbeat cannot be written"
_NOWHERE: Final = Position(0, 0)
"""The position in no cluster, which forces a snapshot."""


class Replicator:
    """Follows etcd. `run` calls `open_store()` and methods of the store, off the event loop.

    `report(self)` is called twice a second to publish the status for the edge; it may raise OSError.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        open_store: Callable[[], ReplicaStore],
        run: Callable[..., Any],
        report: Callable[[Replicator], None],
        last_contact: float = 0.0,
    ) -> None:
        """`last_contact` is that of an earlier process, in Unix seconds."""
        self._report = report
        self._etcd = etcd
        self._open_store = open_store
        self._run = run
        self._store: ReplicaStore | None = None
        self.replica = Replica()
        self.position: Position | None = None
        """The position of the replica. It may be ahead of the store's by changes of other keys than backends."""
        self._cluster = 0
        """The cluster that the replica reflects; 0 = none yet."""
        self.contact_at = last_contact
        """Unix time when the replica was last known to equal etcd."""
        self.endpoint = ""
        self.error: str | None = _STARTING
        """Why there is no contact at present."""
        self.is_held = False
        """Whether etcd has never had backends, so that the backends in the database are kept."""
        self._contact_since: float | None = None
        """Monotonic time; None while there is no contact."""
        self._heard_at = time.monotonic()
        self._is_lost = False
        self._quiet_seconds = HEARTBEAT_SECONDS
        self._heartbeat_fault = ""
        """Why the last heartbeat could not be written; empty if it was."""
        self._suspects: list[str] = []
        """Not logged yet."""
        self._suspected_at = 0.0
        """When the first of them was suspected, by the monotonic clock."""
        self._turn = BoundedSemaphore(1)
        self._advanced = GeventEvent()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    # Starting and stopping

    def start(self) -> None:
        """Start the greenlets."""
        for work in (self._follow_forever, self._write_heartbeats, self._maintain_forever):
            self._greenlets.append(gevent.spawn(work))

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._close()

    def await_revision(self, revision: int, seconds: float) -> bool:
        """Wait until the replica has reached a revision. Returns whether it has."""
        give_up_at = time.monotonic() + seconds
        while self.position is None or self.position.revision < revision:
            left = give_up_at - time.monotonic()
            if left <= 0:
                return False
            self._advanced.wait(left)
        return True

    # Following

    def _follow_forever(self) -> None:
        pause = MIN_PAUSE_SECONDS
        while True:
            heard_at = self._heard_at
            try:
                self._follow()
            except (Compacted, _StartOver) as error:
                logger.info("replica: {}; taking a snapshot", error)
                self.position = None
            except Silence as error:
                self._on_silence(str(error))
            except (EtcdError, RepositoryError) as error:
                can_pass = isinstance(error, EtcdUnavailable) and not isinstance(error, EtcdUntrusted)
                self._failed(str(error), is_logged=not can_pass)
            except Exception:
                logger.exception("following etcd failed; will retry")
                self._failed("internal error; see the traceback in the log", is_logged=False)
                self._close()
            pause = MIN_PAUSE_SECONDS if self._heard_at > heard_at else min(pause * 2, MAX_PAUSE_SECONDS)
            gevent.sleep(pause)

    def _follow(self) -> None:
        """Follow etcd until that fails. Raises EtcdError, RepositoryError."""
        if self._store is None:
            self._open()
        if self.position is None:
            self._take_snapshot()
        position = self.position
        assert position is not None
        with self._etcd.watch(PREFIX, position.revision + 1, SILENCE_SECONDS) as messages:
            self.endpoint = self._etcd.endpoint
            created = next(messages)
            if created.header.cluster_id != position.cluster or created.header.revision < position.revision:
                # Its changes may not continue our state. A snapshot is read from the majority, also past a late node.
                raise _StartOver(f"{self.endpoint} is another cluster, was restored from a backup, or is behind")
            self._apply_all(messages, missed=created.header.revision)

    def _apply_all(self, messages: Iterator[WatchMessage], missed: int) -> None:
        """Apply the messages of a watch. Changes up to revision `missed` were made while not connected."""
        for message in messages:
            if self._store is None:
                return  # the database was replaced
            if message.events:
                self._apply(message.events, missed)
                self._record_contact()

    def _apply(self, events: list[Event], missed: int) -> None:
        assert self.position is not None
        revision = max(event.kv.mod_revision for event in events)
        changed = [_read(event) for event in events if event.kv.key.startswith(BACKENDS.encode())]
        if self.is_held and not all(isinstance(event, Gone) for event in changed):
            raise _StartOver("etcd now has backends")
        is_catching_up = events[0].kv.mod_revision <= missed
        with self._turn:
            changes = self.replica.follow(changed, time.time(), is_catching_up=is_catching_up)
            self._write(changes, Position(self.position.cluster, revision))

    def _take_snapshot(self) -> None:
        found = self._etcd.snapshot(BACKENDS)
        records = [
            read_record(item.key, item.value, item.mod_revision, is_leased=bool(item.lease)) for item in found.items
        ]
        position = Position(found.cluster_id, found.revision)
        with self._turn:
            if not records and self.replica.records and found.cluster_id != self._cluster:
                self._hold(position)
            else:
                self.is_held = False
                self._write(self.replica.reconcile(records, time.time()), position, is_snapshot=True)
        self.endpoint = self._etcd.endpoint
        logger.info("replica: snapshot at revision {}, {}", found.revision, counted(len(records), "record"))
        self._record_contact()

    def _hold(self, position: Position) -> None:
        """Keep the present backends, as this etcd has never had any. Not stored, so a restart checks again."""
        if not self.is_held:
            logger.warning(
                "replica: etcd has no backends; keeping the present {} until it has some", len(self.replica.records)
            )
        self.is_held, self.position = True, position
        self._advance()

    # The replica

    def _open(self) -> None:
        """Open the store and load it. If the database was lost, write what is known, even without etcd."""
        store = self._run(self._open_store)
        try:
            stored, records, bad = self._run(store.load)
            if stored is None and not records and self.replica.records:
                stored = self.position if self.position is not None and not self.is_held else _NOWHERE
                self._run(store.apply, self.replica.as_changes(), stored)
                logger.info("replica: rewritten with {}", counted(len(self.replica.records), "backend"))
            else:
                self.replica = Replica(records, bad)
        except BaseException:
            self._run(store.close)
            raise
        self._store, self.position, self.is_held = store, stored, False
        self._cluster = stored.cluster if stored is not None else 0

    def _close(self) -> None:
        store, self._store = self._store, None
        if store is not None:
            try:
                self._run(store.close)
            except RepositoryError as error:
                logger.warning("replica: {}", error)

    def _write(self, changes: Changes, position: Position, *, is_snapshot: bool = False) -> None:
        """Write changes to the store. On failure close it, so that it is reopened in its previous state."""
        if changes or is_snapshot:
            if self._store is None:
                raise RepositoryError("the routing database was replaced")
            try:
                self._run(self._store.apply, changes, position)
            except RepositoryError:
                self._close()
                raise
            _log_changes(changes)
            self._note_suspects(changes)
        self.position = position
        self._cluster = position.cluster
        self._advance()

    def _note_suspects(self, changes: Changes) -> None:
        if not self._suspects:
            self._suspected_at = time.monotonic()
        self._suspects += [record.id for record in changes.written.values() if record.suspect_since is not None]

    def _advance(self) -> None:
        advanced, self._advanced = self._advanced, GeventEvent()
        advanced.set()

    # Contact

    def _record_contact(self) -> None:
        silent_seconds, self._heard_at = time.monotonic() - self._heard_at, time.monotonic()
        self.contact_at = time.time()
        self._quiet_seconds = HEARTBEAT_SECONDS * (1 + random.random() / 2)
        if self._contact_since is None:
            self._contact_since = self._heard_at
            logger.info("replica: in contact with etcd after {:.1f} s, through {}", silent_seconds, self.endpoint)
        self.error = None

    def _failed(self, error: str, *, is_logged: bool) -> None:
        """Record why there is no contact. Log it at once if waiting will not help."""
        if is_logged and error != self.error:
            logger.error("replica: {}", error)
        self.error = error

    def _on_silence(self, error: str) -> None:
        """Record that nothing arrived. If the heartbeat cannot be written, that is the reason."""
        if self._heartbeat_fault:
            is_logged = not (self.error or "").startswith(_NO_HEARTBEAT)
            self._failed(f"{_NO_HEARTBEAT}: {self._heartbeat_fault}", is_logged=is_logged)
        else:
            self._failed(error, is_logged=False)

    def _check_contact(self) -> None:
        """Log that contact is lost, once that has lasted for LOST_SECONDS."""
        silent_seconds = time.monotonic() - self._heard_at
        is_lost = silent_seconds > LOST_SECONDS and self.error != _STARTING  # the first call reports the reason
        if is_lost and not self._is_lost:
            logger.error(
                "replica: no contact with etcd for {:.0f} s: {}; keeping the last {}",
                silent_seconds, self.error or "silence", counted(len(self.replica.records), "backend"),
            )  # fmt: skip
            self._contact_since = None
        self._is_lost = is_lost

    def _write_heartbeats(self) -> None:
        while True:
            gevent.sleep(HEARTBEAT_SECONDS / 10)
            if self.position is None or time.monotonic() - self._heard_at < self._quiet_seconds:
                continue
            try:
                self._etcd.put(HEARTBEAT, b"")
                self._heartbeat_fault = ""
            except EtcdError as error:
                self._heartbeat_fault = str(error)
                logger.debug("replica: heartbeat: {}", error)
            except Exception:
                logger.exception("writing the heartbeat failed; will retry")
            gevent.sleep(HEARTBEAT_SECONDS / 2)

    def _maintain_forever(self) -> None:
        last_error = ""
        while True:
            gevent.sleep(STATUS_SECONDS)
            try:
                self._check_contact()
                self._check_store()
                self._expire()
                self._log_suspects()
                self._report(self)
                last_error = ""
            except (RepositoryError, OSError) as error:
                if str(error) != last_error:
                    last_error = str(error)
                    logger.error("replica: {}", error)
            except Exception:
                logger.exception("maintaining the replica failed; will retry")

    def _log_suspects(self) -> None:
        """Log the leases that expired together in one line, when the burst is over: etcd reports each by itself."""
        suspects = self._suspects
        if not suspects or time.monotonic() - self._suspected_at < BURST_SECONDS:
            return
        self._suspects = []
        named = listed(suspects, RECORDS_LOGGED)
        if len(suspects) == 1:
            logger.warning("1 lease expired; its backend is kept for now: {}", named)
        else:
            logger.warning("{} leases expired together; their backends are kept for now: {}", len(suspects), named)

    def _check_store(self) -> None:
        if self._store is not None and not self._run(self._store.is_same_file):
            logger.warning("replica: the routing database was replaced; reopening it")
            with self._turn:
                self._close()

    def _expire(self) -> None:
        """Remove suspects that were not renewed during GRACE_SECONDS of uninterrupted contact."""
        is_stable = self._contact_since is not None and time.monotonic() - self._contact_since >= GRACE_SECONDS
        if not is_stable or self.position is None or self.is_held:
            return
        with self._turn:
            changes = self.replica.expire(time.time())
            if changes:
                removed = listed(sorted(changes.removed), RECORDS_LOGGED)
                count = counted(len(changes.removed), "backend")
                logger.info("replica: {} removed after the grace period: {}", count, removed)
                self._write(changes, self.position)


class _StartOver(Exception):
    """The replica cannot be continued: a snapshot is needed."""


def _read(event: Event) -> ReplicaEvent:
    kv = event.kv
    if event.is_deletion:
        return Gone(kv.key.removeprefix(BACKENDS.encode()).decode(errors="backslashreplace"))
    return read_record(kv.key, kv.value, kv.mod_revision, is_leased=bool(kv.lease))


def _log_changes(changes: Changes) -> None:
    """Log bad records and counts."""
    for bad in list(changes.bad.values())[:RECORDS_LOGGED]:
        logger.bind(backend=shown(bad.id)).error("record refused: {}: {}", shown(bad.id), bad.reason)
    if len(changes.bad) > RECORDS_LOGGED:
        logger.error("{} refused, too", counted(len(changes.bad) - RECORDS_LOGGED, "more record"))
    logger.debug("replica: {} written, {} removed", len(changes.written), len(changes.removed))
