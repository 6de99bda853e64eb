"""This POP's copy of the replicated backends. It applies snapshots and events, and decides which losses to doubt.

A record whose lease has ended is removed at once if one service has died. If many leases end together, the control
plane is the more likely cause: etcd deletes the keys of every lease that its frozen leader did not renew. Those records
return as soon as their services renew. Until then they are kept as suspects for a grace period.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Final

from app.domain.model import MAX_TEXT_CHARACTERS, Backend

GRACE_SECONDS: Final = 30.0
"""How long a suspect is kept. A service renews its lease more often than that."""
NO_ID: Final = "(no id)"
"""The name of a record without an id."""
BURST_SECONDS: Final = 5.0
"""Leases that end within this time of one another count as one burst."""


@dataclass(frozen=True, slots=True)
class Record:
    """A backend as the control plane has it. `revision` is that of its last change, 0 if the control plane has none.

    `drain_seconds` is how long its open connections may continue after the change; the `drain_deadline` of the backend
    is the end of that time by this POP's clock. `suspect_since` is Unix seconds, None for a record that is present.
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
    """A record that is skipped because it is not a valid backend or has an unknown schema version."""

    id: str
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """A record that was deleted or whose lease has ended."""

    id: str


def shown(record_id: str) -> str:
    """Return the name of a record in logs and /ready, by which it can be removed: the id, if it is a valid one.

    The id of a bad record may be a megabyte of anything. Its name is printable and not empty, and a long one ends with
    a checksum.
    """
    text = record_id.encode(errors="surrogateescape").decode(errors="backslashreplace")
    if not text.isprintable():
        text = "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
    if len(text) > MAX_TEXT_CHARACTERS:
        checksum = f"…{sha256(text.encode()).hexdigest()[:8]}"
        text = text[: MAX_TEXT_CHARACTERS - len(checksum)] + checksum
    return text or NO_ID


Found = Record | BadRecord
Event = Record | BadRecord | Gone


@dataclass(slots=True)
class Changes:
    """Changes to be stored: first remove ids (good or bad), then write records and bad records."""

    written: dict[str, Record] = field(default_factory=dict)
    bad: dict[str, BadRecord] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self.written or self.bad or self.removed)


class Replica:
    """The records, good and bad. The last good version of a bad record is kept."""

    def __init__(self, records: Iterable[Record] = (), bad: Iterable[BadRecord] = ()) -> None:
        self.records: dict[str, Record] = {}
        self.bad = {one.id: one for one in bad}
        self._alive: set[str] = set()
        """Ids of records that have a lease and are not suspect."""
        self._serving: Counter[str | None] = Counter()
        """The number of serving records per app, without suspects."""
        self._losses: dict[str, tuple[float, Record]] = {}
        """Leases that ended recently: when, and the lost record."""
        for record in records:
            self._add(record)

    @property
    def suspects(self) -> list[str]:
        return [record.id for record in self.records.values() if record.suspect_since is not None]

    def as_changes(self) -> Changes:
        """Return the changes that turn an empty replica into this one."""
        return Changes(dict(self.records), dict(self.bad))

    # Snapshots and events

    def reconcile(self, found: Iterable[Found], now: float) -> Changes:
        """Apply a snapshot.

        A vanished record becomes suspect if it had a lease, if it predates the control plane, or if at least half of
        all records have vanished.
        """
        present = {one.id: one for one in found}
        changes = Changes()
        for one in present.values():
            self._apply(changes, one, now)
        for bad_id in [bad_id for bad_id in self.bad if bad_id not in present]:
            self._forget_bad(changes, bad_id)
        vanished = [record for record in self.records.values() if record.id not in present]
        is_burst = len(vanished) >= 2 and 2 * len(vanished) >= len(self.records)
        for record in vanished:
            if record.suspect_since is None:
                is_doubtful = (record.is_leased or is_burst or not record.revision) and not record.backend.is_deleted
                self._end(changes, record, now if is_doubtful else None)
        return changes

    def follow(self, events: Iterable[Event], now: float, *, is_catching_up: bool = False) -> Changes:
        """Apply events in their order. While catching up, every record whose lease ended becomes suspect."""
        changes = Changes()
        for event in events:
            if isinstance(event, Gone):
                self._handle_gone(changes, event.id, now, is_catching_up)
            else:
                self._apply(changes, event, now)
        return changes

    def expire(self, now: float) -> Changes:
        """Remove the suspects whose grace period is over."""
        changes = Changes()
        for record in list(self.records.values()):
            if record.suspect_since is not None and abs(now - record.suspect_since) >= GRACE_SECONDS:
                self._end(changes, record, None)
        return changes

    def _apply(self, changes: Changes, found: Found, now: float) -> None:
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

    def _handle_gone(self, changes: Changes, record_id: str, now: float, is_catching_up: bool) -> None:
        if record_id in self.bad:
            self._forget_bad(changes, record_id)
        record = self.records.get(record_id)
        if record is None or record.suspect_since is not None:
            return
        if not record.is_leased or record.backend.is_deleted:  # intended: a drained service signs off
            self._end(changes, record, None)
        elif is_catching_up:
            self._end(changes, record, now)
        else:
            self._lose(changes, record, now)

    def _forget_bad(self, changes: Changes, record_id: str) -> None:
        """Forget a bad record. Its last good version, which may be suspect, remains until it ends on its own."""
        del self.bad[record_id]
        changes.bad.pop(record_id, None)
        good = self.records.get(record_id)
        if good is not None:
            self._write(changes, good)
        else:
            changes.removed.add(record_id)

    def _lose(self, changes: Changes, record: Record, now: float) -> None:
        """Remove a record whose lease has ended. If that completes a burst, put the whole burst back as suspects."""
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

    # Records

    def _end(self, changes: Changes, record: Record, suspect_since: float | None) -> None:
        if suspect_since is not None:
            self._write(changes, replace(record, suspect_since=suspect_since))
            return
        self._remove(record)
        changes.written.pop(record.id, None)
        changes.removed.add(record.id)

    def _write(self, changes: Changes, record: Record) -> None:
        known = self.records.get(record.id)
        if known is not None:
            self._remove(known)
        self._add(record)
        changes.written[record.id] = record
        changes.bad.pop(record.id, None)
        changes.removed.discard(record.id)

    def _add(self, record: Record) -> None:
        self.records[record.id] = record
        if record.suspect_since is None:
            self._serving[record.backend.app] += record.backend.is_serving
            if record.is_leased:
                self._alive.add(record.id)

    def _remove(self, record: Record) -> None:
        del self.records[record.id]
        self._alive.discard(record.id)
        if record.suspect_since is None:
            self._serving[record.backend.app] -= record.backend.is_serving


def _by_local_clock(found: Record, known: Record | None, now: float) -> Record:
    """Set the drain deadline of a record. It counts from when this POP learns of it: clocks of POPs need not agree."""
    if found.drain_seconds is None:
        return found
    if known is not None and known.revision == found.revision and known.backend.drain_deadline is not None:
        deadline = known.backend.drain_deadline
    else:
        deadline = now + found.drain_seconds
    return replace(found, backend=replace(found.backend, drain_deadline=deadline), drain_seconds=None)
