"""Actors: mailboxes, restarts, uptime."""

from __future__ import annotations

import time

from pydantic import Field

from actors.supervisor import Child
from app.admin.api import Api, Model
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts


class OneActor(Model):
    """A supervised actor."""

    name: str
    mailbox_depth: int = Field(description="Messages waiting")
    restarts: int = Field(description="Restarts since the start of the edge")
    uptime_seconds: float = Field(description="Since the last restart")


class SupervisedActors(Model):
    """Every actor."""

    items: list[OneActor]


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""

    @api.get("/api/actors", Scope.READ, tag="actors", response=SupervisedActors)
    def list_actors() -> SupervisedActors:
        """List the actors."""
        return SupervisedActors(items=[_described(child) for child in edge.supervisor.children])


def _described(child: Child) -> OneActor:
    return OneActor(
        name=child.address.name,
        mailbox_depth=child.address.depth,
        restarts=child.restart_count,
        uptime_seconds=round(time.monotonic() - child.started_at, 3),
    )
