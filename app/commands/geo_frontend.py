"""The geo frontend that a command asks about, and the backends it has."""

from __future__ import annotations

from contextlib import closing

from app.commands.output import fail
from app.config import Config, Pool
from app.outbound.routing_database import open_repository
from app.ports import BackendSet


def geo_frontend(config: Config, name: str | None) -> tuple[str, Pool]:
    """Return the name and the pool of a geo frontend, the first one if none is named, or exit with 2."""
    of_algorithm = {frontend.name: frontend for frontend in config.frontends if frontend.algorithm == "geo"}
    if name is None and of_algorithm:
        name = next(iter(of_algorithm))
    if name not in of_algorithm:
        fail(
            "edgeproxy",
            f"there is no frontend {name or ''} with algorithm geo; with it: {', '.join(of_algorithm) or 'none'}",
        )
    return name, next(pool for pool in config.pools if pool.name == of_algorithm[name].backend)


def stored_backends(config: Config, pool: Pool) -> BackendSet:
    """Return the routing database's rows, if the pool has its backends there. Raises RepositoryError."""
    if pool.app is None:
        return BackendSet()
    with closing(open_repository(config.routing)) as repository:
        return repository.load()
