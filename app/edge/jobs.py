"""The periodic work of an edge: which job runs how often."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from actors.bindings import SHARDS_PER_SWEEP
from actors.messages import StartDueProbes, SweepBindings
from actors.runtime import tell
from app.domain import metric_names as names
from app.edge import binding_snapshots, dark_frontends, dns, garbage, pool_cleanup, reload, service_notice
from app.edge.dark_frontends import DarkFrontendLog
from app.edge.housekeeping import Job
from app.edge.parts import EdgeParts
from app.edge.reload import Reloader
from app.edge.service_notice import ServiceNotice
from app.outbound import geo_watcher, name_watcher, replica_file
from app.outbound.geo_watcher import GeoWatcher
from app.registration import registrar

PROBE_TICK_SECONDS: Final = 0.05


def jobs(parts: EdgeParts, reloader: Reloader | None, notice: ServiceNotice) -> Iterator[Job]:
    """Yield the jobs that the configuration asks for."""

    def every(seconds: float, name: str, work: Callable[[], object]) -> Job:
        return Job(name, lambda: seconds, work)

    def while_serving(work: Callable[[], object]) -> Callable[[], object]:
        """Leave work on files to the next edge, which may run beside this one, once this one drains."""
        return lambda: None if parts.draining.is_set() else work()

    config, actors, data_plane = parts.config(), parts.actors, parts.data_plane
    turn_seconds = config.binding_gc_interval_secs / -(-parts.bindings.shard_count // SHARDS_PER_SWEEP)
    yield Job("connection sweep", data_plane.sweep_seconds, data_plane.sweep)
    yield every(turn_seconds, "binding sweep", partial(tell, actors.bindings, SweepBindings()))
    collect = partial(garbage.collect_when_idle, lambda: not data_plane.open_count)
    yield every(pool_cleanup.TICK_SECONDS, "drained backends", partial(pool_cleanup.end_drained, parts))
    yield every(pool_cleanup.TICK_SECONDS, "retired pools", partial(pool_cleanup.forget_retired, parts))
    yield every(garbage.IDLE_COLLECTION_SECONDS, "garbage collection", collect)
    yield every(name_watcher.TICK_SECONDS, "host names", parts.pools.names.check)
    yield every(PROBE_TICK_SECONDS, "probe schedule", partial(tell, actors.health, StartDueProbes()))
    yield every(dark_frontends.TICK_SECONDS, "dark frontends", DarkFrontendLog(parts).check)
    if parts.snapshots is not None:
        yield every(binding_snapshots.TICK_SECONDS, "binding snapshot", while_serving(parts.snapshots.write))
    if reloader is not None:
        yield every(reload.TICK_SECONDS, "configuration watch", reloader.check)
    if parts.replica is not None:
        yield every(replica_file.TICK_SECONDS, "replica status", parts.replica.check)
    if parts.registrations is not None:
        yield every(registrar.TICK_SECONDS, "registrations", while_serving(parts.registrar.tick))
    if parts.geo is not None:
        geo = GeoWatcher(parts.geo, partial(parts.count, names.GEO_RELOADS))
        yield every(geo_watcher.TICK_SECONDS, "country database watch", geo.check)
    if config.dns_listen_addr:
        yield every(dns.TICK_SECONDS, "DNS zone", parts.dns.live.refresh)
    if notice.is_heard:
        yield every(service_notice.TICK_SECONDS, "systemd status", notice.refresh)
    if notice.watchdog_seconds:  # sd_watchdog_enabled(3) advises half of the time
        yield every(notice.watchdog_seconds / 2, "systemd watchdog", notice.keep_alive)
