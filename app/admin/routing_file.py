"""The admin API's access to the routing database, which is opened for each operation, in a thread."""

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
    """Raise Problem if no pool uses the routing database."""
    if all(pool.app is None for pool in config.pools):
        raise Problem(409, "no pool of this edge takes its backends from a routing database")


def require_registrable(config: Config) -> None:
    """Raise Problem if services cannot register at this edge."""
    require_routing(config)
    if config.db_url is not None:
        raise Problem(
            409, "registration needs a routing database in SQLite, or replicated from etcd; this edge has PostgreSQL"
        )


class RoutingFile:
    """Runs work on the current configuration's routing database, in the only thread that writes it."""

    def __init__(self, config: Callable[[], Config], thread: WorkerThread) -> None:
        self._config = config
        self._thread = thread

    def __call__(self, work: Callable[[BackendTable], T], *, creates_store: bool = False) -> T:
        """Run `work` and return its result. Raises Problem, RepositoryError, and what the work raises."""
        config = self._config()
        require_routing(config)

        def with_store() -> T:
            if config.db_url is None and not creates_store and not config.db_path.exists():
                raise Problem(503, f"{config.db_path} does not exist")
            with open_store(config.routing) as store:
                return work(store)

        return self._thread.run(with_store)
