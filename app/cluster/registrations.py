"""Stores registrations of services in etcd: each is a backend whose key is attached to a lease.

A heartbeat repeats the registration and renews the lease. If the lease has expired, a new one is granted and the
backend is written again. The service sets the columns except `healthy` and `deleted`, which belong to operators: their
drain holds as long as the registration does.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from app.cluster.changes import Value, translated_errors
from app.cluster.etcd import EtcdClient
from app.cluster.etcd_errors import EtcdError
from app.cluster.etcd_responses import KeyValue
from app.cluster.records import COLUMNS, TTL_SECONDS, key_of, write_value
from app.cluster.store import EtcdBackendStore, fields_of
from app.domain.model import DRAINING
from app.domain.registration import Granted, Registration

OPERATOR_COLUMNS: Final = ("healthy", "deleted")
"""Columns that a service does not set."""


class EtcdRegistrar:
    """A Registrar that stores registrations in etcd."""

    def __init__(self, etcd: EtcdClient, store: EtcdBackendStore) -> None:
        self._etcd = etcd
        self._store = store

    def register(self, registration: Registration) -> Granted:
        with translated_errors(is_write=True):
            return self._register(registration)

    def _register(self, registration: Registration) -> Granted:
        backend_id = registration.backend.id
        row = self._store.row_of(registration.backend)
        given = {name: row[name] for name in COLUMNS if name not in OPERATOR_COLUMNS}
        given |= {DRAINING: int(registration.is_draining), TTL_SECONDS: registration.ttl_seconds}
        found = self._found(backend_id)
        if found is not None and not found.lease:
            raise KeyError(backend_id)
        lease, ttl_seconds = self._renewed(found, registration.ttl_seconds)
        if not lease:
            lease, ttl_seconds = self._etcd.grant(registration.ttl_seconds)

        def edit(there: KeyValue | None) -> Value:
            if there is not None and not there.lease:
                raise KeyError(backend_id)
            kept = fields_of(there) if there is not None else {}
            return Value(write_value({**kept, **given}), lease)

        if found is not None and found.lease == lease and edit(found).data == found.value:
            return Granted(ttl_seconds, is_new=False, is_renewal=True)
        self._store.change({backend_id: edit})
        return Granted(ttl_seconds, is_new=found is None)

    def _renewed(self, found: KeyValue | None, ttl_seconds: int) -> tuple[int, int]:
        """Renew the lease of a registration. Returns its id and TTL, or (0, 0) if a new lease is needed."""
        if found is None or not found.lease or fields_of(found).get(TTL_SECONDS) != ttl_seconds:
            return 0, 0
        left = self._etcd.keep_alive(found.lease)
        return (found.lease, left) if left > 0 else (0, 0)

    def deregister(self, backend_id: str) -> None:
        with translated_errors():
            found = self._found(backend_id)
        if found is None or not found.lease:
            raise KeyError(backend_id)
        self._store.remove([backend_id])
        with suppress(EtcdError):  # without its key, it expires harmlessly
            self._etcd.revoke(found.lease)

    def _found(self, backend_id: str) -> KeyValue | None:
        key = key_of(backend_id)
        return self._etcd.get([key])[key]
