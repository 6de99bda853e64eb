"""The parts of one edge that need no other view of it: what its actors, its admin API and its housekeeping work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gevent.event import Event

from actors.runtime import Address
from actors.supervisor import Supervisor
from app.config import Config
from app.domain.affinity import AffinityTable
from app.edge.binding_snapshots import BindingSnapshots
from app.edge.data_plane import DataPlane
from app.edge.dns import InternalDns
from app.edge.gateway import EdgeGateway
from app.edge.loop_pauses import LoopPauses
from app.edge.reload import FileState
from app.edge.serving_pools import ServingPools
from app.inbound.admin_server import AdminServer
from app.outbound.backend_watcher import BackendWatcher
from app.outbound.json_log import JsonLog
from app.outbound.maxmind_geo import MaxmindGeo
from app.outbound.replica_file import ReplicaWatcher
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import Actors
from app.registration.registrar import DatabaseRegistrar


@dataclass(frozen=True, slots=True, eq=False)
class EdgeParts:
    """None is a part that the configuration leaves out."""

    log: JsonLog
    actors: Actors
    supervisor: Supervisor
    count: Callable[..., None]
    """Counts an event: the name of its metric, then its labels."""
    geo: MaxmindGeo | None
    data_plane: DataPlane
    bindings: AffinityTable
    snapshots: BindingSnapshots | None
    pools: ServingPools
    watcher: BackendWatcher
    replica: ReplicaWatcher | None
    routing_thread: WorkerThread
    """Writes the routing database."""
    registrar: DatabaseRegistrar
    registrations: Address | None
    gateway: EdgeGateway
    dns: InternalDns
    admin: AdminServer | None
    pauses: LoopPauses
    file: FileState | None
    draining: Event
    """Set from the beginning of the drain on."""

    def config(self) -> Config:
        """Return the configuration in force."""
        return self.pools.config
