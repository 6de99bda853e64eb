"""A BackendStore that writes operators' changes of backends to etcd."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from app.cluster.changes import Edit, Value, change, translated_errors
from app.cluster.etcd import MAX_KEYS, EtcdClient
from app.cluster.etcd_responses import KeyValue
from app.cluster.records import BACKENDS, COLUMNS, DRAIN_SECONDS, BadValue, key_of, read_value, write_value
from app.domain.model import DRAINING, Backend
from app.domain.replica import shown
from app.ports import RepositoryConflict, RepositoryError

REPLICA_SECONDS: Final = 2.0
"""Longest wait for this POP's replica to reflect a write before the call returns."""

Fields = dict[str, Any]


class EtcdBackendStore:
    """A BackendStore. `rows()` reads the replica of this POP. Writes return when the replica reflects them.

    `row_of` converts a backend to a row.
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
        """Delete backends, and records that are none, by the names under which they are listed."""

        def drained(backend_id: str) -> Edit:
            return lambda found: _drained_if_leased(_existing(backend_id, found))

        try:
            self._end(ids, drained)
        except KeyError:
            self._end([self._id_shown_as(one) for one in ids], drained)

    def _id_shown_as(self, name: str) -> str:
        """Return the id of the record that is listed under a name. Raises KeyError, RepositoryConflict."""
        stored = self._stored_ids()
        found = [name] if name in stored else [one for one in stored if shown(one) == name]
        if len(found) > 1:
            raise RepositoryConflict(f"{len(found)} records are listed as {name}: remove them with etcdctl")
        if not found:
            raise KeyError(name)
        return found[0]

    def _stored_ids(self) -> list[str]:
        """Return the ids of all records in etcd. The replica may lag and lacks bad records."""
        with translated_errors():
            keys = [item.key for item in self._etcd.snapshot(BACKENDS).items]
        return [key.removeprefix(BACKENDS.encode()).decode(errors="surrogateescape") for key in keys]

    def _end(self, ids: Sequence[str], drained: Callable[[str], Edit]) -> None:
        """Delete backends. Those with a lease are drained first, so that replicators do not suspect a lost lease."""
        self.change({one: drained(one) for one in ids})
        self.change({one: _deleted for one in ids})

    def change(self, edits: Mapping[str, Edit]) -> None:
        """Change records by id, and wait for the replica. Raises RepositoryError and the errors of the edits.

        Above MAX_KEYS, the change is split into parts, each all or none.
        """
        revision, keyed = 0, [(key_of(backend_id), edit) for backend_id, edit in edits.items()]
        for first in range(0, len(keyed), MAX_KEYS):
            try:
                revision = change(self._etcd, dict(keyed[first : first + MAX_KEYS]))
            except RepositoryError as error:
                if not first:
                    raise
                raise type(error)(f"{error}; {first} of {len(keyed)} backends were changed before") from None
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
    """Return the fields of a record. Raises RepositoryConflict if they cannot be read, so that they are not changed."""
    try:
        return read_value(found.value)
    except BadValue as error:
        key = found.key.decode(errors="backslashreplace")
        raise RepositoryConflict(f"{key} {error}: nothing was changed; DELETE removes it") from None


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
    """Drain a record that has a lease (an Edit)."""
    if found is None or not found.lease:
        return None if found is None else Value(found.value, 0)
    try:
        fields = read_value(found.value)
    except BadValue:  # no edge uses it
        return Value(found.value, found.lease)
    return Value(write_value({**fields, DRAINING: 1}), found.lease)


def _deleted(found: KeyValue | None) -> None:
    """Delete the record (an Edit)."""
