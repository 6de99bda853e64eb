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
        raise Problem(
            409,
            "no pool of this edge takes its backends from a routing database: its servers are those of "
            f"{config.config_path or 'the configuration'}, where weight: 0 and a reload drain one",
        )


def require_registrable(config: Config) -> None:
    """Raise Problem if services cannot register at this edge."""
    require_routing(config)
    if config.db_url is not None:
        raise Problem(
            409, "registration needs a routing database in SQLite, or replicated from etcd; this edge has PostgreSQL"
        )


def explain_server(config: Config, backend_id: str) -> str | None:
    """Return what to do with a server of the configuration file, None for any other backend."""
    servers = {str(server.address) for pool in config.pools for server in pool.servers}
    if backend_id not in servers:
        return None
    return (
        f"{backend_id} is a server of {config.config_path or 'the configuration'}, not of the routing database: "
        "to drain it, give it weight: 0 there and reload; to remove it, remove it there"
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
