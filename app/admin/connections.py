"""Open connections: list them, drop one, drop all of a client."""

from __future__ import annotations

import time

from pydantic import Field

from app.admin.api import Api, IpAddress, Model, Page, next_page
from app.admin.problems import Problem
from app.domain.client import unmapped
from app.domain.outcome import State
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.inbound.connections import Connection

TAG = "connections"
REASON = "operator"
"""The reason in the access log of a dropped connection."""


class OpenConnection(Model):
    """One client connection."""

    id: str = Field(description="Its id, valid while it is open")
    frontend: str
    protocol: str
    listener: str = Field(description="The address the client connected to")
    client: str = Field(description="The client's address, from the PROXY header if the peer must send one")
    client_port: int
    peer: str = Field(description="The address at the other end of the socket")
    country: str | None
    region: str | None
    pool: str
    backend: str | None = Field(
        description="The backend of its lease; null between two requests and before a backend is selected"
    )
    tier: int | None
    affinity: str | None
    age_seconds: float
    bytes_up: int = Field(description="Client to backend, since the connection was opened")
    bytes_down: int
    is_half_closed: bool
    is_idle: bool = Field(description="Between two HTTP requests")


class OpenConnections(Model):
    """A page of the connections, oldest first."""

    items: list[OpenConnection]
    total: int
    next: int | None = Field(description="`first` of the next page; null on the last page")


class ConnectionPage(Page):
    """Selects connections."""

    frontend: str | None = Field(default=None, description="Only connections of this frontend")
    client: IpAddress | None = Field(default=None, description="Only connections of this client address")
    backend: str | None = Field(default=None, description="Only connections with a lease of this backend")


class ConnectionPath(Model):
    """Selects a connection."""

    connection_id: str = Field(description="Its id")


class ClientPath(Model):
    """Selects a client."""

    address: IpAddress = Field(description="IP address")


class Dropped(Model):
    """The number of dropped connections."""

    dropped: int


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""

    def drop(connection: Connection) -> None:
        connection.end(State.KILLED if connection.progress else State.KILLED_EARLY, REASON)

    @api.get("/api/connections", Scope.READ, tag=TAG, response=OpenConnections)
    def list_connections(query: ConnectionPage) -> OpenConnections:
        """List the open connections, oldest first."""
        found = [
            one
            for one in edge.data_plane.connections
            if (query.frontend is None or one.frontend.config.name == query.frontend)
            and (query.client is None or unmapped(one.source[0]) == query.client)
            and (query.backend is None or (one.lease is not None and one.lease.backend.id == query.backend))
        ]
        found.sort(key=lambda one: one.accepted_at)
        now = time.monotonic()
        page = found[query.first : query.first + query.count]
        return OpenConnections(
            items=[_described(one, now) for one in page], total=len(found), next=next_page(query, len(found))
        )

    @api.delete("/api/connections/<connection_id>", Scope.OPERATE, tag=TAG, problems=(404,))
    def drop_connection(path: ConnectionPath) -> None:
        """Drop a connection."""
        connection = next((one for one in edge.data_plane.connections if _id_of(one) == path.connection_id), None)
        if connection is None:
            raise Problem(404, f"no such connection: {path.connection_id}")
        drop(connection)

    @api.delete("/api/clients/<address>/connections", Scope.OPERATE, tag=TAG, response=Dropped)
    def drop_client(path: ClientPath) -> Dropped:
        """Drop all connections of a client. Its binding stays."""
        found = [one for one in edge.data_plane.connections if unmapped(one.source[0]) == path.address]
        for connection in found:
            drop(connection)
        return Dropped(dropped=len(found))


def _id_of(connection: Connection) -> str:
    """Return an id that stays unique even if a later connection gets the same memory address."""
    return f"{id(connection):x}-{int(connection.accepted_at * 1e6):x}"


def _described(one: Connection, now: float) -> OpenConnection:
    lease, progress = one.lease, one.progress
    geo = one.client.geo if one.client is not None else None
    return OpenConnection.model_construct(
        id=_id_of(one),
        frontend=one.frontend.config.name,
        protocol=one.frontend.config.protocol,
        listener=one.listener,
        client=unmapped(one.source[0]),
        client_port=one.source[1],
        peer=one.peer[0],
        country=geo.country if geo is not None else None,
        region=geo.region if geo is not None else None,
        pool=one.frontend.service.route.pool,
        backend=lease.backend.id if lease is not None else None,
        tier=lease.tier if lease is not None else None,
        affinity=lease.affinity if lease is not None else None,
        age_seconds=round(now - one.accepted_at, 3),
        bytes_up=one.former_bytes_up + (progress.bytes_up if progress is not None else 0),
        bytes_down=one.former_bytes_down + (progress.bytes_down if progress is not None else 0),
        is_half_closed=progress.is_half_closed if progress is not None else False,
        is_idle=one.is_idle,
    )
