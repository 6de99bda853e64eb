"""Warns of what a configuration expects of the routing database and does not find there, for `check --db`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Final

from app.config import Config, Frontend, ListenAddress
from app.config.faults import did_you_mean, nearest
from app.config.loops import loop_rule, loops
from app.domain.explain import obstacle
from app.domain.model import Backend
from app.domain.words import counted
from app.edge.plans import backends_of
from app.edge.preflight import is_here
from app.outbound.name_watcher import resolve_once
from app.outbound.routing_database import open_repository
from app.ports import RepositoryError

BACKENDS_NAMED: Final = 3


def routing_warnings(config: Config) -> Iterator[str]:
    """Read the routing database and yield the warnings: the edge starts all the same, and follows the database."""
    pools = {pool.name: pool for pool in config.pools if pool.app is not None}
    users = [frontend for frontend in config.frontends if frontend.backend in pools]
    if not users:
        return
    try:
        with closing(open_repository(config.routing)) as repository:
            found = repository.load()
    except RepositoryError as error:
        yield f"routing database: {error}"
        return
    backends = resolve_once(found.backends)
    if found.refused:
        yield f"routing database: {counted(len(found.refused), 'row')} refused; `backends list` names them"
    served = [backends_of(pools[frontend.backend], backends) for frontend in users]
    for frontend, rows in zip(users, served, strict=True):
        yield from _darkness(frontend, pools[frontend.backend].app or "", rows, backends)
    yield from _loops(users, served)


def _darkness(
    frontend: Frontend, app: str, rows: tuple[Backend, ...], everything: tuple[Backend, ...]
) -> Iterator[str]:
    """Yield a warning if no backend of a frontend takes new clients."""
    of_app = f" of app {app!r}" if app else ""
    if not rows:
        apps = sorted({backend.app for backend in everything if backend.app})
        hint = did_you_mean(nearest(app, apps) if app else None)
        yield f"frontend {frontend.name}: the routing database has no backend{of_app}{hint}"
        return
    out = [f"{backend.id}: {reason}" for backend in rows if (reason := obstacle(backend)) is not None]
    if len(out) == len(rows):
        more = f"; and {len(out) - BACKENDS_NAMED} more" if len(out) > BACKENDS_NAMED else ""
        listed = "; ".join(out[:BACKENDS_NAMED])
        yield f"frontend {frontend.name}: no backend{of_app} takes new clients ({listed}{more})"


def _loops(frontends: list[Frontend], served: list[tuple[Backend, ...]]) -> Iterator[str]:
    """Yield a warning for each row that leads back to the frontend that dials it."""
    addresses = [[ListenAddress(backend.host, backend.port) for backend in rows] for rows in served]
    for hop in loops([frontend.listen for frontend in frontends], addresses, is_here):
        rule = loop_rule(frontends[hop.dialling].name, frontends[hop.accepting].name)
        yield f"routing database: backend {served[hop.dialling][hop.server].id}: {rule}"
