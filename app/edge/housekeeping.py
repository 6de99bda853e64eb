"""What is done every so often, each in a greenlet that survives its own errors."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final

import gevent
from gevent.lock import BoundedSemaphore
from loguru import logger

from actors.messages import CopyBindings, CountBindings, SweepBindings, TrafficMoved
from actors.runtime import ask, tell
from app.config import Config, Frontend
from app.domain.model import Backend
from app.inbound.access_log import AccessLog
from app.inbound.connections import Connections
from app.inbound.http.request_tally import RequestTally
from app.outbound.binding_file import BindingFile
from app.outbound.maxmind_geo import GeoDatabaseError, MaxmindGeo
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS, Actors

SNAPSHOT_SECONDS: Final = 60.0
GEO_TICK_SECONDS: Final = 1.0
PROBE_TICK_SECONDS: Final = 0.05
REPLICA_TICK_SECONDS: Final = 0.5
_LONGEST_ERROR_PAUSE_SECONDS: Final = 30.0


class Housekeeping:
    """Periodic work. `on_error(where)` is told of every failure."""

    def __init__(self, on_error: Callable[[str], None]) -> None:
        self._on_error = on_error
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def every(self, seconds: float | Callable[[], float], name: str, work: Callable[[], object]) -> None:
        """Do `work` again and again, `seconds` apart, farther after errors. A callable is asked anew each time."""
        apart = seconds if callable(seconds) else lambda: seconds
        self._greenlets.append(gevent.spawn(self._forever, apart, name, work))

    def stop(self) -> None:
        gevent.killall(self._greenlets)

    def _forever(self, apart: Callable[[], float], name: str, work: Callable[[], object]) -> None:
        pause = apart()
        while True:
            gevent.sleep(pause)
            try:
                work()
                pause = apart()
            except Exception:
                logger.exception("{} failed; going on", name)
                self._on_error(name)
                pause = min(max(pause, 0.5) * 2, _LONGEST_ERROR_PAUSE_SECONDS)


def sweep_seconds(frontends: Iterable[Frontend]) -> float:
    """Return how often to look for quiet connections: each second, oftener when a timeout is short."""
    timeouts = [
        seconds
        for frontend in frontends
        for seconds in (
            frontend.tcp.idle_timeout_seconds,
            frontend.tcp.linger_timeout_seconds,
            frontend.http.head_timeout_seconds,
            frontend.http.keep_alive_timeout_seconds,
            frontend.http.response_timeout_seconds,
        )
    ]
    return min(1.0, *(seconds / 4 for seconds in timeouts))


class ConnectionSweeper:
    """Ends quiet connections; reports the traffic of all."""

    def __init__(self, connections: Connections, requests: RequestTally, actors: Actors, access_log: AccessLog) -> None:
        self._connections = connections
        self._requests = requests
        self._actors = actors
        self._access_log = access_log

    def sweep(self) -> None:
        self._connections.sweep(time.monotonic())
        self.report_traffic()
        self._access_log.sum_up()

    def report_traffic(self) -> None:
        """Tell the metrics what the connections did since the last report."""
        if tell(self._actors.metrics, TrafficMoved(*self._connections.totals(), self._requests.view())):
            self._connections.forget_totals()
            self._requests.clear()

    def end_drained(self, pool: str, backends: Iterable[Backend]) -> None:
        """End the connections to backends of a pool whose drain deadline has come."""
        now = time.time()
        due = {
            backend.id
            for backend in backends
            if backend.is_deleted and backend.drain_deadline is not None and backend.drain_deadline <= now
        }
        if due:
            for backend_id, ended in self._connections.end_backends(pool, due, "drain_deadline").items():
                logger.info("backend {}: drain deadline reached, {} connections ended", backend_id, ended)


class BindingSweeper:
    """Frees expired bindings, a few shards a turn, all of them within the configured interval."""

    def __init__(self, config: Config, actors: Actors, shards_a_turn: int, shards: int) -> None:
        self._actors = actors
        turns = max(1, -(-shards // shards_a_turn))
        self.turn_seconds = config.binding_gc_interval_secs / turns

    def sweep(self) -> None:
        tell(self._actors.bindings, SweepBindings())


class BindingSnapshots:
    """Writes the bindings to their file, shard by shard, off the event loop."""

    def __init__(self, file: BindingFile, actors: Actors) -> None:
        self._file = file
        self._actors = actors
        self._thread = WorkerThread()
        self._turn = BoundedSemaphore(1)

    def write(self) -> None:
        """Replace the file by the bindings of now. Raises OSError."""
        with self._turn:  # the last snapshot may come while a periodic one is being written
            self._write()

    def _write(self) -> None:
        bindings = self._actors.bindings
        counts = ask(bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
        writer = self._thread.run(self._file.rewrite)
        try:
            for shard in range(counts.shards):
                copied = ask(bindings, CopyBindings(shard), timeout_s=ASK_TIMEOUT_SECONDS)
                self._thread.run(writer.add, copied)
            self._thread.run(writer.commit)
        except TimeoutError:  # the thread hangs in the disk: it tidies up when that answers, and nobody waits for it
            gevent.spawn(self._thread.run, writer.abandon)
            raise
        except Exception:
            self._thread.run(writer.abandon)
            raise


class GeoWatcher:
    """Swaps in a replaced country database, or refuses it and keeps the old one."""

    def __init__(self, geo: MaxmindGeo, on_reload: Callable[[str], None]) -> None:
        self._geo = geo
        self._on_reload = on_reload
        self._thread = WorkerThread()
        self._refused = ""

    def look(self) -> None:
        if not self._geo.has_changed():
            return
        try:
            self._thread.run(self._geo.reload)
        except GeoDatabaseError as error:
            if str(error) != self._refused or not self._geo.has_changed():  # an unreadable one is tried each time
                logger.error("country database refused, the old one stays: {}", error)
                self._on_reload("refused")
            self._refused = str(error)
        else:
            logger.info("country database replaced: {}", self._geo.database_type)
            self._on_reload("ok")
            self._refused = ""
