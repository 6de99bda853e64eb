"""What serves now: frontends, pools, listeners. Another configuration is applied whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

import gevent
from loguru import logger

from app.config import Config
from app.domain.words import counted
from app.edge.metrics import MetricsText
from app.edge.parts import EdgeParts
from app.edge.readiness import readiness
from app.edge.reload import Draining
from app.inbound.status.server import StatusServer


class Serving:
    """Prepares and opens the frontends, at the start and when another configuration is applied."""

    def __init__(self, parts: EdgeParts) -> None:
        self._parts = parts
        self._metrics = MetricsText(parts)
        self.status = self._make_status(parts.config())
        """The metrics listener in force."""

    def _make_status(self, config: Config) -> StatusServer:
        return StatusServer(config.metrics_listen_addr, partial(readiness, self._parts), self._metrics.render)

    # At the start

    def bind(self) -> None:
        """Bind the addresses of the frontends, accepting no connection yet. Raises BindError."""
        self._parts.data_plane.prepare(self._parts.config())

    def load_backends(self) -> None:
        """Load the routing database, and follow it, if a pool takes its backends from there."""
        if _needs_routing(self._parts.config()):
            self._parts.watcher.start()
        self._parts.pools.replace_backends()

    def open(self) -> None:
        """Accept connections from now on."""
        self._parts.data_plane.open(self._parts.config())
        self._log_addresses()

    def start_status(self) -> None:
        """Open the metrics listener. Raises BindError."""
        self.status.start()

    def stop_status(self) -> None:
        self.status.stop()

    # Another configuration

    def apply(self, config: Config) -> None:
        """Serve by another configuration. Whatever is raised, nothing has changed then. Raises BindError, Draining.

        What is the same in both is kept: listeners, connections, the counts, health and bindings of backends.
        """
        parts = self._parts
        if config == parts.config():
            logger.info("configuration read again: nothing has changed")
            return
        with ExitStack() as undoing:
            undoing.callback(self._leave_routing)
            if _needs_routing(config):
                parts.watcher.start()  # waits for the disk, while nothing has changed yet
            parts.gateway.start_for(config)
            if parts.draining.is_set():  # meanwhile; from here on nothing waits
                raise Draining
            status = self._prepare_status(config, undoing)
            parts.data_plane.prepare(config)
            undoing.pop_all()
        parts.pools.use(config)
        parts.data_plane.open(config)
        former, self.status = self.status, status
        if former is not status:
            gevent.spawn(former.stop)
        parts.log.change(config.log_level, config.log_format)
        logger.info(
            "configuration reloaded: {}, {}",
            counted(len(config.frontends), "frontend"),
            counted(len(config.pools), "pool"),
        )
        self._log_addresses()
        self._leave_routing()

    def _prepare_status(self, config: Config, undoing: ExitStack) -> StatusServer:
        """Return the metrics listener of a configuration: the one in force, or another that listens already."""
        if config.metrics_listen_addr == self._parts.config().metrics_listen_addr:
            return self.status
        status = self._make_status(config)
        undoing.callback(status.stop)
        status.start()
        return status

    def _leave_routing(self) -> None:
        """Stop following the routing database if no pool takes its backends from there."""
        if not _needs_routing(self._parts.config()):
            self._parts.watcher.stop()

    def _log_addresses(self) -> None:
        addresses, server = self._parts.data_plane.addresses, self._parts.admin
        listening = [(name, address) for name, found in addresses.items() for address in found]
        frontends, listeners = [name for name, _ in listening], [address for _, address in listening]
        admin = str(server.address) if server is not None else None
        bound = logger.bind(listeners=listeners, frontends=frontends, metrics=str(self.status.address), admin=admin)
        bound.info(
            "listening on {}; metrics on {}; admin API {}",
            ", ".join(listeners),
            self.status.address,
            f"on {admin}" if admin else "off",
        )


def _needs_routing(config: Config) -> bool:
    return any(pool.app is not None for pool in config.pools)
