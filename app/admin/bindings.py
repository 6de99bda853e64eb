"""Bindings of clients to backends: list, look one up, unbind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import gevent
from pydantic import Field

from actors.messages import CopyBindings, CountBindings, DescribeBinding, Unbind
from actors.runtime import ask, tell
from app.admin.api import Api, IpAddress, Model
from app.admin.problems import Problem
from app.domain.affinity import Binding
from app.domain.client import client_key
from app.domain.tokens import Scope
from app.edge.parts import EdgeParts
from app.proxy_service import ASK_TIMEOUT_SECONDS

TAG = "bindings"
BREATH_SECONDS: Final = 0.001
"""For others, after each of up to some hundred shards. A sleep of 0 would not let the loop look at its sockets."""


class BindingQuery(Model):
    """Which part of the table."""

    cursor: str = Field(default="0.0", pattern=r"^[0-9]{1,6}\.[0-9]{1,9}$", description="`next` of the page before")
    count: int = Field(default=100, ge=1, le=1000, description="Return so many at most")
    pool: str | None = Field(default=None, description="Those of this pool")
    backend: str | None = Field(default=None, description="Those to this backend")


class OneBinding(Model):
    """A client and the backend that it is bound to."""

    pool: str
    client: str = Field(description="IP address, or the first of an IPv6 network whose clients count as one")
    backend: str
    expires_in_seconds: float = Field(description="Unless the client comes again")


class SomeBindings(Model):
    """A page of the table. Clients that come and go between two pages may be missing or stand in both."""

    items: list[OneBinding]
    held: int = Field(description="Bindings in the whole table, those that have just expired included")
    next: str | None = Field(description="`cursor` of the next page; null: this is the last")


class BindingPath(Model):
    """Whose binding."""

    pool: str = Field(description="Name of the pool")
    client: IpAddress = Field(description="IP address")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""

    def walk(shard: int, offset: int, shards: int) -> Iterator[tuple[str, Binding]]:
        """Go through the table shard by shard; with each binding comes the cursor of what follows it."""
        while shard < shards:
            copied = ask(edge.actors.bindings, CopyBindings(shard), timeout_s=ASK_TIMEOUT_SECONDS)
            for place, binding in enumerate(copied[offset:], start=offset + 1):
                yield f"{shard}.{place}", binding
            shard, offset = shard + 1, 0
            gevent.sleep(BREATH_SECONDS)

    def look_up(path: BindingPath) -> Binding:
        key = client_key(path.pool, path.client, edge.config().binding_ipv6_prefix)
        found = ask(edge.actors.bindings, DescribeBinding(key), timeout_s=ASK_TIMEOUT_SECONDS)
        if found is None:
            raise Problem(404, f"client {path.client} has no binding in pool {path.pool}")
        return found

    @api.get("/api/bindings", Scope.READ, tag=TAG, response=SomeBindings)
    def list_bindings(query: BindingQuery) -> SomeBindings:
        """List bindings, in no order that means anything."""
        counts = ask(edge.actors.bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
        shard, offset = map(int, query.cursor.split("."))
        beginning = f"{query.pool} " if query.pool is not None else ""
        items: list[OneBinding] = []
        now, cursor = time.monotonic(), None
        for after, one in walk(shard, offset, counts.shards):
            is_wanted = query.backend in (None, one.backend_id) and one.client.startswith(beginning)
            if is_wanted and one.expires_at > now:
                items.append(_described(one, now))
                if len(items) == query.count:
                    cursor = after
                    break
        return SomeBindings(items=items, held=counts.bindings, next=cursor)

    @api.get("/api/bindings/<path:pool>/<client>", Scope.READ, tag=TAG, response=OneBinding, problems=(404,))
    def get_binding(path: BindingPath) -> OneBinding:
        """Look up which backend a client is bound to."""
        return _described(look_up(path), time.monotonic())

    @api.delete("/api/bindings/<path:pool>/<client>", Scope.OPERATE, tag=TAG, problems=(404,))
    def unbind_client(path: BindingPath) -> None:
        """End a client's binding: its next connection is an election. Open connections stay."""
        binding = look_up(path)
        tell(edge.actors.bindings, Unbind(binding.client, binding.backend_id))


def _described(binding: Binding, now: float) -> OneBinding:
    pool, _, client = binding.client.rpartition(" ")
    return OneBinding.model_construct(
        pool=pool,
        client=client,
        backend=binding.backend_id,
        expires_in_seconds=round(max(0.0, binding.expires_at - now), 3),
    )
