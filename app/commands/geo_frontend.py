"""Finds the geo frontend for `explain` and `simulate`, and its backends."""

from __future__ import annotations

from contextlib import closing

from app.commands.output import fail
from app.config import Config, Pool
from app.outbound.routing_database import open_repository
from app.ports import BackendSet


def geo_frontend(config: Config, name: str | None) -> tuple[str, Pool]:
    """Return the name and the pool of a geo frontend, by default the first. Exits with 2 if there is none."""
    of_algorithm = {frontend.name: frontend for frontend in config.frontends if frontend.algorithm == "geo"}
    if name is None and of_algorithm:
        name = next(iter(of_algorithm))
    if name not in of_algorithm:
        fail(
            "edgeproxy",
            f"no frontend {name or ''} with algorithm geo; the geo frontends are: {', '.join(of_algorithm) or 'none'}",
        )
    return name, next(pool for pool in config.pools if pool.name == of_algorithm[name].backend)


def stored_backends(config: Config, pool: Pool) -> BackendSet:
    """Load the backends from the routing database, if the pool uses it. Raises RepositoryError."""
    if pool.app is None:
        return BackendSet()
    with closing(open_repository(config.routing)) as repository:
        return repository.load()
