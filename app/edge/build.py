"""Builds one edge: the only place that knows every concrete class. Nothing runs yet."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import gevent
from gevent.event import Event

from actors.messages import Count
from actors.runtime import Address, tell
from actors.supervisor import Supervisor
from app.config import Config
from app.domain import metric_names as names
from app.domain.affinity import AffinityTable
from app.edge.binding_snapshots import BindingSnapshots
from app.edge.data_plane import DataPlane
from app.edge.dns import InternalDns, LiveZone
from app.edge.gateway import EdgeGateway
from app.edge.housekeeping import Housekeeping
from app.edge.jobs import jobs
from app.edge.loop_pauses import LoopPauses
from app.edge.parts import EdgeParts
from app.edge.reload import FileState, Reloader
from app.edge.service_notice import ServiceNotice
from app.edge.serving import Serving
from app.edge.serving_pools import ServingPools
from app.edge.supervised_actors import SupervisedActors
from app.inbound.admin_server import AdminServer
from app.inbound.dns.server import DnsServer
from app.outbound.backend_watcher import BackendWatcher
from app.outbound.binding_file import BindingFile
from app.outbound.json_log import JsonLog
from app.outbound.maxmind_geo import open_geo
from app.outbound.peewee_registrations import SqliteRegistrations, registrations_in
from app.outbound.peewee_tokens import SqliteTokenStore
from app.outbound.replica_file import ReplicaWatcher
from app.outbound.routing_database import open_repository
from app.outbound.systemd_notify import Notifier
from app.outbound.systemd_sockets import PassedSockets
from app.outbound.watched_thread import WatchedThread
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import Actors
from app.registration.registrar import DatabaseRegistrar
from app.wire.dns_response import Responder


@dataclass(frozen=True, slots=True, eq=False)
class BuiltEdge:
    """One edge, not started. `reloader` is None without a file to read again, `start_admin` without an admin API."""

    parts: EdgeParts
    actors: SupervisedActors
    serving: Serving
    reloader: Reloader | None
    start_admin: Callable[[], None] | None
    housekeeping: Housekeeping
    notice: ServiceNotice


def build(
    config: Config,
    log: JsonLog,
    reread: Callable[[], Config] | None,
    on_give_up: Callable[[str], None],
    notifier: Notifier,
    passed: PassedSockets,
) -> BuiltEdge:
    """Build an edge. `on_give_up` as in Supervisor; the rest, and what is raised, as in app.edge.edge."""
    file = FileState() if config.config_path is not None and reread else None
    parts = _parts(config, log, file, on_give_up, passed)
    serving, notice = Serving(parts), ServiceNotice(parts, notifier)
    reloader = _reloader(parts, reread, serving.apply, notice)
    errors = partial(parts.count, names.INTERNAL_ERRORS)
    return BuiltEdge(
        parts=parts,
        actors=SupervisedActors(parts),
        serving=serving,
        reloader=reloader,
        start_admin=_admin_start(parts, reloader),
        housekeeping=Housekeeping(jobs(parts, reloader, notice), errors),
        notice=notice,
    )


def _parts(
    config: Config,
    log: JsonLog,
    file: FileState | None,
    on_give_up: Callable[[str], None],
    passed: PassedSockets,
) -> EdgeParts:
    actors = Actors(Address("registry"), Address("bindings"), Address("metrics"), Address("health"))
    count = partial(_count, actors.metrics)
    supervisor = Supervisor(on_give_up, partial(count, names.INTERNAL_ERRORS))
    gateway = EdgeGateway(config.gateway_db_path, supervisor, partial(count, names.DEPLOYMENTS))
    pools = ServingPools(config, actors)
    watcher = _watcher(config, pools, count)
    thread, registrations = WatchedThread("routing database"), Address("registrations")
    snapshot, admin, geo = config.binding_snapshot, _admin_server(config), open_geo(config.geoip_path)
    return EdgeParts(
        log=log,
        actors=actors,
        supervisor=supervisor,
        count=count,
        geo=geo,
        data_plane=DataPlane(config, actors, geo, log, gateway.requests, count, passed),
        bindings=AffinityTable(config.binding_ttl_secs, config.binding_max),
        snapshots=BindingSnapshots(BindingFile(snapshot), actors.bindings) if snapshot is not None else None,
        pools=pools,
        watcher=watcher,
        replica=ReplicaWatcher(config.db_path) if config.is_replicated else None,
        routing_thread=thread,
        registrar=_registrar(config, registrations, thread, watcher),
        # Where the routing database is a replica, etcd stores the registrations.
        registrations=registrations if admin is not None and not config.is_replicated else None,
        gateway=gateway,
        dns=_dns(config, actors, count),
        admin=admin,
        pauses=LoopPauses(),
        file=file,
        draining=Event(),
    )


def _count(metrics: Address, metric: str, *labels: str) -> None:
    tell(metrics, Count(metric, labels))


def _watcher(config: Config, pools: ServingPools, count: Callable[..., None]) -> BackendWatcher:
    return BackendWatcher(
        partial(open_repository, config.routing, pause=_sleep_in_thread),
        config.db_reload_secs,
        on_change=pools.replace_rows,
        on_load=partial(count, names.RELOADS),
    )


def _sleep_in_thread(seconds: float) -> None:
    """Give the interpreter to the event loop. time.sleep is gevent's here, and would start a hub in the thread."""
    gevent.monkey.get_original("time", "sleep")(seconds)


def _registrar(config: Config, actor: Address, thread: WorkerThread, watcher: BackendWatcher) -> DatabaseRegistrar:
    owner = str(config.admin_listen_addr)
    return DatabaseRegistrar(
        actor,
        open_store=lambda: SqliteRegistrations(config.db_path, owner),
        read=lambda: registrations_in(config.db_path, owner),
        has_database=lambda: config.db_url is None and config.db_path.exists(),
        run=thread.run,
        routing=watcher,
    )


def _dns(config: Config, actors: Actors, count: Callable[..., None]) -> InternalDns:
    live = LiveZone(actors.registry, config.region or None, float(config.dns_ttl_secs))
    responder = Responder(config.dns_domain, config.dns_ttl_secs, lambda: live.zone, random.random)
    server = DnsServer(config.dns_listen_addr, responder, partial(count, names.INTERNAL_ERRORS, "dns"))
    return InternalDns(config.dns_domain, live, server)


def _admin_server(config: Config) -> AdminServer | None:
    if config.admin_listen_addr is None:
        return None
    return AdminServer(config.admin_listen_addr, config.admin_tls_cert, config.admin_tls_key)


def _reloader(
    parts: EdgeParts, reread: Callable[[], Config] | None, apply: Callable[[Config], None], notice: ServiceNotice
) -> Reloader | None:
    path = parts.config().config_path
    if path is None or reread is None or parts.file is None:
        return None
    on_result = partial(parts.count, names.CONFIG_RELOADS)
    return Reloader(path, reread, apply, on_result, parts.file, parts.draining, notice.reloading)


def _admin_start(parts: EdgeParts, reloader: Reloader | None) -> Callable[[], None] | None:
    """Return what starts the admin API."""
    server, config = parts.admin, parts.config()
    if server is None:
        return None
    # Flask takes 0.2 of the 0.9 s that the imports take, and 8 MiB: only an edge with an admin API pays for it.
    from app.admin.application import make_api  # noqa: PLC0415
    from app.admin.token_service import TokenService  # noqa: PLC0415

    tokens = TokenService(SqliteTokenStore(config.gateway_db_path), config.admin_token_file)
    api = make_api(parts, tokens, reloader, server.has_stopped)

    def start() -> None:
        tokens.start(server.has_stopped)
        server.start(api.wsgi)

    return start
