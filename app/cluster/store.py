"""Operators' changes of backends, written to etcd: what BackendStore is where there are many POPs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from app.cluster.changes import Edit, Value, change
from app.cluster.etcd import EtcdClient, KeyValue
from app.cluster.records import COLUMNS, DRAIN_SECONDS, BadValue, key_of, read_value, write_value
from app.domain.model import Backend
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
        rows: Callable[[], list[dict[str, object]]],
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

    def save(self, backends: Iterable[Backend]) -> None:
        self.change({backend.id: self._saving(backend) for backend in backends})

    def drain(self, ids: Sequence[str], deadline_seconds: float | None) -> None:
        self.change({one: _setting(one, {"deleted": 1, DRAIN_SECONDS: deadline_seconds}) for one in ids})

    def undrain(self, ids: Sequence[str]) -> None:
        self.change({one: _setting(one, {"deleted": 0, DRAIN_SECONDS: None}) for one in ids})

    def remove(self, ids: Sequence[str]) -> None:
        """Delete backends; those with a lease are drained first, so that nobody takes it for a lost lease."""
        self.change({one: _drained_if_leased(one) for one in ids})
        self.change({one: _removing(one) for one in ids})

    def change(self, edits: Mapping[str, Edit]) -> None:
        """Change records by id, and wait for the replica. Raises RepositoryError, and what the edits raise."""
        revision = change(self._etcd, {key_of(backend_id): edit for backend_id, edit in edits.items()})
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


def _drained_if_leased(backend_id: str) -> Edit:
    def edit(found: KeyValue | None) -> Value:
        there = _existing(backend_id, found)
        if not there.lease:
            return Value(there.value, 0)
        return Value(write_value({**fields_of(there), "deleted": 1}), there.lease)

    return edit


def _removing(backend_id: str) -> Edit:
    def edit(found: KeyValue | None) -> None:
        _existing(backend_id, found)

    return edit
