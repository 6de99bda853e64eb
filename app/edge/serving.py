"""What serves now: frontends, pools, listeners. Another configuration is applied whole or not at all."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from itertools import count

import gevent
from loguru import logger

from app.config import Config, Frontend, HttpOptions
from app.domain.words import counted
from app.edge.metrics import MetricsText
from app.edge.parts import EdgeParts
from app.edge.readiness import readiness
from app.edge.reload import Draining
from app.inbound.frontend import OpenFrontend
from app.inbound.listeners import Bound
from app.inbound.proxy_header import TrustedProxies
from app.inbound.status.server import StatusServer
from app.proxy_service import ProxyService, Route
from app.wire.http1_forwarding import HeaderRules


class Serving:
    """Prepares and opens the frontends, at the start and when another configuration is applied."""

    def __init__(self, parts: EdgeParts) -> None:
        self._parts = parts
        self._metrics = MetricsText(parts)
        self.status = self._make_status(parts.config())
        """The metrics listener in force."""
        self._frontends: list[OpenFrontend] = []
        self._bound: Bound = {}
        self._lease_ids = count(1)

    def _make_status(self, config: Config) -> StatusServer:
        return StatusServer(config.metrics_listen_addr, partial(readiness, self._parts), self._metrics.render)

    # At the start

    def bind(self) -> None:
        """Bind the addresses of the frontends, accepting no connection yet. Raises BindError."""
        self._frontends = self._make_frontends(self._parts.config())
        self._bound = self._parts.listeners.prepare(self._frontends)

    def unbind(self) -> None:
        """Close the addresses that were bound and not opened."""
        for listener in self._bound.values():
            listener.close()

    def load_backends(self) -> None:
        """Load the routing database, and follow it, if a pool takes its backends from there."""
        if _needs_routing(self._parts.config()):
            self._parts.watcher.start()
        self._parts.pools.replace_backends()

    def open(self) -> None:
        """Accept connections from now on."""
        bound, self._bound = self._bound, {}
        self._parts.listeners.open(self._frontends, bound)
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
            frontends = self._make_frontends(config)
            undoing.callback(self._leave_routing)
            if _needs_routing(config):
                parts.watcher.start()  # waits for the disk, while nothing has changed yet
            parts.gateway.start_for(config)
            if parts.draining.is_set():  # meanwhile; from here on nothing waits
                raise Draining
            status = self._prepare_status(config, undoing)
            bound = parts.listeners.prepare(frontends)
            undoing.pop_all()
        parts.pools.use(config)
        self._frontends = frontends
        parts.listeners.open(frontends, bound)
        parts.http.end_idle()
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

    def _make_frontends(self, config: Config) -> list[OpenFrontend]:
        """Return what serves each frontend; one that has not changed stays the object it was."""
        known = {frontend.config.name: frontend for frontend in self._frontends}
        pools = {pool.name: pool for pool in config.pools}
        made = []
        for frontend in config.frontends:
            old, pool = known.get(frontend.name), pools[frontend.backend]
            if old is not None and old.config == frontend and old.pool == pool:
                made.append(old)
                continue
            route, prefix = _route(frontend), config.binding_ipv6_prefix
            service = ProxyService(self._parts.actors, self._parts.geo, route, prefix, self._lease_ids)
            proxies = TrustedProxies(frontend.proxy_protocol_from)
            made.append(OpenFrontend(frontend, pool, service, proxies, _header_rules(frontend.http)))
        return made

    def _log_addresses(self) -> None:
        addresses, server = self._parts.listeners.addresses, self._parts.admin
        listening = [(name, str(address)) for name, found in addresses.items() for address in found]
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


def _header_rules(options: HttpOptions) -> HeaderRules:
    return HeaderRules(TrustedProxies(options.trusted_proxies), options)


def _route(frontend: Frontend) -> Route:
    limits = frontend.limits
    has_limits = limits.max_connections_per_client > 0 or limits.connection_rate_per_client > 0
    return Route(frontend.name, frontend.backend, frontend.affinity, has_limits)
