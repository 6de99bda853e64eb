"""Operators' changes of backends, written to etcd: what BackendStore is where there are many POPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from app.cluster.changes import Edit, Value, answered, change
from app.cluster.etcd import MOST_AT_ONCE, EtcdClient
from app.cluster.etcd_responses import KeyValue
from app.cluster.records import BACKENDS, COLUMNS, DRAIN_SECONDS, BadValue, key_of, read_value, write_value
from app.domain.model import DRAINING, Backend
from app.ports import RepositoryError

REPLICA_SECONDS: Final = 2.0
"""For this POP's own replica to have what was written, before the writer is answered."""

Fields = dict[str, Any]


class EtcdBackendStore:
    """A BackendStore. Reads are of this POP's replica, by `rows()`; a writer is answered when its write is there.

    `row_of` makes a row of a backend.
    """

    def __init__(
        self,
        etcd: EtcdClient,
        rows: Callable[[], list[dict[str, Any]]],
        row_of: Callable[[Backend], Mapping[str, object]],
        await_revision: Callable[[int, float], bool],
    ) -> None:
        self._etcd = etcd
        self.rows = rows
        self.row_of = row_of
        self._await_revision = await_revision

    def insert(self, backend: Backend) -> None:
        def edit(found: KeyValue | None) -> Value:
            if found is not None:
                raise KeyError(backend.id)
            return Value(write_value(self._fields(backend)), 0)

        self.change({backend.id: edit})

    def save(self, backends: Iterable[Backend], *, replaces_all: bool = False) -> None:
        edits: dict[str, Edit] = {backend.id: self._saving(backend) for backend in backends}
        others = [one for one in self._stored_ids() if one not in edits] if replaces_all else []
        self.change(edits)
        self._end(others, lambda _: _drained_if_leased)

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        self.change({one: _setting(one, {"deleted": 1, DRAIN_SECONDS: deadline_seconds}) for one in ids})

    def undrain(self, ids: Sequence[str]) -> None:
        self.change({one: _setting(one, {"deleted": 0, DRAIN_SECONDS: None}) for one in ids})

    def remove(self, ids: Sequence[str]) -> None:
        def drained(backend_id: str) -> Edit:
            return lambda found: _drained_if_leased(_existing(backend_id, found))

        self._end(ids, drained)

    def _stored_ids(self) -> list[str]:
        """Return the ids of all records, as etcd has them: the replica may lag, and knows no bad ones by name."""
        with answered("nothing was changed"):
            keys = [item.key for item in self._etcd.snapshot(BACKENDS).items]
        return [key.removeprefix(BACKENDS.encode()).decode(errors="surrogateescape") for key in keys]

    def _end(self, ids: Sequence[str], drained: Callable[[str], Edit]) -> None:
        """Delete backends; those with a lease are drained first, so that nobody takes it for a lost lease."""
        self.change({one: drained(one) for one in ids})
        self.change({one: _nothing for one in ids})

    def change(self, edits: Mapping[str, Edit]) -> None:
        """Change records by id, and wait for the replica. Raises RepositoryError, and what the edits raise.

        Many are changed one part after the other, each all or nothing.
        """
        revision, left = 0, [(key_of(backend_id), edit) for backend_id, edit in edits.items()]
        while left:
            part, left = left[:MOST_AT_ONCE], left[MOST_AT_ONCE:]
            revision = change(self._etcd, dict(part))
        self._await_revision(revision, REPLICA_SECONDS)

    def _saving(self, backend: Backend) -> Edit:
        def edit(found: KeyValue | None) -> Value:
            kept, lease = (fields_of(found), found.lease) if found is not None else ({}, 0)
            return Value(write_value({**kept, **self._fields(backend)}), lease)

        return edit

    def _fields(self, backend: Backend) -> Fields:
        row = self.row_of(backend)
        deadline = backend.drain_deadline
        seconds = None if deadline is None else max(0.0, deadline - time.time())
        return {**{name: row[name] for name in COLUMNS}, DRAIN_SECONDS: seconds}


def fields_of(found: KeyValue) -> Fields:
    """Return what a record says. Raises RepositoryError when it is not ours to change."""
    try:
        return read_value(found.value)
    except BadValue as error:
        raise RepositoryError(f"{found.key.decode(errors='backslashreplace')} {error}: nothing was changed") from None


def _existing(backend_id: str, found: KeyValue | None) -> KeyValue:
    if found is None:
        raise KeyError(backend_id)
    return found


def _setting(backend_id: str, fields: Fields) -> Edit:
    def edit(found: KeyValue | None) -> Value:
        there = _existing(backend_id, found)
        return Value(write_value({**fields_of(there), **fields}), there.lease)

    return edit


def _drained_if_leased(found: KeyValue | None) -> Value | None:
    """An Edit."""
    if found is None or not found.lease:
        return None if found is None else Value(found.value, 0)
    try:
        fields = read_value(found.value)
    except BadValue:  # nobody serves by it
        return Value(found.value, found.lease)
    return Value(write_value({**fields, DRAINING: 1}), found.lease)


def _nothing(found: KeyValue | None) -> None:
    """An Edit: there is to be nothing."""
