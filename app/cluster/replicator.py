"""Keeps this POP's copy of the backends as etcd has them: a snapshot at a revision, then every change from there on.

One greenlet follows: it opens the replica, takes a snapshot unless it can resume, and watches until the watch fails,
for ever. Two more look after it: one writes the heartbeat when nothing else happens, so that a watch that has silently
died is noticed; one writes the status file and ends the suspects' time of grace.
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

from app.cluster.etcd import Compacted, EtcdClient, EtcdError, EtcdUnavailable, Silence
from app.cluster.etcd_responses import Event, WatchMessage
from app.cluster.records import BACKENDS, HEARTBEAT, PREFIX, read_record
from app.domain.replica import GRACE_SECONDS, Changes, Gone, Replica, shown
from app.domain.replica import Event as ReplicaEvent
from app.ports import Position, ReplicaStore, RepositoryError

HEARTBEAT_SECONDS: Final = 1.0
"""Of quiet, before somebody writes the heartbeat; up to half as long again, so that it is not all POPs at once."""
SILENCE_SECONDS: Final = 3.0
"""A watch that brings nothing for so long is dead, and the next endpoint's turn has come."""
LOST_SECONDS: Final = 5.0
"""Of silence, after which contact with etcd is lost; to move on to another endpoint takes less."""
STATUS_SECONDS: Final = 0.5
SHORTEST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0
"""Between two tries to follow."""
RECORDS_NAMED: Final = 20
"""Bad records, suspects and losses named in the log for one change."""
_STARTING: Final = "starting"
_NO_HEARTBEAT: Final = "the heartbeat cannot be written"
_NOWHERE: Final = Position(0, 0)
"""Of no cluster: whoever goes on from here takes a snapshot."""


class Replicator:
    """Follows etcd. `open_store()` and the store's calls are run by `run`, off the event loop.

    `report(self)` is called twice a second, to tell the edge how the replica is; it may raise OSError.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        open_store: Callable[[], ReplicaStore],
        run: Callable[..., Any],
        report: Callable[[Replicator], None],
        last_contact: float = 0.0,
    ) -> None:
        """`last_contact` is what an earlier process knew of it, in Unix seconds."""
        self._report = report
        self._etcd = etcd
        self._open_store = open_store
        self._run = run
        self._store: ReplicaStore | None = None
        self.replica = Replica()
        self.position: Position | None = None
        """How far the replica follows; ahead of what the store says by changes that are not of backends."""
        self._cluster = 0
        """The one that the replica is a copy of; 0 = none yet."""
        self.contact_at = last_contact
        """When the replica was last known to be as etcd has it, in Unix seconds."""
        self.endpoint = ""
        self.error: str | None = _STARTING
        """Why there is no contact now."""
        self.is_held = False
        """etcd has no backends and never had for us, so what was here before stays."""
        self._contact_since: float | None = None
        """Monotonic; None while there is no contact."""
        self._heard_at = time.monotonic()
        self._is_lost = False
        self._quiet_seconds = HEARTBEAT_SECONDS
        self._heartbeat_fault = ""
        """Why it could not be written the last time."""
        self._turn = BoundedSemaphore(1)
        self._advanced = GeventEvent()
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    # Living

    def start(self) -> None:
        """Follow, in the background."""
        for work in (self._follow_forever, self._beat_forever, self._look_after_forever):
            self._greenlets.append(gevent.spawn(work))

    def stop(self) -> None:
        gevent.killall(self._greenlets)
        self._close()

    def await_revision(self, revision: int, seconds: float) -> bool:
        """Wait until the replica has what was written at a revision; says whether it has."""
        give_up_at = time.monotonic() + seconds
        while self.position is None or self.position.revision < revision:
            left = give_up_at - time.monotonic()
            if left <= 0:
                return False
            self._advanced.wait(left)
        return True

    # Following

    def _follow_forever(self) -> None:
        pause = SHORTEST_PAUSE_SECONDS
        while True:
            heard_at = self._heard_at
            try:
                self._follow()
            except (Compacted, _StartOver) as error:
                logger.info("replica: {}: taking a snapshot", error)
                self.position = None
            except Silence as error:
                self._fell_silent(str(error))
            except (EtcdError, RepositoryError) as error:
                self._failed(str(error), is_news=not isinstance(error, EtcdUnavailable))
            except Exception:
                logger.exception("following etcd failed; going on")
                self._failed("an internal error; the log has its traceback", is_news=False)
                self._close()
            pause = SHORTEST_PAUSE_SECONDS if self._heard_at > heard_at else min(pause * 2, LONGEST_PAUSE_SECONDS)
            gevent.sleep(pause)

    def _follow(self) -> None:
        """Follow until that fails. Raises EtcdError, RepositoryError."""
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
                # Another etcd, or one put back from a backup: what it will tell does not continue what we have.
                raise _StartOver(f"{self.endpoint} is not where we left it")
            self._take_all(messages, missed=created.header.revision)

    def _take_all(self, messages: Iterator[WatchMessage], missed: int) -> None:
        """Take what a watch brings; what had happened up to revision `missed` happened while we were away."""
        for message in messages:
            if self._store is None:
                return  # what it was is not there any more
            if message.events:
                self._take(message.events, missed)
                self._be_in_contact()

    def _take(self, events: list[Event], missed: int) -> None:
        assert self.position is not None
        revision = max(event.kv.mod_revision for event in events)
        happened = [_read(event) for event in events if event.kv.key.startswith(BACKENDS.encode())]
        if self.is_held and not all(isinstance(event, Gone) for event in happened):
            raise _StartOver("etcd has backends now")
        is_catching_up = events[0].kv.mod_revision <= missed
        with self._turn:
            changes = self.replica.follow(happened, time.time(), is_catching_up=is_catching_up)
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
        logger.info("replica: snapshot at revision {}, {} backends", found.revision, len(records))
        self._be_in_contact()

    def _hold(self, position: Position) -> None:
        """Stay as we are: this etcd has nothing, nor had it ever for us. A restart shall look again."""
        if not self.is_held:
            logger.warning(
                "replica: etcd has no backends; the {} that are here stay until it has some", len(self.replica.records)
            )
        self.is_held, self.position = True, position
        self._advance()

    # The replica

    def _open(self) -> None:
        """Open the store and begin from what it has; where that is lost, write what is known, etcd or no etcd."""
        store = self._run(self._open_store)
        try:
            stored, records, bad = self._run(store.load)
            if stored is None and not records and self.replica.records:
                stored = self.position if self.position is not None and not self.is_held else _NOWHERE
                self._run(store.apply, self.replica.as_changes(), stored)
                logger.info("replica: written anew, {} backends", len(self.replica.records))
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
        """Keep what has changed; if that fails the replica is opened anew, as it was before."""
        if changes or is_snapshot:
            if self._store is None:
                raise RepositoryError("the routing database was replaced")
            try:
                self._run(self._store.apply, changes, position)
            except RepositoryError:
                self._close()
                raise
            _say(changes)
        self.position = position
        self._cluster = position.cluster
        self._advance()

    def _advance(self) -> None:
        advanced, self._advanced = self._advanced, GeventEvent()
        advanced.set()

    # Contact

    def _be_in_contact(self) -> None:
        silent_seconds, self._heard_at = time.monotonic() - self._heard_at, time.monotonic()
        self.contact_at = time.time()
        self._quiet_seconds = HEARTBEAT_SECONDS * (1 + random.random() / 2)
        if self._contact_since is None:
            self._contact_since = self._heard_at
            logger.info("replica: in contact with etcd after {:.1f} s, by {}", silent_seconds, self.endpoint)
        self.error = None

    def _failed(self, error: str, *, is_news: bool) -> None:
        """Note why nothing is heard; say so at once when waiting will not help."""
        if is_news and error != self.error:
            logger.error("replica: {}", error)
        self.error = error

    def _fell_silent(self, error: str) -> None:
        """Note that nothing came; where nobody can write the heartbeat, that is why."""
        if self._heartbeat_fault:
            is_news = not (self.error or "").startswith(_NO_HEARTBEAT)
            self._failed(f"{_NO_HEARTBEAT}: {self._heartbeat_fault}", is_news=is_news)
        else:
            self._failed(error, is_news=False)

    def _look_at_contact(self) -> None:
        """Say that there is no contact, once it has lasted."""
        silent_seconds = time.monotonic() - self._heard_at
        is_lost = silent_seconds > LOST_SECONDS and self.error != _STARTING  # the first call tells why
        if is_lost and not self._is_lost:
            logger.error(
                "replica: no contact with etcd for {:.0f} s: {}; {} backends serve on",
                silent_seconds, self.error or "silence", len(self.replica.records),
            )  # fmt: skip
            self._contact_since = None
        self._is_lost = is_lost

    def _beat_forever(self) -> None:
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
                logger.exception("writing the heartbeat failed; going on")
            gevent.sleep(HEARTBEAT_SECONDS / 2)

    def _look_after_forever(self) -> None:
        said = ""
        while True:
            gevent.sleep(STATUS_SECONDS)
            try:
                self._look_at_contact()
                self._look_at_store()
                self._expire()
                self._report(self)
                said = ""
            except (RepositoryError, OSError) as error:
                if str(error) != said:
                    said = str(error)
                    logger.error("replica: {}", error)
            except Exception:
                logger.exception("looking after the replica failed; going on")

    def _look_at_store(self) -> None:
        if self._store is not None and not self._run(self._store.is_there):
            logger.warning("replica: the routing database was replaced: opening it anew")
            with self._turn:
                self._close()

    def _expire(self) -> None:
        """Remove suspects that nobody has claimed, though there was contact for as long as they may be kept."""
        is_stable = self._contact_since is not None and time.monotonic() - self._contact_since >= GRACE_SECONDS
        if not is_stable or self.position is None or self.is_held:
            return
        with self._turn:
            changes = self.replica.expire(time.time())
            if changes:
                logger.info("replica: nobody renewed {}", ", ".join(sorted(changes.removed)[:RECORDS_NAMED]))
                self._write(changes, self.position)


class _StartOver(Exception):
    """What we have does not go on where we are: a snapshot is needed."""


def _read(event: Event) -> ReplicaEvent:
    kv = event.kv
    if event.is_deletion:
        return Gone(kv.key.removeprefix(BACKENDS.encode()).decode(errors="backslashreplace"))
    return read_record(kv.key, kv.value, kv.mod_revision, is_leased=bool(kv.lease))


def _say(changes: Changes) -> None:
    """Log what matters of a change."""
    for bad in list(changes.bad.values())[:RECORDS_NAMED]:
        logger.bind(backend=shown(bad.id)).error("record refused: {}: {}", shown(bad.id), bad.reason)
    if len(changes.bad) > RECORDS_NAMED:
        logger.error("and {} more records refused", len(changes.bad) - RECORDS_NAMED)
    suspects = [record.id for record in changes.written.values() if record.suspect_since is not None]
    if suspects:
        named = ", ".join(suspects[:RECORDS_NAMED])
        logger.warning("{} leases have ended at once, their backends stay for now: {}", len(suspects), named)
    logger.debug("replica: {} written, {} removed", len(changes.written), len(changes.removed))
