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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import peewee
from loguru import logger

from app.domain.endpoints import BadEndpoint, Endpoint, parse_endpoint
from app.domain.services import BadService, parse_service
from app.domain.stored import ServiceRow, StoredVersion, StoreLocked
from app.outbound.sqlite_errors import store_error
from app.outbound.sqlite_leftovers import left_over, warning_of

BUSY_SECONDS: Final = 5
"""How long a change waits for another writer."""
OPEN_BUSY_SECONDS: Final = 1
"""In WAL mode a reader waits for an exclusive lock only, which may last: a start must not."""
VERSIONS_KEPT: Final = 20
"""Versions kept per endpoint. The deployed version is always kept."""


def _text(stored: bytes) -> str:
    """Decode a text, which need not be UTF-8: one damaged byte must not make the whole table unreadable."""
    return stored.decode(errors="surrogateescape")


class StoredText(peewee.TextField):
    """A text, which another program may have written as a BLOB."""

    def python_value(self, value: object) -> object:
        return _text(value) if isinstance(value, bytes) else value


class EndpointTable(peewee.Model):
    """An endpoint. `deployed` is the number of the version that is serving, or NULL."""

    id = StoredText(primary_key=True)
    name = StoredText()
    domain = StoredText(null=True)
    path = StoredText()
    methods = StoredText()
    timeout_seconds = peewee.FloatField()
    max_concurrency = peewee.IntegerField()
    max_body_bytes = peewee.IntegerField()
    is_enabled = peewee.BooleanField()
    deployed = peewee.IntegerField(null=True)
    last_number = peewee.IntegerField(default=0)
    created_at = peewee.FloatField()
    updated_at = peewee.FloatField()

    class Meta:
        table_name = "endpoints"


class VersionTable(peewee.Model):
    """A version of an endpoint's handler. `deployed_at` is the time of its last deployment."""

    endpoint_id = StoredText()
    number = peewee.IntegerField()
    checksum = StoredText()
    source = StoredText()
    created_at = peewee.FloatField()
    deployed_at = peewee.FloatField(null=True)

    class Meta:
        table_name = "versions"
        primary_key = peewee.CompositeKey("endpoint_id", "number")


class HistoryTable(peewee.Model):
    """The deployments of an endpoint: numbers of versions, oldest first, separated by spaces."""

    endpoint_id = StoredText(primary_key=True)
    numbers = StoredText()

    class Meta:
        table_name = "deployments"


class ServiceTable(peewee.Model):
    """A service. `settings` is a JSON object."""

    name = StoredText(primary_key=True)
    kind = StoredText()
    settings = StoredText()

    class Meta:
        table_name = "services"


_DAMAGE: Final = (BadEndpoint, ValueError, TypeError)
"""What a damaged row raises."""
TABLES: Final = (EndpointTable, VersionTable, HistoryTable, ServiceTable)


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
            self._database.connection().text_factory = _text
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
        found = []
        for row in self._rows(EndpointTable, EndpointTable.id):
            with contextlib.suppress(*_DAMAGE):
                found.append((_endpoint(row), row["deployed"]))
        return found

    def damaged(self) -> dict[str, str]:
        """Return the faults of damaged rows, by "endpoint ID" and "service NAME"."""
        found = {}
        for row in self._rows(EndpointTable, EndpointTable.id):
            try:
                _endpoint(row)
            except _DAMAGE as error:
                found[f"endpoint {_shown(row['id'])}"] = str(error)
        for row in self._rows(ServiceTable, ServiceTable.name):
            try:
                parse_service(_service(row)._asdict())
            except (*_DAMAGE, BadService) as error:
                found[f"service {_shown(row['name'])}"] = str(error)
        return found

    def _rows(self, table: type[peewee.Model], key: peewee.Field) -> list[dict[str, Any]]:
        with self._translated():
            return list(table.select().order_by(key).dicts().execute(self._database))

    def create_endpoint(self, endpoint: Endpoint) -> bool:
        """Add an endpoint. Returns False if the id exists."""
        now = time.time()
        with self._change():
            if self._has(endpoint.id):
                return False
            row = {**_row(endpoint), "created_at": now, "updated_at": now}
            EndpointTable.insert(**row).execute(self._database)
            return True

    def update_endpoint(self, endpoint: Endpoint) -> bool:
        """Replace an endpoint, keeping its versions. Returns False if the id does not exist."""
        row = {**_row(endpoint), "updated_at": time.time()}
        with self._change():
            return bool(EndpointTable.update(**row).where(EndpointTable.id == endpoint.id).execute(self._database))

    def remove_endpoint(self, endpoint_id: str) -> bool:
        """Delete an endpoint and its versions. Returns False if the id does not exist."""
        with self._change():
            VersionTable.delete().where(VersionTable.endpoint_id == endpoint_id).execute(self._database)
            HistoryTable.delete().where(HistoryTable.endpoint_id == endpoint_id).execute(self._database)
            return bool(EndpointTable.delete().where(EndpointTable.id == endpoint_id).execute(self._database))

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
        columns = [column for name, column in VersionTable._meta.fields.items() if name != "source"]
        with self._translated():
            query = VersionTable.select(*columns).where(VersionTable.endpoint_id == endpoint_id)
            rows = list(query.order_by(VersionTable.number).dicts().execute(self._database))
            return [StoredVersion(**row, source="") for row in rows]

    def version(self, endpoint_id: str, number: int) -> StoredVersion | None:
        """Return a version with its source."""
        with self._translated():
            rows = VersionTable.select().where(*_is(endpoint_id, number)).dicts().execute(self._database)
            return next((StoredVersion(**row) for row in rows), None)

    def history(self, endpoint_id: str) -> list[int]:
        """Return the numbers of the deployed versions that are still stored, the latest deployment last."""
        query = HistoryTable.select(HistoryTable.numbers).where(HistoryTable.endpoint_id == endpoint_id)
        with self._translated():
            recorded = list(query.tuples().execute(self._database))
        stored = {version.number: version.deployed_at for version in self.versions(endpoint_id)}
        if not recorded:  # deployed before there was a history
            return sorted((one for one in stored if stored[one] is not None), key=lambda one: (stored[one], one))
        return [number for number in map(int, recorded[0][0].split()) if number in stored]

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
        found = []
        for row in self._rows(ServiceTable, ServiceTable.name):
            with contextlib.suppress(*_DAMAGE):
                found.append(_service(row))
        return found

    def save_service(self, service: ServiceRow) -> None:
        """Insert or replace a service."""
        with self._change():
            row = {"name": service.name, "kind": service.kind, "settings": json.dumps(dict(service.settings))}
            ServiceTable.replace(**row).execute(self._database)

    def remove_service(self, name: str) -> bool:
        with self._change():
            return bool(ServiceTable.delete().where(ServiceTable.name == name).execute(self._database))

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
        """Translate errors of SQLite, the file system and damaged rows into StoreError."""
        try:
            yield
        except (peewee.PeeweeException, sqlite3.Error, OSError, BadEndpoint, ValueError, TypeError) as error:
            raise store_error(error, self._path) from error


def _is(endpoint_id: str, number: int) -> tuple[Any, Any]:
    return VersionTable.endpoint_id == endpoint_id, VersionTable.number == number


def _row(endpoint: Endpoint) -> dict[str, object]:
    row = {name: getattr(endpoint, name) for name in Endpoint.__slots__}
    return {**row, "methods": " ".join(endpoint.methods)}


def _endpoint(row: Mapping[str, Any]) -> Endpoint:
    _require_text(row)
    given = {name: row[name] for name in Endpoint.__slots__}
    return parse_endpoint({**given, "methods": str(row["methods"]).split()})


def _service(row: Mapping[str, Any]) -> ServiceRow:
    _require_text(row)
    return ServiceRow(row["name"], row["kind"], _object(row["settings"]))


def _shown(key: str) -> str:
    return key.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _require_text(row: Mapping[str, Any]) -> None:
    """Raise ValueError for text that was not UTF-8."""
    for name, value in row.items():
        if isinstance(value, str) and any("\ud800" <= one <= "\udfff" for one in value):
            raise ValueError(f"{name}: is not text in UTF-8")


def _object(text: str) -> dict[str, Any]:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {text:.100}")
    return value
