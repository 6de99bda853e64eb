"""Puts the admin API together: the gate, the routes of every subject, the WSGI application."""

from __future__ import annotations

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
from app.admin.access import Gate
from app.admin.api import Api
from app.admin.edge import RunningEdge
from app.admin.forwarding import forward_changes
from app.admin.routing_file import RoutingFile, require_registrable
from app.admin.token_service import TokenService


def make_api(edge: RunningEdge, service: TokenService) -> Api:
    """Return the admin API of an edge. `service` is to have loaded its tokens before the first request."""
    gate = Gate(service.current)
    api = Api(gate, edge.write_line, edge.on_response)
    if edge.config().is_replicated:
        forward_changes(api, edge.config().replicator_listen_addr)
    backends.add_routes(api, RoutingFile(edge.config, edge.routing_thread))
    registrations.add_routes(api, edge.registrar, lambda: require_registrable(edge.config()))
    for subject in (
        connections,
        clients,
        bindings,
        actors,
        pools,
        explain,
        metrics,
        configuration,
        endpoints,
        services,
    ):
        subject.add_routes(api, edge)
    logs.add_routes(api, edge, gate)
    tokens.add_routes(api, service)
    page.add_page(api)
    return api
