"""What the admin API sees of a running edge. bootstrap fills it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec
from gevent.event import Event

from actors.supervisor import Supervisor
from app.config import Config
from app.domain.model import Backend
from app.edge.reload import Reloader
from app.edge.view import EdgeView
from app.gateway.deployment import Deployment
from app.gateway.service_deployment import ServiceDeployment
from app.inbound.connections import Connections
from app.inbound.listeners import Listeners
from app.outbound.log_tail import LogTail
from app.outbound.worker_thread import WorkerThread
from app.ports import GeoResolver, Registrar
from app.proxy_service import Actors


@dataclass(frozen=True, slots=True, eq=False)
class RunningEdge:
    """The parts that routes look into and turn. `config` and `backends` (by pool) are those of the moment."""

    actors: Actors
    supervisor: Supervisor
    connections: Connections
    listeners: Listeners
    geo: GeoResolver | None
    view: EdgeView
    reloader: Reloader | None
    deployment: Deployment
    services: ServiceDeployment
    registrar: Registrar
    routing_thread: WorkerThread
    """Writes the routing database."""
    log_tail: LogTail
    write_line: Callable[[msgspec.Struct], None]
    """Appends a line to the log, whatever its level."""
    on_response: Callable[[int], None]
    """Counts an answer of the admin API, by its status."""
    config: Callable[[], Config]
    backends: Callable[[], Mapping[str, tuple[Backend, ...]]]
    has_stopped: Event = field(default_factory=Event)
    """Streams end when it is set."""
