"""The data plane: accepts connections and copies their bytes. The rest of an edge sees connections only through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from itertools import count
from typing import Final

from actors.messages import TrafficMoved
from actors.runtime import tell
from app.config import PIPES, Config, Frontend, HttpOptions, idle_upstreams
from app.domain import metric_names as names
from app.domain.model import Backend
from app.inbound.access_log import AccessLog
from app.inbound.connections import Connections
from app.inbound.frontend import OpenFrontend
from app.inbound.http.request_tally import RequestTally
from app.inbound.http.responder import Responder
from app.inbound.http.server import HttpServer
from app.inbound.http.upstream_pool import UpstreamPool
from app.inbound.listeners import Accept, Bound, Listeners
from app.inbound.pipes import PipePool
from app.inbound.proxy_header import TrustedProxies
from app.inbound.tcp.server import TcpServer
from app.outbound.json_log import JsonLog, rfc3339
from app.outbound.systemd_sockets import PassedSockets
from app.ports import GeoResolver
from app.proxy_service import Actors, ProxyService, Route
from app.wire.http1_forwarding import HeaderRules


class DataPlane:
    """The frontends, their listeners and their connections, in one process.

    A configuration is served in two steps, so that it applies wholly or not at all: `prepare` may fail, `open` cannot.
    """

    def __init__(
        self,
        config: Config,
        actors: Actors,
        geo: GeoResolver | None,
        log: JsonLog,
        handling: Responder,
        count_event: Callable[..., None],
        passed: PassedSockets,
    ) -> None:
        """`handling` responds to the requests of endpoints; `passed` are sockets that listen already."""
        self._config = config
        self._actors = actors
        self._geo = geo
        self._access_log = AccessLog(log.write_access, rfc3339)
        self._requests = RequestTally()
        self.connections: Final = Connections()
        limit, pipes = config.effective_max_connections(), PipePool(PIPES)
        tcp = TcpServer(limit, self.connections, self._access_log, pipes)
        self._http = HttpServer(
            limit,
            self.connections,
            self._access_log,
            self._requests,
            pipes,
            UpstreamPool(idle_upstreams()),
            handling,
        )
        servers: dict[str, Accept] = {"tcp": tcp.accept, "http": self._http.accept}
        self.listeners: Final = Listeners(servers, partial(count_event, names.ACCEPT_ERRORS), passed)
        self._lease_ids = count(1)
        self._frontends: list[OpenFrontend] = []
        self._prepared: list[OpenFrontend] = []
        self._bound: Bound = {}

    # Configurations

    def prepare(self, config: Config) -> None:
        """Bind the new addresses of a configuration, accepting no connection yet. Raises BindError, and binds none."""
        self._prepared = self._make_frontends(config)
        self._bound = self.listeners.prepare(self._prepared)

    def abandon(self) -> None:
        """Close the addresses that were bound and not opened."""
        for listener in self._bound.values():
            listener.close()
        self._bound = {}

    def open(self, config: Config) -> None:
        """Serve exactly the frontends of the configuration that was prepared."""
        bound, self._bound = self._bound, {}
        self._config, self._frontends = config, self._prepared
        self.listeners.open(self._frontends, bound)
        self._http.end_idle()

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
            service = ProxyService(
                self._actors, self._geo, _route(frontend), config.binding_ipv6_prefix, self._lease_ids
            )
            proxies = TrustedProxies(frontend.proxy_protocol_from)
            made.append(OpenFrontend(frontend, pool, service, proxies, _header_rules(frontend.http)))
        return made

    # The regular look at all connections

    def sweep_seconds(self) -> float:
        """Return the pause between two sweeps: 1 s, or less if a frontend has a short timeout."""
        return min(1.0, *(seconds / 4 for frontend in self._config.frontends for seconds in _timeouts(frontend)))

    def sweep(self) -> None:
        """End connections that are over their time, and report what moved since the last sweep."""
        self.connections.sweep(time.monotonic())
        self.report_traffic()
        self._access_log.sum_up()
        self._http.sweep()

    def report_traffic(self) -> None:
        """Tell the metrics what the connections did since the last report."""
        if tell(self._actors.metrics, TrafficMoved(*self.connections.totals(), self._requests.view())):
            self.connections.forget_totals()
            self._requests.clear()

    # What the other parts of an edge ask

    @property
    def addresses(self) -> dict[str, list[str]]:
        """The addresses listened on, by frontend."""
        return {name: [str(address) for address in found] for name, found in self.listeners.addresses.items()}

    @property
    def open_at(self) -> dict[str, int]:
        """The number of open connections, by frontend that has any."""
        return dict(self.connections.open_at)

    @property
    def open_count(self) -> int:
        return len(self.connections)

    def leases(self) -> list[tuple[str, int, Backend]]:
        """Return (pool, lease id, backend) of every lease held now."""
        return self.connections.leases()

    def admissions(self, frontend: str) -> list[tuple[str, int]]:
        """Return (client key, admission) of every connection of a frontend that counts against its client's limits."""
        return self.connections.admissions(frontend)

    def pools_in_use(self) -> Iterator[tuple[str, str]]:
        """Yield (pool, frontend) of the open connections, each as it was when the connection was accepted."""
        return ((one.service.route.pool, one.config.name) for one in self.connections.frontends())

    def end_backends(self, pool: str, backend_ids: Collection[str], reason: str) -> Mapping[str, int]:
        """End every connection to these backends of a pool. Returns how many by backend id."""
        return self.connections.end_backends(pool, backend_ids, reason)

    def end_all(self, reason: str) -> int:
        """End every connection. Returns how many."""
        return self.connections.end_all(reason)

    def close_listeners(self) -> None:
        """Accept the queued connections, close the listeners, and end the connections that wait for a request."""
        self.listeners.close()
        self._http.end_idle()

    def let_backends_go(self) -> None:
        """Close the idle connections to backends."""
        self._http.stop()


def _timeouts(frontend: Frontend) -> tuple[float, ...]:
    tcp, http = frontend.tcp, frontend.http
    return (
        tcp.idle_timeout_seconds,
        tcp.linger_timeout_seconds,
        http.head_timeout_seconds,
        http.keep_alive_timeout_seconds,
        http.response_timeout_seconds,
        http.request_body_timeout_seconds,
        http.send_timeout_seconds,
        http.backend_idle_timeout_seconds,
    )


def _header_rules(options: HttpOptions) -> HeaderRules:
    return HeaderRules(TrustedProxies(options.trusted_proxies), options)


def _route(frontend: Frontend) -> Route:
    limits = frontend.limits
    has_limits = limits.max_connections_per_client > 0 or limits.connection_rate_per_client > 0
    return Route(frontend.name, frontend.backend, frontend.affinity, has_limits)
