"""Puts the edge together: the only place that knows every concrete class. Starts in order, stops in reverse."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from itertools import count

import gevent
from gevent.event import Event
from loguru import logger

from actors.bindings import SHARDS_PER_SWEEP, BindingsActor
from actors.health import HealthActor
from actors.messages import (
    Bound,
    Count,
    ProbeEnded,
    Select,
    StartDueProbes,
)
from actors.metrics import MetricsActor
from actors.registrations import RegistrationsActor
from actors.registry import RegistryActor
from actors.runtime import Address, GeventActor, GeventFuture, stop, tell
from actors.supervisor import EXIT_CODE, Supervisor
from app.admin.application import make_api
from app.admin.edge import RunningEdge
from app.admin.token_service import TokenService
from app.config import PIPES, Config, Frontend, HttpOptions, ListenAddress, idle_upstreams
from app.domain import metric_names as names
from app.domain.affinity import AffinityTable
from app.domain.limits import ClientLimits, replace_limits
from app.domain.measures import Measures
from app.domain.plan import SelectorPlan
from app.domain.probe import Target
from app.domain.registration_table import RegistrationTable
from app.domain.selection import Selector, make_selector
from app.domain.single_flight import SingleFlight
from app.domain.stored import StoreError
from app.edge.dns_zone import TICK_SECONDS as DNS_TICK_SECONDS
from app.edge.dns_zone import DnsView
from app.edge.garbage import IDLE_COLLECTION_SECONDS, collect_when_idle
from app.edge.gateway import GatewayRoom
from app.edge.housekeeping import (
    GEO_TICK_SECONDS,
    PROBE_TICK_SECONDS,
    REPLICA_TICK_SECONDS,
    SNAPSHOT_SECONDS,
    BindingSnapshots,
    BindingSweeper,
    ConnectionSweeper,
    GeoWatcher,
    Housekeeping,
    sweep_seconds,
)
from app.edge.loop_pauses import LoopPauses
from app.edge.plans import limit_rules
from app.edge.reload import TICK_SECONDS as RELOAD_TICK_SECONDS
from app.edge.reload import Reloader
from app.edge.serving_pools import ServingPools
from app.edge.view import EdgeView
from app.inbound.access_log import AccessLog
from app.inbound.admin_server import AdminServer
from app.inbound.connections import Connections
from app.inbound.dns.server import DnsServer
from app.inbound.frontend import OpenFrontend
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.server import HttpServer
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.listener import BindError
from app.inbound.listeners import Listeners
from app.inbound.pipes import PipePool
from app.inbound.proxy_header import TrustedProxies
from app.inbound.status.server import StatusServer
from app.inbound.tcp.server import TcpServer
from app.outbound.backend_watcher import BackendWatcher
from app.outbound.binding_file import BindingFile
from app.outbound.json_log import JsonLog, rfc3339
from app.outbound.log_tail import LogTail
from app.outbound.maxmind_geo import open_geo
from app.outbound.name_watcher import FIRST_SECONDS
from app.outbound.name_watcher import TICK_SECONDS as NAMES_TICK_SECONDS
from app.outbound.peewee_registrations import SqliteRegistrations, registrations_in
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.probes import probe
from app.outbound.replica_file import ReplicaWatch
from app.outbound.routing_database import open_repository
from app.outbound.worker_thread import WorkerThread
from app.ports import BackendSet
from app.proxy_service import Actors, ProxyService, Route
from app.registration.registrar import TICK_SECONDS as REGISTRATION_TICK_SECONDS
from app.registration.registrar import DatabaseRegistrar
from app.wire.dns_response import Responder
from app.wire.http1_forwarding import HeaderRules

LAST_SNAPSHOT_SECONDS = 30.0
"""For writing the bindings at exit."""


class Edge:
    """One edge. `start` opens its doors, `stop` drains and closes them; `run` waits for a signal in between.

    To embed it in a program that has called `gevent.monkey.patch_all()` first of all::

        edge = Edge(load(os.environ))       # app.config.load; or load({}, document={"frontends": [...], ...})
        edge.start()
        ...
        edge.stop()

    `log` is where access lines go, by default the configuration's log_path. Events go to loguru.
    """

    def __init__(self, config: Config, log: JsonLog | None = None, reread: Callable[[], Config] | None = None) -> None:
        """Build everything, open nothing but the log and the country database.

        `reread` reads the configuration again for a reload. Raises GeoDatabaseError, OSError (the log), BindError
        (the admin API's certificate).
        """
        self.config = config
        self._log = log or JsonLog(config.log_path, config.log_format)
        self._exit = Event()
        self.exit_code = 0
        self.actors = Actors(Address("registry"), Address("bindings"), Address("metrics"), Address("health"))
        self.registrations = Address("registrations")
        self._supervisor = Supervisor(on_give_up=self._give_up)
        self.gateway = GatewayRoom(
            config.gateway_db_path, self._supervisor, lambda result: self._count(names.DEPLOYMENTS, result)
        )
        self.geo = open_geo(config.geoip_path)
        self._lease_ids = count(1)
        self._frontends: list[OpenFrontend] = []
        self.connections = Connections()
        self.watcher = BackendWatcher(
            open_repository(config.routing, pause=_sleep_in_thread),
            config.db_reload_secs,
            on_change=self._routing_changed,
            on_load=lambda result: self._count(names.RELOADS, result),
        )
        self._routing_thread = WorkerThread()
        self._registrations = self._database_registrar(config)
        self.pools = ServingPools(config, self.actors, lambda: self.watcher.current.backends)
        self.access_log = AccessLog(self._log.write_access, rfc3339)
        requests = RequestTally()
        pipes = PipePool(PIPES)
        limit = config.effective_max_connections()
        self._tcp = TcpServer(limit, self.connections, self.access_log, pipes)
        self._http = HttpServer(
            limit,
            self.connections,
            self.access_log,
            requests,
            pipes,
            UpstreamPool(idle_upstreams()),
            self.gateway.requests,
        )
        self.listeners = Listeners(
            {"tcp": self._tcp.accept, "http": self._http.accept}, lambda code: self._count(names.ACCEPT_ERRORS, code)
        )
        self._bindings = AffinityTable(config.binding_ttl_secs, config.binding_max)
        self._sweeper = ConnectionSweeper(self.connections, requests, self.actors, self.access_log)
        self._snapshots = (
            BindingSnapshots(BindingFile(config.binding_snapshot), self.actors) if config.binding_snapshot else None
        )
        self._reloader = (
            Reloader(config.config_path, reread, self.apply, lambda result: self._count(names.CONFIG_RELOADS, result))
            if config.config_path is not None and reread is not None
            else None
        )
        self._housekeeping = Housekeeping(on_error=lambda where: self._count(names.INTERNAL_ERRORS, where))
        self._pauses = LoopPauses()
        self._replica = ReplicaWatch(config.db_path) if config.is_replicated else None
        self.view = EdgeView(
            self.actors,
            self._supervisor,
            self.connections,
            self.listeners,
            self.watcher,
            self.geo,
            self._pauses,
            self._log,
            self._reloader,
            self._sweeper.report_traffic,
            self.gateway.view,
            self._replica,
        )
        self._dns_view = DnsView(self.actors.registry, config.region or None, float(config.dns_ttl_secs))
        self.dns = self._dns_server(config)
        self.view.dns_responses, self.view.host_names = self.dns.answers, self.pools.names.counts
        self.status = self._status_server(config)
        self._tokens = TokenService(SqliteTokenStore(config.gateway_db_path), config.admin_token_file)
        self.admin = self._admin_server(config.admin_listen_addr) if config.admin_listen_addr is not None else None

    def _database_registrar(self, config: Config) -> DatabaseRegistrar:
        name = str(config.admin_listen_addr)
        return DatabaseRegistrar(
            self.registrations,
            open_store=lambda: SqliteRegistrations(config.db_path, name),
            read=lambda: registrations_in(config.db_path, name),
            is_there=lambda: config.db_url is None and config.db_path.exists(),
            run=self._routing_thread.run,
            look=self.watcher.look,
        )

    def _status_server(self, config: Config) -> StatusServer:
        return StatusServer(config.metrics_listen_addr, self.view.readiness, self.view.metrics)

    def _dns_server(self, config: Config) -> DnsServer:
        responder = Responder(config.dns_domain, config.dns_ttl_secs, lambda: self._dns_view.zone, random.random)
        return DnsServer(config.dns_listen_addr, responder, lambda: self._count(names.INTERNAL_ERRORS, "dns"))

    def _admin_server(self, address: ListenAddress) -> AdminServer:
        tail = LogTail()
        self._log.tap = tail.append
        running = RunningEdge(
            actors=self.actors,
            supervisor=self._supervisor,
            connections=self.connections,
            listeners=self.listeners,
            geo=self.geo,
            view=self.view,
            reloader=self._reloader,
            deployment=self.gateway.deployment,
            services=self.gateway.services,
            registrar=self._registrations,
            routing_thread=self._routing_thread,
            log_tail=tail,
            write_line=self._log.write_access,
            on_response=lambda status: self._count(names.ADMIN_REQUESTS, str(status)),
            config=lambda: self.config,
            backends=lambda: self.pools.backends,
        )
        api = make_api(running, self._tokens)
        certificate, key = self.config.admin_tls_cert, self.config.admin_tls_key
        return AdminServer(address, api.wsgi, running.has_stopped.set, certificate, key)

    # Starting

    def start(self) -> None:
        """Start the actors, load what they need, open the doors; once.

        Raises BindError and StoreError: nothing is open then.
        """
        if self.view.is_draining:
            raise RuntimeError("this edge was stopped: make another one")
        config = self.config
        for warning in config.warnings:
            logger.warning("configuration: {}", warning)
        self._frontends = self._open_frontends(config)
        self._start_actors()
        self._restore_bindings()
        try:
            self.status.start()
            self._start_admin()
            self.dns.prepare()
            bound = self.listeners.prepare(self._frontends)
        except (BindError, StoreError):
            self.dns.stop()
            self._stop_admin()
            self.status.stop()
            self._stop_actors()
            raise
        self._log.start()
        if _needs_routing(config):
            self.watcher.start()
        self.pools.replace_backends()
        self.pools.names.settle(FIRST_SECONDS)
        self._start_gateway(config)
        self._start_housekeeping()
        self._pauses.start()
        self._start_dns()
        self.listeners.open(self._frontends, bound)
        self._say_where_it_listens()

    def _start_dns(self) -> None:
        """Answer for the names, once there is something to say of them."""
        addresses = [str(address) for address in self.dns.addresses]
        if addresses:
            self._dns_view.refresh()
            self._housekeeping.every(DNS_TICK_SECONDS, "DNS view", self._dns_view.refresh)
            self.dns.serve()
            logger.bind(dns=addresses).info("DNS for {} on {}", self.config.dns_domain, ", ".join(addresses))

    def _start_admin(self) -> None:
        if self.admin is not None:
            self._tokens.load()
            self.admin.start()

    def _stop_admin(self) -> None:
        if self.admin is not None:
            self.admin.stop()

    def _say_where_it_listens(self) -> None:
        listening = [(name, str(a)) for name, addresses in self.listeners.addresses.items() for a in addresses]
        frontends, listeners = [name for name, _ in listening], [address for _, address in listening]
        admin = str(self.admin.address) if self.admin is not None else None
        bound = logger.bind(listeners=listeners, frontends=frontends, metrics=str(self.status.address), admin=admin)
        bound.info(
            "listening on {}; metrics on {}; admin API {}",
            ", ".join(listeners),
            self.status.address,
            f"on {admin}" if admin else "off",
        )

    def _open_frontends(self, config: Config) -> list[OpenFrontend]:
        """Make what stands behind the doors; a frontend that has not changed stays the object it was."""
        known = {frontend.config.name: frontend for frontend in self._frontends}
        pools = {pool.name: pool for pool in config.pools}
        opened = []
        for frontend in config.frontends:
            old, pool = known.get(frontend.name), pools[frontend.backend]
            if old is not None and old.config == frontend and old.pool == pool:
                opened.append(old)
            else:
                service = ProxyService(
                    self.actors, self.geo, _route(frontend), config.binding_ipv6_prefix, self._lease_ids
                )
                proxies = TrustedProxies(frontend.proxy_protocol_from)
                opened.append(OpenFrontend(frontend, pool, service, proxies, _header_rules(frontend.http)))
        return opened

    def _start_actors(self) -> None:
        table = self._bindings
        limits: dict[str, ClientLimits] = {}
        selectors: SingleFlight[GeventFuture[Bound | Select]] = SingleFlight()
        measures = Measures()

        def start_registry() -> object:
            pools, metrics = self.pools, self.actors.metrics
            return RegistryActor.start(
                self._make_selector, metrics, pools.plans, pools.backends, self.connections.leases()
            )

        def start_bindings() -> object:
            replace_limits(limits, limit_rules(self.config))
            for frontend, limit in limits.items():
                limit.recount(self.connections.admissions(frontend))
            return BindingsActor.start(table, limits, selectors)

        def start_health() -> object:
            registry, metrics = self.actors.registry, self.actors.metrics
            return HealthActor.start(self._start_probe, registry, metrics, self.pools.targets(), rng=random.Random())

        GeventActor.on_handler_error = staticmethod(lambda name: self._count(names.INTERNAL_ERRORS, name))
        self._supervisor.supervise(self.actors.metrics, lambda: MetricsActor.start(measures))
        self._supervisor.supervise(self.actors.registry, start_registry)
        self._supervisor.supervise(self.actors.bindings, start_bindings)
        self._supervisor.supervise(self.actors.health, start_health)
        self.gateway.start_actor()
        if self._keeps_registrations:
            registrations = RegistrationTable()
            self._supervisor.supervise(self.registrations, lambda: RegistrationsActor.start(registrations))

    @property
    def _keeps_registrations(self) -> bool:
        """Services can say here that they serve, and what they say is not etcd's to keep."""
        return self.admin is not None and not self.config.is_replicated

    def _make_selector(self, plan: SelectorPlan) -> Selector:
        return make_selector(
            plan.algorithm,
            pop_region=self.config.region or None,
            rng=random.Random(),
            spills_at_soft_limit=plan.spills_at_soft_limit,
        )

    def _start_probe(self, target: Target) -> None:
        gevent.spawn(lambda: tell(self.actors.health, ProbeEnded(target, probe(target))))

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

    def _start_gateway(self, config: Config) -> None:
        if config.admin_listen_addr is not None or any(frontend.gateway for frontend in config.frontends):
            self.gateway.start()

    def _start_housekeeping(self) -> None:
        every = self._housekeeping.every
        every(lambda: sweep_seconds(self.config.frontends), "connection sweep", self._sweep)
        bindings = BindingSweeper(self.config, self.actors, SHARDS_PER_SWEEP, self._bindings.shard_count)
        every(bindings.turn_seconds, "binding sweep", bindings.sweep)
        every(IDLE_COLLECTION_SECONDS, "garbage collection", lambda: collect_when_idle(lambda: not self.connections))
        every(NAMES_TICK_SECONDS, "host names", self.pools.names.look)
        every(PROBE_TICK_SECONDS, "probe schedule", lambda: tell(self.actors.health, StartDueProbes()))
        if self._snapshots is not None:
            every(SNAPSHOT_SECONDS, "binding snapshot", self._snapshots.write)
        if self._reloader is not None:
            every(RELOAD_TICK_SECONDS, "configuration watch", self._reloader.look)
        if self._replica is not None:
            every(REPLICA_TICK_SECONDS, "replica status", self._replica.look)
        if self._keeps_registrations:
            every(REGISTRATION_TICK_SECONDS, "registrations", self._registrations.tick)
        if self.geo is not None:
            geo = GeoWatcher(self.geo, on_reload=lambda result: self._count(names.GEO_RELOADS, result))
            every(GEO_TICK_SECONDS, "country database watch", geo.look)

    def _sweep(self) -> None:
        self._sweeper.sweep()
        self._http.sweep()
        for pool in self.config.pools:
            if pool.app is not None:
                self._sweeper.end_drained(pool.name, self.pools.backends[pool.name])
        self.pools.forget_retired((f.service.route.pool, f.config.name) for f in self.connections.frontends())

    def _count(self, metric: str, *labels: str) -> None:
        tell(self.actors.metrics, Count(metric, labels))

    # Changing

    def _leave_routing(self) -> None:
        """Follow the routing database no longer than a pool takes its backends from there."""
        if not _needs_routing(self.config):
            self.watcher.stop()

    def _routing_changed(self, _found: BackendSet) -> None:
        self._registrations.routing_changed()
        self.pools.replace_backends()

    def reload(self) -> None:
        """Handle SIGHUP: read the configuration file again."""
        if self._reloader is None:
            logger.warning("SIGHUP: there is no configuration file to read again")
        else:
            gevent.spawn(self._reloader.reload)

    def apply(self, config: Config) -> None:
        """Serve by another configuration, whole or not at all. Raises BindError: nothing has changed then.

        What is the same in both is kept: listeners, connections, the counts, health and bindings of servers.
        """
        if config == self.config:
            logger.info("configuration read again: nothing has changed")
            return
        frontends = self._open_frontends(config)
        if _needs_routing(config):
            self.watcher.start()  # waits for the disk, while nothing has changed yet
        self._start_gateway(config)
        status = self.status
        if config.metrics_listen_addr != self.config.metrics_listen_addr:
            status = self._status_server(config)
        try:
            if status is not self.status:
                status.start()
            bound = self.listeners.prepare(frontends)
        except BindError:
            if status is not self.status:
                status.stop()
            self._leave_routing()
            raise
        self.config, self._frontends = config, frontends
        self.pools.use(config)
        self.listeners.open(frontends, bound)
        self._http.end_idle()
        former_status, self.status = self.status, status
        if former_status is not status:
            gevent.spawn(former_status.stop)
        self._log.change(config.log_level, config.log_format)
        logger.info("configuration reloaded: {} frontends, {} backends", len(config.frontends), len(config.pools))
        self._say_where_it_listens()
        self._leave_routing()

    # Ending

    def run(self) -> int:
        """Serve until told to stop; returns the exit code."""
        self._exit.wait()
        if self.exit_code == 0:
            self.stop()
        else:
            self._log.stop()  # what led to the giving up is in its buffer
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
        if self._reloader is not None:
            self._reloader.stop()
        logger.info("draining: {} connections open", len(self.connections))
        gevent.sleep(config.drain_withdraw_secs)
        self.listeners.close()
        self._http.end_idle()
        gevent.sleep(0)  # the connections accepted last must have entered the table
        self._await_connections(config.drain_timeout_secs)
        left = self.connections.end_all("drain_timeout")
        if left:
            logger.warning("drain time is over: {} connections ended", left)
            self._await_connections(1.0)
        if self._snapshots is not None:
            try:
                with gevent.Timeout(LAST_SNAPSHOT_SECONDS, TimeoutError("the disk does not answer")):
                    self._snapshots.write()
            except Exception as error:  # a full disk, a bindings actor that is down: stopping goes on
                logger.error("bindings not kept: {}", error)
        self.dns.stop()
        self._housekeeping.stop()
        self._http.stop()
        self.pools.names.stop()
        self.watcher.stop()
        self._pauses.stop()
        self._stop_admin()
        self.status.stop()
        self.gateway.stop()
        self._stop_actors()
        logger.info("stopped")
        self._log.stop()

    def _stop_actors(self) -> None:
        self._supervisor.stop()
        actors = self.actors
        if self._keeps_registrations:
            stop((self.registrations,), timeout_s=1.0)
        self.gateway.stop_actor()
        stop((actors.health, actors.bindings, actors.registry, actors.metrics), timeout_s=1.0)

    def _await_connections(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while len(self.connections) and time.monotonic() < deadline:
            gevent.sleep(0.02)


def _needs_routing(config: Config) -> bool:
    return any(pool.app is not None for pool in config.pools)


def _header_rules(options: HttpOptions) -> HeaderRules:
    return HeaderRules(TrustedProxies(options.trusted_proxies), options.request_headers, options.response_headers)


def _route(frontend: Frontend) -> Route:
    limits = frontend.limits
    has_limits = limits.max_connections_per_client > 0 or limits.connection_rate_per_client > 0
    return Route(frontend.name, frontend.backend, frontend.affinity, has_limits)


def _sleep_in_thread(seconds: float) -> None:
    """Give the interpreter to the event loop. time.sleep is gevent's here, and would start a hub in the thread."""
    gevent.monkey.get_original("time", "sleep")(seconds)
