"""Puts the edge together: the only place that knows every concrete class. Starts in order, stops in reverse."""

from __future__ import annotations

import os
import random
import resource
import sys
import time
from pathlib import Path

import gevent
from gevent.event import Event
from loguru import logger

from actors.bindings import SHARDS_A_SWEEP, BindingsActor
from actors.messages import (
    Bound,
    Count,
    Elect,
    ForgetBackends,
    ReplaceBackends,
)
from actors.metrics import MetricsActor
from actors.registry import RegistryActor
from actors.runtime import Address, GeventActor, GeventFuture, stop_all, tell
from actors.supervisor import EXIT_CODE, Supervisor
from app.config import PIPES, Config
from app.domain import metric_names as names
from app.domain.affinity import AffinityTable
from app.domain.election import GeoElection
from app.domain.limits import ClientLimits
from app.domain.measures import Measures
from app.domain.single_flight import SingleFlight
from app.edge_view import EdgeView
from app.garbage import IDLE_COLLECTION_SECONDS, collect_when_idle, tame_garbage_collector
from app.housekeeping import (
    GEO_TICK_SECONDS,
    SNAPSHOT_SECONDS,
    BindingKeeper,
    BindingSweeper,
    ConnectionSweeper,
    GeoWatcher,
    Housekeeping,
    sweep_seconds,
)
from app.inbound.access_log import AccessLog
from app.inbound.connections import Connections
from app.inbound.listener import BindError, Listener
from app.inbound.pipes import PipePool
from app.inbound.proxy_header import TrustedProxies
from app.inbound.status_http import StatusServer
from app.inbound.tcp_server import TcpOptions, TcpServer
from app.loop_pauses import LoopPauses
from app.outbound.backend_watcher import BackendWatcher
from app.outbound.binding_file import BindingFile
from app.outbound.json_log import JsonLog, rfc3339
from app.outbound.maxmind_geo import SHIPPED_DATABASE, MaxmindGeo
from app.outbound.peewee_backends import SqliteBackendRepository
from app.ports import BackendSet
from app.proxy_service import Actors, ProxyService

THREAD_SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from the event loop (CPython's default is 5 ms)."""

LAST_SNAPSHOT_SECONDS = 30.0
"""For writing the bindings at exit."""


def open_geo(setting: str) -> MaxmindGeo | None:
    """Return the country database that GEOIP_PATH asks for, None for `off`. Raises GeoDatabaseError."""
    if setting.strip().lower() == "off":
        return None
    return MaxmindGeo(Path(setting) if setting else SHIPPED_DATABASE)


class Edge:
    """One edge. `start` opens its doors, `run` waits for a signal to `stop`."""

    def __init__(self, config: Config, log: JsonLog) -> None:
        """Build everything, open nothing but the country database. Raises GeoDatabaseError."""
        self.config = config
        self._log = log
        self._exit = Event()
        self.exit_code = 0

        self.actors = Actors(Address("registry"), Address("bindings"), Address("metrics"))
        self._supervisor = Supervisor(on_give_up=self._give_up)
        self.geo = open_geo(config.geoip_path)
        self.connections = Connections()
        self.watcher = BackendWatcher(
            SqliteBackendRepository(config.db_path, config.app, pause=_sleep_in_thread),
            config.db_reload_secs,
            on_change=self._backends_changed,
            on_load=lambda result: self._count(names.RELOADS, result),
        )
        self.access_log = AccessLog(log.write_access, rfc3339)
        self.server = TcpServer(
            TcpOptions(
                max_connections=config.effective_max_connections(),
                connect_timeout_seconds=config.connect_timeout_secs,
                connect_attempts=config.connect_attempts,
                proxy_version={"off": None, "v1": 1, "v2": 2}[config.send_proxy],
            ),
            ProxyService(
                self.actors,
                self.geo,
                pool=config.app or "default",
                ipv6_prefix=config.binding_ipv6_prefix,
                has_client_limits=config.max_connections_per_client > 0 or config.connection_rate_per_client > 0,
            ),
            self.connections,
            TrustedProxies(config.proxy_protocol_from),
            self.access_log,
            PipePool(PIPES),
        )
        self._bindings = AffinityTable(config.binding_ttl_secs, config.binding_max)
        self._sweeper = ConnectionSweeper(config, self.connections, self.watcher, self.actors, self.access_log)
        self._keeper = (
            BindingKeeper(BindingFile(config.binding_snapshot), self.actors) if config.binding_snapshot else None
        )
        self._housekeeping = Housekeeping(on_error=lambda where: self._count(names.INTERNAL_ERRORS, where))
        self._pauses = LoopPauses()
        self.listeners: list[Listener] = []
        self.view = EdgeView(
            self.actors,
            self._supervisor,
            self.connections,
            self.watcher,
            self.geo,
            self._pauses,
            log,
            self._sweeper.report_traffic,
        )
        self.status = StatusServer(config.metrics_listen_addr, self.view.readiness, self.view.metrics)

    # Starting

    def start(self) -> None:
        """Start the actors, load what they need, open the doors. Raises BindError: the process is to end then."""
        sys.setswitchinterval(THREAD_SWITCH_SECONDS)
        self._start_actors()
        self._restore_bindings()
        self.watcher.start()
        try:
            self.status.start()
            self.listeners = [
                Listener(address, self.server.accept, lambda code: self._count(names.ACCEPT_ERRORS, code))
                for address in self.config.listen_addr
            ]
        except BindError:
            self.status.stop()
            raise
        self._start_housekeeping()
        tame_garbage_collector()
        self._pauses.start()
        for listener in self.listeners:
            listener.start()
        self.view.listeners = [listener.address for listener in self.listeners]
        addresses = [str(listener.address) for listener in self.listeners]
        logger.bind(listeners=addresses, metrics=str(self.status.address)).info(
            "listening on {}; metrics on {}", ", ".join(addresses), self.status.address
        )

    def _start_actors(self) -> None:
        config, table = self.config, self._bindings
        limits = ClientLimits(config.max_connections_per_client, config.connection_rate_per_client)
        elections: SingleFlight[GeventFuture[Bound | Elect]] = SingleFlight()
        measures = Measures()

        def start_registry() -> object:
            chance = random.Random()
            election = GeoElection(config.region or None, chance, spills_at_soft_limit=config.soft_limit_spill)
            return RegistryActor.start(election, self.watcher.current.backends, self.connections.leases())

        def start_bindings() -> object:
            limits.recount(self.connections.admissions())
            return BindingsActor.start(table, limits, elections)

        GeventActor.on_handler_error = staticmethod(lambda name: self._count(names.INTERNAL_ERRORS, name))
        self._supervisor.supervise(self.actors.metrics, lambda: MetricsActor.start(measures))
        self._supervisor.supervise(self.actors.registry, start_registry)
        self._supervisor.supervise(self.actors.bindings, start_bindings)

    def _restore_bindings(self) -> None:
        if self.config.binding_snapshot is None:
            return
        try:
            restored = BindingFile(self.config.binding_snapshot).read(self.config.binding_ttl_secs)
        except (OSError, ValueError) as error:
            logger.error("bindings not restored: {}", error)
            return
        for binding in restored:
            self._bindings.restore(binding)
        logger.info("{} bindings restored", len(restored))

    def _start_housekeeping(self) -> None:
        every = self._housekeeping.every
        every(sweep_seconds(self.config), "connection sweep", self._sweeper.sweep)
        bindings = BindingSweeper(self.config, self.actors, SHARDS_A_SWEEP, self._bindings.shard_count)
        every(bindings.turn_seconds, "binding sweep", bindings.sweep)
        every(IDLE_COLLECTION_SECONDS, "garbage collection", lambda: collect_when_idle(lambda: not self.connections))
        if self._keeper is not None:
            every(SNAPSHOT_SECONDS, "binding snapshot", self._keeper.write)
        if self.geo is not None:
            geo = GeoWatcher(self.geo, on_reload=lambda result: self._count(names.GEO_RELOADS, result))
            every(GEO_TICK_SECONDS, "country database watch", geo.look)

    def _backends_changed(self, found: BackendSet) -> None:
        tell(self.actors.registry, ReplaceBackends(found.backends))
        tell(self.actors.metrics, ForgetBackends(frozenset(backend.id for backend in found.backends)))

    def _count(self, metric: str, *labels: str) -> None:
        tell(self.actors.metrics, Count(metric, labels))

    # Ending

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        self._exit.wait()
        if self.exit_code == 0:
            self.stop()
        return self.exit_code

    def request_stop(self) -> None:
        """Handle SIGTERM or SIGINT: drain; the second one ends at once."""
        if self._exit.is_set():
            logger.warning("second signal: ending at once")
            self._log.stop()
            os._exit(1)
        self._exit.set()

    def _give_up(self, actor: str) -> None:
        self.exit_code = EXIT_CODE
        self._exit.set()

    def stop(self) -> None:
        """Withdraw, drain, close: whoever was accepted may finish within the drain time."""
        config = self.config
        self.view.is_draining = True
        logger.info("draining: {} connections open", len(self.connections))
        gevent.sleep(config.drain_withdraw_secs)
        for listener in self.listeners:
            listener.stop()
        gevent.sleep(0)  # the connections accepted last must have entered the table
        self._await_connections(config.drain_timeout_secs)
        left = self.connections.end_all("drain_timeout")
        if left:
            logger.warning("drain time is over: {} connections ended", left)
            self._await_connections(1.0)
        if self._keeper is not None:
            try:
                with gevent.Timeout(LAST_SNAPSHOT_SECONDS, TimeoutError("the disk does not answer")):
                    self._keeper.write()
            except Exception as error:  # a full disk, a bindings actor that is down: stopping goes on
                logger.error("bindings not kept: {}", error)
        self._housekeeping.stop()
        self.watcher.stop()
        self._pauses.stop()
        self._supervisor.stop()
        self.status.stop()
        stop_all(timeout_s=1.0)
        logger.info("stopped")

    def _await_connections(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self.connections) and time.monotonic() < deadline:
            gevent.sleep(0.02)


def raise_descriptor_limit() -> None:
    """Use all the file descriptors the system allows the process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _sleep_in_thread(seconds: float) -> None:
    """Give the interpreter to the event loop. time.sleep is gevent's here, and would start a hub in the thread."""
    gevent.monkey.get_original("time", "sleep")(seconds)
