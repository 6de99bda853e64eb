"""Access of the admin API to the routing database: opened for each piece of work, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from app.admin.problems import Problem
from app.config import Config
from app.outbound.routing_database import open_store
from app.outbound.worker_thread import WorkerThread
from app.ports import BackendTable

T = TypeVar("T")


def require_routing(config: Config) -> None:
    """Raise Problem where what stands in the routing database would serve nobody."""
    if all(pool.app is None for pool in config.pools):
        raise Problem(409, "no pool of this edge takes its backends from a routing database")


def require_registrable(config: Config) -> None:
    """Raise Problem where registrations are not kept."""
    require_routing(config)
    if config.db_url is not None:
        raise Problem(409, "services register where the routing database is SQLite's, or replicated from etcd")


class RoutingFile:
    """Carries out work on the routing database of the configuration of the moment, in the one thread that writes it."""

    def __init__(self, config: Callable[[], Config], thread: WorkerThread) -> None:
        self._config = config
        self._thread = thread

    def __call__(self, work: Callable[[BackendTable], T], *, makes_store: bool = False) -> T:
        """Do it and return what it returns. Raises Problem, RepositoryError, and what the work raises."""
        config = self._config()
        require_routing(config)

        def with_store() -> T:
            if config.db_url is None and not makes_store and not config.db_path.exists():
                raise Problem(503, f"{config.db_path} does not exist")
            with open_store(config.routing) as store:
                return work(store)

        return self._thread.run(with_store)
