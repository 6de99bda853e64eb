"""The order in which an edge starts: each step with what undoes it. Stopping, or a failed start, undoes in reverse."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from loguru import logger

from app.edge.build import BuiltEdge
from app.edge.drain import drain
from app.outbound.name_watcher import FIRST_SECONDS


class Step(NamedTuple):
    """A step of the start, and what ends it. `undo` also works when `do` failed half-way."""

    do: Callable[[], object]
    undo: Callable[[], object]


def steps(edge: BuiltEdge) -> Iterator[Step]:
    """Yield the steps of the start in order."""
    parts, serving, config = edge.parts, edge.serving, edge.parts.config()
    yield Step(parts.log.start, parts.log.stop)
    yield Step(_nothing, partial(logger.info, "stopped"))
    yield Step(edge.actors.start, edge.actors.stop)
    yield Step(parts.gateway.start_actor, parts.gateway.stop)
    # Every address is bound before anything is loaded: one that is taken ends the start at once.
    yield Step(serving.start_status, serving.stop_status)
    if edge.start_admin is not None and parts.admin is not None:
        yield Step(edge.start_admin, parts.admin.stop)
    yield Step(parts.dns.server.prepare, parts.dns.server.stop)
    yield Step(serving.bind, parts.data_plane.abandon)
    # A former edge that drains has written its bindings before it released the addresses.
    if parts.snapshots is not None:
        yield Step(partial(parts.snapshots.restore, parts.bindings, config.binding_ttl_secs), _nothing)
    yield Step(serving.load_backends, parts.watcher.stop)
    yield Step(partial(parts.pools.names.settle, FIRST_SECONDS), parts.pools.names.stop)
    yield Step(partial(parts.gateway.start_for, config), _nothing)
    yield Step(_nothing, parts.data_plane.let_backends_go)
    yield Step(edge.housekeeping.start, edge.housekeeping.stop)
    yield Step(parts.pauses.start, parts.pauses.stop)
    if config.dns_listen_addr:
        yield Step(parts.dns.start, parts.dns.server.stop)
    if parts.snapshots is not None:
        yield Step(_nothing, parts.snapshots.write_last)
    yield Step(serving.open, partial(drain, edge))  # undone first: the drain
    yield Step(edge.notice.ready, edge.notice.stopping)  # as it begins


def _nothing() -> None:
    pass
