"""This POP's copy of the replicated backends: what a snapshot or events change in it, and which losses are doubtful.

A record whose lease has ended is removed at once when one service has died. When many end together it is more likely
the control plane that was ill (etcd deletes the keys of every lease that its frozen leader did not renew), and they
come back as soon as their services renew: until then they are kept as suspects, for a time of grace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Final

from app.domain.model import MAX_TEXT_CHARACTERS, Backend

GRACE_SECONDS: Final = 30.0
"""How long a suspect is kept: a service renews its lease oftener than that."""
BURST_SECONDS: Final = 5.0
"""Leases that end within so long of each other end together."""


@dataclass(frozen=True, slots=True)
class Record:
    """A backend as the control plane has it. `revision` is that of its last change, 0 when it is not known there.

    `drain_seconds` is how long its open connections may run on after the change; the backend's own `drain_deadline` is
    that by this POP's clock. `suspect_since` is Unix seconds, None for a record that is there.
    """

    backend: Backend
    revision: int = 0
    is_leased: bool = False
    drain_seconds: float | None = None
    suspect_since: float | None = None

    @property
    def id(self) -> str:
        return self.backend.id


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that is skipped: not a backend, or of a schema that this version does not know."""

    id: str
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A record was deleted, or its lease has ended."""

    id: str


def shown(record_id: str) -> str:
    """Return an id as logs and /ready have it: that of a bad record may be a megabyte of anything."""
    return record_id if len(record_id) <= MAX_TEXT_CHARACTERS else f"{record_id[:MAX_TEXT_CHARACTERS]}…"


Found = Record | BadRecord
Event = Record | BadRecord | Gone


@dataclass(slots=True)
class Changes:
    """What is to be written: first ids removed, of either kind, then records inserted or replaced, or noted as bad."""

    written: dict[str, Record] = field(default_factory=dict)
    bad: dict[str, BadRecord] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.written or self.bad or self.removed)


class Replica:
    """The records and what became of them. Of a bad record the last good version stays."""

    def __init__(self, records: Iterable[Record] = (), bad: Iterable[BadRecord] = ()) -> None:
        self.records: dict[str, Record] = {}
        self.bad = {one.id: one for one in bad}
        self._alive: set[str] = set()
        """Leased and not suspect."""
        self._serving: Counter[str | None] = Counter()
        """By app, how many records serve and are no suspects."""
        self._losses: dict[str, tuple[float, Record]] = {}
        """Leases that have ended lately: when, and what was lost."""
        for record in records:
            self._enter(record)

    @property
    def suspects(self) -> list[str]:
        return [record.id for record in self.records.values() if record.suspect_since is not None]

    def as_changes(self) -> Changes:
        """Return what makes an empty replica this one."""
        return Changes(dict(self.records), dict(self.bad))

    # What happens

    def reconcile(self, found: Iterable[Found], now: float) -> Changes:
        """Become what a snapshot has.

        Records that vanished are suspects when they had a lease, when they were here before there was a control plane,
        or when half of all have vanished.
        """
        there = {one.id: one for one in found}
        changes = Changes()
        for one in there.values():
            self._take(changes, one, now)
        for bad_id in [bad_id for bad_id in self.bad if bad_id not in there]:
            self._forget_bad(changes, bad_id)
        vanished = [record for record in self.records.values() if record.id not in there]
        is_burst = len(vanished) >= 2 and 2 * len(vanished) >= len(self.records)
        for record in vanished:
            if record.suspect_since is None:
                is_doubtful = (record.is_leased or is_burst or not record.revision) and not record.backend.is_deleted
                self._end(changes, record, now if is_doubtful else None)
        return changes

    def follow(self, events: Iterable[Event], now: float, *, is_catching_up: bool = False) -> Changes:
        """Take what happened, in its order; while catching up every lease that ended meanwhile is doubtful."""
        changes = Changes()
        for event in events:
            if isinstance(event, Gone):
                self._gone(changes, event.id, now, is_catching_up)
            else:
                self._take(changes, event, now)
        return changes

    def expire(self, now: float) -> Changes:
        """Remove the suspects whose time of grace is over."""
        changes = Changes()
        for record in list(self.records.values()):
            if record.suspect_since is not None and abs(now - record.suspect_since) >= GRACE_SECONDS:
                self._end(changes, record, None)
        return changes

    def _take(self, changes: Changes, found: Found, now: float) -> None:
        known = self.records.get(found.id)
        self._losses.pop(found.id, None)  # it is there again, good or bad
        if isinstance(found, BadRecord):
            if self.bad.get(found.id) != found:
                self.bad[found.id] = changes.bad[found.id] = found
            return
        was_bad = self.bad.pop(found.id, None) is not None
        record = _by_local_clock(found, known, now)
        if record != known or was_bad:
            self._write(changes, record)

    def _gone(self, changes: Changes, record_id: str, now: float, is_catching_up: bool) -> None:
        if record_id in self.bad:
            self._forget_bad(changes, record_id)
        record = self.records.get(record_id)
        if record is None or record.suspect_since is not None:
            return
        if not record.is_leased or record.backend.is_deleted:  # somebody meant it: a drained service signs off
            self._end(changes, record, None)
        elif is_catching_up:
            self._end(changes, record, now)
        else:
            self._lose(changes, record, now)

    def _forget_bad(self, changes: Changes, record_id: str) -> None:
        """Forget that a record was bad; its last good version, a suspect perhaps, is to be ended by itself."""
        del self.bad[record_id]
        changes.bad.pop(record_id, None)
        good = self.records.get(record_id)
        if good is not None:
            self._write(changes, good)
        else:
            changes.removed.add(record_id)

    def _lose(self, changes: Changes, record: Record, now: float) -> None:
        """End a record whose lease has ended; if that turns out to be one of a burst, put them all back as suspects."""
        self._losses = {key: loss for key, loss in self._losses.items() if now - loss[0] <= BURST_SECONDS}
        self._losses[record.id] = (now, record)
        self._end(changes, record, None)
        count = len(self._losses)
        if count >= 2 and count >= len(self._alive):
            for _, lost in list(self._losses.values()):
                if lost.id not in self.records:
                    self._write(changes, replace(lost, suspect_since=now))
        elif not self._serving[record.backend.app]:
            self._write(changes, replace(record, suspect_since=now))

    # What is kept

    def _end(self, changes: Changes, record: Record, suspect_since: float | None) -> None:
        if suspect_since is not None:
            self._write(changes, replace(record, suspect_since=suspect_since))
            return
        self._leave(record)
        changes.written.pop(record.id, None)
        changes.removed.add(record.id)

    def _write(self, changes: Changes, record: Record) -> None:
        known = self.records.get(record.id)
        if known is not None:
            self._leave(known)
        self._enter(record)
        changes.written[record.id] = record
        changes.bad.pop(record.id, None)
        changes.removed.discard(record.id)

    def _enter(self, record: Record) -> None:
        self.records[record.id] = record
        if record.suspect_since is None:
            self._serving[record.backend.app] += record.backend.is_serving
            if record.is_leased:
                self._alive.add(record.id)

    def _leave(self, record: Record) -> None:
        del self.records[record.id]
        self._alive.discard(record.id)
        if record.suspect_since is None:
            self._serving[record.backend.app] -= record.backend.is_serving


def _by_local_clock(found: Record, known: Record | None, now: float) -> Record:
    """Give a record its drain deadline: the clocks of POPs need not agree, so it counts from when we hear of it."""
    if found.drain_seconds is None:
        return found
    if known is not None and known.revision == found.revision and known.backend.drain_deadline is not None:
        deadline = known.backend.drain_deadline
    else:
        deadline = now + found.drain_seconds
    return replace(found, backend=replace(found.backend, drain_deadline=deadline), drain_seconds=None)
