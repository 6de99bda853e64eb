"""The gateway's SQLite file through peewee: endpoints, versions of their sources, and services.

Use one object per file, from one thread (the caller's WorkerThread). Only the owner can read the file, because settings
of services contain passwords. Missing tables are created; other tables in the file are left alone.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import peewee
from loguru import logger

from app.domain.endpoints import Endpoint
from app.domain.services import parse_service
from app.domain.stored import RowDamaged, ServiceRow, StoredVersion, StoreLocked
from app.outbound.gateway_rows import (
    TABLES,
    EndpointTable,
    HistoryTable,
    Row,
    ServiceTable,
    VersionTable,
    decoded,
    endpoint_of,
    endpoint_row,
    service_of,
    shown,
    sorted_out,
    version_of,
)
from app.outbound.sqlite_errors import store_error
from app.outbound.sqlite_leftovers import left_over, warning_of

BUSY_SECONDS: Final = 5
"""How long a change waits for another writer."""
OPEN_BUSY_SECONDS: Final = 1
"""In WAL mode a reader waits for an exclusive lock only, which may last: a start must not."""
VERSIONS_KEPT: Final = 20
"""Versions kept per endpoint. The deployed version is always kept."""


def checksum_of(source: str) -> str:
    """Return the SHA-256 of a source in hex."""
    return hashlib.sha256(source.encode()).hexdigest()


class SqliteGatewayStore:
    """Reads and writes the file. Every method is one transaction and may raise StoreError."""

    def __init__(self, path: Path) -> None:
        """Open or create the file. If it is locked, each call tries to open it, and raises StoreLocked."""
        self._path = path
        # thread_safe=False: the connection belongs to this object, not to the calling greenlet.
        self._database = peewee.SqliteDatabase(
            str(path),
            pragmas={"journal_mode": "wal"},
            autoconnect=False,
            thread_safe=False,
            check_same_thread=False,
            timeout=OPEN_BUSY_SECONDS,
        )
        with contextlib.suppress(StoreLocked), self._errors_translated():
            os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
            left = left_over(path)
            if left is not None:
                logger.warning("{}", warning_of(path, left))
            self._open()

    def _open(self) -> None:
        """Connect, and create what is missing. A file that is complete is opened while another program changes it."""
        try:
            self._database.connect()
            self._database.connection().text_factory = decoded
            if not {table._meta.table_name for table in TABLES}.issubset(self._database.get_tables()):
                self._create_tables()
            self._database.execute_sql(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
        except BaseException:
            self.close()
            raise

    def _create_tables(self) -> None:
        with self._database.atomic("IMMEDIATE"):
            for table in TABLES:
                peewee.SchemaManager(table, self._database).create_all(safe=True)

    def close(self) -> None:
        with contextlib.suppress(peewee.PeeweeException, sqlite3.Error):
            self._database.close()

    # Endpoints

    def endpoints(self) -> list[tuple[Endpoint, int | None]]:
        """Return every endpoint with the number of its deployed version, ordered by id. Leaves damaged rows out."""
        return sorted_out(self._rows(EndpointTable.select().order_by(EndpointTable.id)), endpoint_of)[0]

    def damaged(self) -> dict[str, str]:
        """Return the faults of damaged rows, by "endpoint ID", "version N of endpoint ID" and "service NAME"."""
        endpoints = self._rows(EndpointTable.select().order_by(EndpointTable.id))
        ids = {row["id"] for row in endpoints}
        versions = [row for row in self._version_rows() if row["endpoint_id"] in ids]
        services = self._rows(ServiceTable.select().order_by(ServiceTable.name))
        return {
            **{f"endpoint {shown(row['id'])}": fault for row, fault in sorted_out(endpoints, endpoint_of)[1]},
            **{
                f"version {shown(row['number'])} of endpoint {shown(row['endpoint_id'])}": fault
                for row, fault in sorted_out(versions, version_of)[1]
            },
            **{f"service {shown(row['name'])}": fault for row, fault in sorted_out(services, _valid_service)[1]},
        }

    def _rows(self, query: Any) -> list[dict[str, Any]]:
        with self._translated():
            return list(query.dicts().execute(self._database))

    def create_endpoint(self, endpoint: Endpoint) -> bool:
        """Add an endpoint. Returns False if the id exists."""
        now = time.time()
        with self._change():
            if self._has(endpoint.id):
                return False
            row = {**endpoint_row(endpoint), "created_at": now, "updated_at": now}
            EndpointTable.insert(**row).execute(self._database)
            return True

    def update_endpoint(self, endpoint: Endpoint) -> bool:
        """Replace an endpoint, keeping its versions. Returns False if the id does not exist."""
        row = {**endpoint_row(endpoint), "updated_at": time.time()}
        with self._change():
            return bool(EndpointTable.update(**row).where(EndpointTable.id == endpoint.id).execute(self._database))

    def remove_endpoint(self, endpoint_id: str) -> bool:
        """Delete an endpoint and its versions. Returns False if the id does not exist."""
        with self._change():
            self._remove(VersionTable.endpoint_id, endpoint_id)
            self._remove(HistoryTable.endpoint_id, endpoint_id)
            return self._remove(EndpointTable.id, endpoint_id)

    # Versions

    def add_version(self, endpoint_id: str, source: str) -> StoredVersion | None:
        """Store a source under the next number, which is never reused. Returns None if the endpoint does not exist.

        Deletes the oldest versions beyond VERSIONS_KEPT.
        """
        with self._change():
            known = EndpointTable.select(EndpointTable.last_number, EndpointTable.deployed).where(
                EndpointTable.id == endpoint_id
            )
            found = list(known.tuples().execute(self._database))
            if not found:
                return None
            [(last, deployed)] = found
            if not isinstance(last, int) or last < 0:
                raise RowDamaged(f"endpoint {endpoint_id} is damaged: last_number: is not a whole number of 0 or more")
            version = StoredVersion(endpoint_id, last + 1, checksum_of(source), time.time(), None, source)
            VersionTable.insert(**version._asdict()).execute(self._database)
            EndpointTable.update(last_number=last + 1).where(EndpointTable.id == endpoint_id).execute(self._database)
            self._delete_old(endpoint_id, deployed)
            return version

    def _delete_old(self, endpoint_id: str, deployed: int | None) -> None:
        numbers = (
            VersionTable.select(VersionTable.number)
            .where(VersionTable.endpoint_id == endpoint_id)
            .order_by(VersionTable.number.desc())
        )
        old = [number for (number,) in numbers.tuples().execute(self._database)][VERSIONS_KEPT:]
        for number in old:
            if number != deployed:
                VersionTable.delete().where(*_is(endpoint_id, number)).execute(self._database)

    def versions(self, endpoint_id: str) -> list[StoredVersion]:
        """Return the stored versions of an endpoint, oldest first, without their sources."""
        return sorted_out(self._version_rows(VersionTable.endpoint_id == endpoint_id), version_of)[0]

    def damaged_versions(self, endpoint_id: str) -> dict[str, str]:
        """Return the faults of an endpoint's damaged versions, by number."""
        damaged = sorted_out(self._version_rows(VersionTable.endpoint_id == endpoint_id), version_of)[1]
        return {shown(row["number"]): fault for row, fault in damaged}

    def _version_rows(self, *conditions: Any) -> list[dict[str, Any]]:
        columns = [column for name, column in VersionTable._meta.fields.items() if name != "source"]
        query = VersionTable.select(*columns).order_by(VersionTable.endpoint_id, VersionTable.number)
        return self._rows(query.where(*conditions) if conditions else query)

    def version(self, endpoint_id: str, number: int) -> StoredVersion | None:
        """Return a version with its source. Raises RowDamaged."""
        try:
            rows = self._rows(VersionTable.select().where(*_is(endpoint_id, number)))
            return next(map(version_of, rows), None)
        except ValueError as error:
            raise RowDamaged(f"version {number} of endpoint {endpoint_id} is damaged: {error}") from None

    def history(self, endpoint_id: str) -> list[int]:
        """Return the numbers of the deployed versions that are still stored, the latest deployment last."""
        query = HistoryTable.select(HistoryTable.numbers).where(HistoryTable.endpoint_id == endpoint_id)
        with self._translated():
            recorded = list(query.tuples().execute(self._database))
        stored = {version.number: version.deployed_at for version in self.versions(endpoint_id)}
        words = str(recorded[0][0]).split() if recorded else [""]
        if not all(map(str.isdecimal, words)):  # deployed before there was a history, or it is damaged
            return sorted((one for one in stored if stored[one] is not None), key=lambda one: (stored[one], one))
        return [number for number in map(int, words) if number in stored]

    def set_deployed(
        self, endpoint_id: str, number: int | None, at: float, history: Sequence[int] | None = None
    ) -> bool:
        """Record the deployed version, and the history (None: it stays as it is).

        Returns False if the endpoint or version does not exist.
        """
        with self._change():
            if number is not None and not VersionTable.update(deployed_at=at).where(*_is(endpoint_id, number)).execute(
                self._database
            ):
                return False
            update = EndpointTable.update(deployed=number, updated_at=at).where(EndpointTable.id == endpoint_id)
            if not update.execute(self._database):
                return False
            if history is not None:
                numbers = " ".join(map(str, history[-VERSIONS_KEPT:]))
                HistoryTable.replace(endpoint_id=endpoint_id, numbers=numbers).execute(self._database)
            return True

    # Services

    def services(self) -> list[ServiceRow]:
        """Return every service, ordered by name. Leaves damaged rows out."""
        return sorted_out(self._rows(ServiceTable.select().order_by(ServiceTable.name)), service_of)[0]

    def save_service(self, service: ServiceRow) -> None:
        """Insert or replace a service."""
        with self._change():
            row = {"name": service.name, "kind": service.kind, "settings": json.dumps(dict(service.settings))}
            ServiceTable.replace(**row).execute(self._database)

    def remove_service(self, name: str) -> bool:
        with self._change():
            return self._remove(ServiceTable.name, name)

    def _remove(self, column: Any, key: str) -> bool:
        """Delete the rows with a key, which is compared as it is shown: it may be stored as a BLOB, or be damaged."""
        rowid = peewee.SQL("rowid")
        rows = column.model.select(rowid, column).tuples().execute(self._database)
        found = [number for number, stored in rows if shown(stored) == key]
        return bool(column.model.delete().where(rowid.in_(found)).execute(self._database))

    def _has(self, endpoint_id: str) -> bool:
        query = EndpointTable.select(EndpointTable.id).where(EndpointTable.id == endpoint_id)
        return bool(list(query.tuples().execute(self._database)))

    @contextlib.contextmanager
    def _change(self) -> Iterator[None]:
        """Lock out other writers from the start. Upgrading a read to a write would fail instead of waiting."""
        with self._translated(), self._database.atomic("IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Open the file unless it is open, and translate errors as below."""
        with self._errors_translated():
            if self._database.is_closed():
                self._open()
            yield

    @contextlib.contextmanager
    def _errors_translated(self) -> Iterator[None]:
        """Translate errors of SQLite and the file system into StoreError."""
        try:
            yield
        except (peewee.PeeweeException, sqlite3.Error, OSError, ValueError, TypeError) as error:
            raise store_error(error, self._path) from error


def _is(endpoint_id: str, number: int) -> tuple[Any, Any]:
    return VersionTable.endpoint_id == endpoint_id, VersionTable.number == number


def _valid_service(row: Row) -> object:
    return parse_service(service_of(row)._asdict())
