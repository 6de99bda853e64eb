"""The gateway of one edge: request handlers, services and the watch on both, built, restored and stopped here."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import gevent
from loguru import logger

from actors.handlers import HandlersActor
from actors.runtime import Address, AskTimeoutError, stop
from actors.services.supervision import Services
from actors.supervisor import Supervisor
from app.config import Config
from app.domain.handler_table import HandlerTable
from app.domain.stored import StoreError
from app.domain.words import counted
from app.gateway.blocking import BlockingWatch
from app.gateway.clients import ServiceClients
from app.gateway.deployment import Deployment
from app.gateway.dispatch import Dispatch
from app.gateway.metrics import GatewayView
from app.gateway.module_garbage import ModuleGarbage
from app.gateway.router import Router
from app.gateway.service_deployment import ServiceDeployment
from app.gateway.workers import Workers
from app.inbound.http.handling import Handling
from app.outbound.peewee_gateway import SqliteGatewayStore
from app.outbound.service_connectors import connector
from app.outbound.worker_thread import WorkerThread

_STOP_SECONDS: Final = 1.0
ROWS_LOGGED: Final = 20
RETRY_SECONDS: Final = 5.0
"""Between two attempts to restore what is deployed."""


class EdgeGateway:
    """Responds to requests in this process. `on_deploy` gets the result of each deployment.

    No request handler runs before `start_actor`; none is restored before `start_for`.
    """

    def __init__(self, database: Path, supervisor: Supervisor, on_deploy: Callable[[str], None]) -> None:
        self._supervisor = supervisor
        self._handlers = Address("handlers")
        store, thread = SqliteGatewayStore(database), WorkerThread()
        self.deployment = Deployment(store, thread.run, self._handlers, on_deploy)
        self.services = ServiceDeployment(store, thread.run, Services(supervisor, connector))
        self.view = GatewayView(self._handlers, self.services.services.views)
        self._workers = Workers()
        self.requests = Handling(
            Dispatch(self._handlers), ServiceClients(self.services.services.address), self._workers
        )
        self._blocking = BlockingWatch(self.view.count_block, self._take_out_soon, self._workers)
        self._has_started = False
        self._store, self._run = store, thread.run
        self._to_restore = [self.services.restore, self.deployment.restore]
        self._retry: gevent.Greenlet | None = None
        self.restore_error = ""
        """Why endpoints and services are not restored yet; empty once they are."""
        self.damaged_rows: dict[str, str] = {}
        """The faults of rows of the file that were left out, by "endpoint ID" or "service NAME"."""

    def start_actor(self) -> None:
        """Start the actor that owns the request handlers, with none."""
        table, garbage = HandlerTable(Router(())), ModuleGarbage()
        self._supervisor.supervise(self._handlers, lambda: HandlersActor.start(table, garbage.dropped))

    def start_for(self, config: Config) -> None:
        """Restore what was deployed, once a frontend asks for it or the admin API can change it. May be repeated."""
        is_wanted = config.admin_listen_addr is not None or any(frontend.gateway for frontend in config.frontends)
        if self._has_started or not is_wanted:
            return
        self._has_started = True
        self._blocking.start()
        self._restore()

    def _restore(self) -> None:
        """Restore the services and what is deployed, each row that is sound; again later if the file cannot be read."""
        try:
            self.damaged_rows = self._run(self._store.damaged)
            while self._to_restore:
                self._to_restore[0]()
                self._to_restore.pop(0)
        except (StoreError, AskTimeoutError) as error:
            if self.restore_error != str(error):
                logger.error("gateway: {}; trying again every {:g} s", error, RETRY_SECONDS)
            self.restore_error = str(error)
            self._retry = gevent.spawn_later(RETRY_SECONDS, self._restore)
            return
        self._log_damage()
        if self.restore_error:
            logger.info("gateway: restored")
        self.restore_error = ""

    def _log_damage(self) -> None:
        for row, fault in [*self.damaged_rows.items()][:ROWS_LOGGED]:
            logger.error("gateway: {} is damaged and left out: {}", row, fault)
        if len(self.damaged_rows) > ROWS_LOGGED:
            more = counted(len(self.damaged_rows) - ROWS_LOGGED, "more row")
            logger.error("gateway: {} damaged and left out; /ready names all of them", more)

    def _take_out_soon(self, endpoint_id: str, number: int) -> None:
        """Take a condemned version out of service, in a greenlet: the heartbeat must not wait."""
        gevent.spawn(self._take_out, endpoint_id, number)

    def _take_out(self, endpoint_id: str, number: int) -> None:
        try:
            self.deployment.take_out(endpoint_id, number)
        finally:  # deployed again, it begins anew; still in service, because the store failed, it is tried again
            self._blocking.forgive(endpoint_id, number)

    def damaged(self, kind: str) -> dict[str, str]:
        """Return the faults of damaged rows of a kind, `endpoint` or `service`, by id.

        Raises StoreError until they are restored.
        """
        if self.restore_error:
            raise StoreError(f"not restored yet: {self.restore_error}")
        return {row.removeprefix(f"{kind} "): fault for row, fault in self.damaged_rows.items() if row.startswith(kind)}

    def look_for_damage(self) -> None:
        """Look again, after a change that may have removed or replaced a damaged row."""
        if self.damaged_rows:
            with suppress(StoreError):
                self.damaged_rows = self._run(self._store.damaged)

    def stop(self) -> None:
        """End the services and the actor."""
        if self._has_started:
            self._blocking.stop()
        if self._retry is not None:
            self._retry.kill(block=False)
        self.services.services.stop_all()
        self._supervisor.dismiss(self._handlers)
        stop((self._handlers,), timeout_s=_STOP_SECONDS)
