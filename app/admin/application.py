"""Puts the admin API together: authentication and the routes of every subject."""

from __future__ import annotations

from gevent.event import Event

from app.admin import (
    actors,
    backends,
    bindings,
    clients,
    configuration,
    connections,
    endpoints,
    explain,
    logs,
    metrics,
    page,
    pools,
    registrations,
    services,
    tokens,
)
from app.admin.access import Authenticator
from app.admin.api import Api
from app.admin.forwarding import forward_changes
from app.admin.routing_file import RoutingFile, explain_server, require_registrable
from app.admin.token_service import TokenService
from app.domain import metric_names as names
from app.edge.parts import EdgeParts
from app.edge.reload import Reloader


def make_api(edge: EdgeParts, service: TokenService, reloader: Reloader | None, has_stopped: Event) -> Api:
    """Return the admin API of an edge. `service` must be started before the first request.

    `reloader` is None without a configuration file. Streams end when `has_stopped` is set.
    """
    authenticator = Authenticator(service.current, service.refresh)
    api = Api(authenticator, edge.log.write_access, lambda status: edge.count(names.ADMIN_REQUESTS, str(status)))
    if edge.config().is_replicated:
        forward_changes(api, edge.config().replicator_listen_addr)
    backends.add_routes(
        api, RoutingFile(edge.config, edge.routing_thread), lambda one: explain_server(edge.config(), one)
    )
    registrations.add_routes(api, edge.registrar, lambda: require_registrable(edge.config()))
    for subject in (
        connections,
        clients,
        bindings,
        actors,
        pools,
        explain,
        metrics,
        endpoints,
        services,
    ):
        subject.add_routes(api, edge)
    configuration.add_routes(api, edge, reloader)
    logs.add_routes(api, edge.log.tail, authenticator, has_stopped)
    tokens.add_routes(api, service)
    page.add_page(api)
    return api
