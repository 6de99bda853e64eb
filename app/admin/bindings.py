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
YIELD_SECONDS: Final = 0.001
"""Pause after each of up to some hundred shards. A sleep of 0 would not let the loop poll its sockets."""


class BindingQuery(Model):
    """Selects a part of the table."""

    cursor: str = Field(default="0.0", pattern=r"^[0-9]{1,6}\.[0-9]{1,9}$", description="`next` of the previous page")
    count: int = Field(default=100, ge=1, le=1000, description="Maximum number of items to return")
    pool: str | None = Field(default=None, description="Only bindings of this pool")
    backend: str | None = Field(default=None, description="Only bindings to this backend")


class OneBinding(Model):
    """A client and the backend it is bound to."""

    pool: str
    client: str = Field(description="IP address, or the first address of an IPv6 network that counts as one client")
    backend: str
    expires_in_seconds: float = Field(description="Unless the client connects again")


class BindingPage(Model):
    """A page of the table. A binding that changes between two requests may be missing or appear twice."""

    items: list[OneBinding]
    total: int = Field(description="Bindings in the whole table, including expired ones not yet removed")
    next: str | None = Field(description="`cursor` of the next page; null on the last page")


class BindingPath(Model):
    """Selects a binding."""

    pool: str = Field(description="Name of the pool")
    client: IpAddress = Field(description="IP address")


def add_routes(api: Api, edge: EdgeParts) -> None:
    """Add the routes of this subject."""
    routes = _Routes(edge)
    api.get("/api/bindings", Scope.READ, tag=TAG, response=BindingPage)(routes.list_bindings)
    api.get("/api/bindings/<path:pool>/<client>", Scope.READ, tag=TAG, response=OneBinding, problems=(404,))(
        routes.get_binding
    )
    api.delete("/api/bindings/<path:pool>/<client>", Scope.OPERATE, tag=TAG, problems=(404,))(routes.unbind_client)


class _Routes:
    """A method for each route. Its docstring is the description of the route."""

    def __init__(self, edge: EdgeParts) -> None:
        self._edge = edge

    def _walk(self, shard: int, offset: int, shards: int) -> Iterator[tuple[str, Binding]]:
        """Yield the bindings shard by shard, each with the cursor of the next one."""
        while shard < shards:
            copied = ask(self._edge.actors.bindings, CopyBindings(shard), timeout_s=ASK_TIMEOUT_SECONDS)
            for place, binding in enumerate(copied[offset:], start=offset + 1):
                yield f"{shard}.{place}", binding
            shard, offset = shard + 1, 0
            gevent.sleep(YIELD_SECONDS)

    def _look_up(self, path: BindingPath) -> Binding:
        key = client_key(path.pool, path.client, self._edge.config().binding_ipv6_prefix)
        found = ask(self._edge.actors.bindings, DescribeBinding(key), timeout_s=ASK_TIMEOUT_SECONDS)
        if found is None:
            raise Problem(404, f"client {path.client} has no binding in pool {path.pool}")
        return found

    def list_bindings(self, query: BindingQuery) -> BindingPage:
        """List bindings, in no particular order."""
        counts = ask(self._edge.actors.bindings, CountBindings(), timeout_s=ASK_TIMEOUT_SECONDS)
        shard, offset = map(int, query.cursor.split("."))
        prefix = f"{query.pool} " if query.pool is not None else ""
        items: list[OneBinding] = []
        now, cursor = time.monotonic(), None
        for after, one in self._walk(shard, offset, counts.shards):
            is_wanted = query.backend in (None, one.backend_id) and one.client.startswith(prefix)
            if is_wanted and one.expires_at > now:
                items.append(_described(one, now))
                if len(items) == query.count:
                    cursor = after
                    break
        return BindingPage(items=items, total=counts.bindings, next=cursor)

    def get_binding(self, path: BindingPath) -> OneBinding:
        """Show which backend a client is bound to."""
        return _described(self._look_up(path), time.monotonic())

    def unbind_client(self, path: BindingPath) -> None:
        """Remove a client's binding: a backend is selected for its next connection. Open connections stay."""
        binding = self._look_up(path)
        tell(self._edge.actors.bindings, Unbind(binding.client, binding.backend_id))


def _described(binding: Binding, now: float) -> OneBinding:
    pool, _, client = binding.client.rpartition(" ")
    return OneBinding.model_construct(
        pool=pool,
        client=client,
        backend=binding.backend_id,
        expires_in_seconds=round(max(0.0, binding.expires_at - now), 3),
    )
