"""The regular look at all open connections: ends the quiet ones, reports their traffic, forgets what none uses."""

from __future__ import annotations

import time

from loguru import logger

from actors.messages import TrafficMoved
from actors.runtime import Address, tell
from app.domain.words import counted
from app.edge.serving_pools import ServingPools
from app.inbound.access_log import AccessLog
from app.inbound.connections import Connections
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.server import HttpServer


class ConnectionSweeper:
    """Sweeps the connections of all frontends and pools in force."""

    def __init__(
        self,
        connections: Connections,
        requests: RequestTally,
        http: HttpServer,
        pools: ServingPools,
        metrics: Address,
        access_log: AccessLog,
    ) -> None:
        self._connections = connections
        self._requests = requests
        self._http = http
        self._pools = pools
        self._metrics = metrics
        self._access_log = access_log

    def seconds(self) -> float:
        """Return the pause between two sweeps: 1 s, or less if a frontend has a short timeout."""
        timeouts = [
            seconds
            for frontend in self._pools.config.frontends
            for seconds in (
                frontend.tcp.idle_timeout_seconds,
                frontend.tcp.linger_timeout_seconds,
                frontend.http.head_timeout_seconds,
                frontend.http.keep_alive_timeout_seconds,
                frontend.http.response_timeout_seconds,
                frontend.http.request_body_timeout_seconds,
                frontend.http.send_timeout_seconds,
                frontend.http.backend_idle_timeout_seconds,
            )
        ]
        return min(1.0, *(seconds / 4 for seconds in timeouts))

    def sweep(self) -> None:
        """End connections that are over their time, and report what moved since the last sweep."""
        self._connections.sweep(time.monotonic())
        self.report_traffic()
        self._access_log.sum_up()
        self._http.sweep()
        self._end_drained()
        self._pools.forget_retired((f.service.route.pool, f.config.name) for f in self._connections.frontends())

    def report_traffic(self) -> None:
        """Tell the metrics what the connections did since the last report."""
        if tell(self._metrics, TrafficMoved(*self._connections.totals(), self._requests.view())):
            self._connections.forget_totals()
            self._requests.clear()

    def _end_drained(self) -> None:
        """End the connections to backends whose drain deadline has passed."""
        now = time.time()
        for pool in self._pools.config.pools:
            if pool.app is None:
                continue
            due = {
                backend.id
                for backend in self._pools.backends[pool.name]
                if backend.is_deleted and backend.drain_deadline is not None and backend.drain_deadline <= now
            }
            if due:
                for backend_id, ended in self._connections.end_backends(pool.name, due, "drain_deadline").items():
                    logger.info(
                        "backend {}: drain deadline reached, {} ended", backend_id, counted(ended, "connection")
                    )
