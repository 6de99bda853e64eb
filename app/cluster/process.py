"""The replicator's process, built here: it follows etcd into the routing database and takes changes of backends."""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from typing import TypeVar

import msgspec
from loguru import logger

from app.admin import backends, registrations
from app.admin.access import Authenticator
from app.admin.api import Api
from app.cluster.etcd import Credentials, EtcdClient
from app.cluster.registrations import EtcdRegistrar
from app.cluster.replicator import Replicator
from app.cluster.store import EtcdBackendStore
from app.config import Config, variable
from app.domain.replica import shown
from app.inbound.admin_server import AdminServer
from app.outbound.file_lock import FileLock
from app.outbound.peewee_backends import row_of
from app.outbound.peewee_replica import SqliteReplica
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.regular_file import read_regular, require_regular
from app.outbound.replica_file import (
    MAX_LISTED,
    ReplicaStatus,
    read_replica_status,
    replica_file,
    write_replica_status,
)
from app.outbound.worker_thread import WorkerThread
from app.ports import BackendTable

T = TypeVar("T")


class BadEtcdFiles(Exception):
    """The password or certificate files for etcd cannot be used."""


class Replication:
    """A replicator and its listener. `write_line` gets audit lines."""

    def __init__(self, config: Config, write_line: Callable[[msgspec.Struct], None]) -> None:
        """Build everything, open nothing. Raises BadEtcdFiles."""
        self._config = config
        etcd = EtcdClient(config.etcd_endpoints, _credentials(config), _tls(config))
        self._thread, self._tokens_thread = WorkerThread(), WorkerThread()
        file = config.db_path.resolve()  # whatever link it goes by, as SQLite's own files
        self._lock = FileLock(file.with_name(f"{file.name}.replicator.lock"))
        self._status_file = replica_file(config.db_path)
        former = read_replica_status(self._status_file) or ReplicaStatus()
        self.replicator = Replicator(
            etcd, lambda: SqliteReplica(config.db_path), self._thread.run, self._report, former.contact_at
        )
        store = EtcdBackendStore(etcd, self._rows, row_of, self.replicator.await_revision)
        tokens = SqliteTokenStore(config.gateway_db_path)
        api = Api(
            Authenticator(lambda: self._tokens_thread.run(tokens.load)), write_line, on_response=lambda _status: None
        )
        backends.add_routes(api, _access(store))
        registrations.add_routes(api, EtcdRegistrar(etcd, store))
        self._api = api
        self.server = AdminServer(config.replicator_listen_addr)

    def start(self) -> None:
        """Listen, then follow etcd. Raises BindError, Held."""
        holder = f"the replicator with process id {os.getpid()}, which listens on {self._config.replicator_listen_addr}"
        self._lock.take(holder)
        self.server.start(self._api.wsgi)
        self.replicator.start()
        logger.bind(replicator=str(self.server.address)).info(
            "replicating {} from {}; changes on {}",
            self._config.db_path, ", ".join(self._config.etcd_endpoints), self.server.address,
        )  # fmt: skip

    def stop(self) -> None:
        """Close the listener, and the routing database."""
        self.server.stop()
        self.replicator.stop()
        self._lock.release()
        logger.info("stopped")

    def _report(self, replicator: Replicator) -> None:
        suspects, bad = replicator.replica.suspects, sorted(replicator.replica.bad)
        status = ReplicaStatus(
            revision=replicator.position.revision if replicator.position is not None else 0,
            contact_at=replicator.contact_at,
            endpoint=replicator.endpoint,
            error=replicator.error,
            is_held=replicator.is_held,
            records=len(replicator.replica.records),
            suspect_count=len(suspects),
            suspects=sorted(suspects)[:MAX_LISTED],
            bad_count=len(bad),
            bad=[shown(one) for one in bad[:MAX_LISTED]],
        )
        self._thread.run(write_replica_status, self._status_file, status)

    def _rows(self) -> list[dict[str, object]]:
        records = self.replicator.replica.records
        return [row_of(records[one].backend) for one in sorted(records)]


def _access(store: EtcdBackendStore) -> backends.StoreAccess:
    """Return access to the store on the calling greenlet: it waits for sockets, and does not block the event loop."""

    def access(work: Callable[[BackendTable], T], *, creates_store: bool = False) -> T:
        return work(store)

    return access


def _credentials(config: Config) -> Credentials | None:
    if config.etcd_password_file is None:
        return None
    try:
        return Credentials(config.etcd_user, read_regular(config.etcd_password_file).decode().strip())
    except (OSError, UnicodeDecodeError) as error:
        path = str(config.etcd_password_file)
        raise BadEtcdFiles(f"{variable('etcd_password_file')}={path!r}: {error}") from None


def _tls(config: Config) -> ssl.SSLContext | None:
    if not any(endpoint.startswith("https:") for endpoint in config.etcd_endpoints):
        return None
    for name in ("etcd_tls_ca", "etcd_tls_cert", "etcd_tls_key"):
        path = getattr(config, name)
        try:
            if path is not None:
                require_regular(path)  # the open of a FIFO would never return
        except OSError as error:
            raise BadEtcdFiles(f"{variable(name)}={str(path)!r}: {error}") from None
    try:
        context = ssl.create_default_context(cafile=config.etcd_tls_ca)
    except OSError as error:
        raise BadEtcdFiles(f"{variable('etcd_tls_ca')}={str(config.etcd_tls_ca)!r}: {error}") from None
    if config.etcd_tls_cert is not None:
        try:
            context.load_cert_chain(config.etcd_tls_cert, config.etcd_tls_key)
        except OSError as error:
            raise BadEtcdFiles(f"{variable('etcd_tls_cert')}={str(config.etcd_tls_cert)!r}: {error}") from None
    return context
