"""In-process figures of handlers: the cost of dispatch, and of the actor of a service in a call."""

import itertools
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from actors.handler_messages import DeployHandler, ReplaceEndpoints
from actors.handlers import HandlersActor
from actors.runtime import Address, ask
from actors.services.pool import ServicePool
from actors.services.service import ServiceActor, ServiceSlot
from app.domain.endpoints import Endpoint
from app.domain.handler_table import Grant, HandlerTable, Version
from app.domain.service_calls import CacheGet, Query
from app.domain.services import parse_service
from app.gateway.clients import Cache, Database
from app.gateway.dispatch import Dispatch
from app.gateway.router import Router
from app.outbound.service_connectors import connector
from app.ports import ServiceConnection
from scripts.benchmark.machine import find
from scripts.benchmark.processes import free_port, is_listening, running

ENDPOINTS = 100
PATHS = 10_000
CALLS = 4_000

Best = Callable[[Callable[[], object], int], float]
"""Returns microseconds per call."""


class Idle:
    """A connection that does nothing, so that a call costs only the actor and its pool."""

    def call(self, operation: object) -> object:
        return None

    def is_stale(self) -> bool:
        return False

    def close(self) -> None:
        pass


def figures(best_us: Best) -> dict[str, float]:
    """Return every figure, by label with unit."""
    label = f"Dispatch of a request: match among {ENDPOINTS} endpoints, look-up, guard, release"
    result = {
        f"{label}, µs ↓": dispatch_us(best_us, "", [f"/e{number}" for number in range(ENDPOINTS)]),
        "– of paths with a parameter, µs ↓": dispatch_us(
            best_us, "/<int:id>/items", [f"/e{number % ENDPOINTS}/{number}/items" for number in range(PATHS)]
        ),
    }
    with tempfile.TemporaryDirectory(prefix="edge-services-") as folder:
        for name, added in services(Path(folder)).items():
            result[f"A service's actor adds to a call: {name}, median, µs ↓"] = added
    return result


def dispatch_us(best_us: Best, rule_end: str, paths: Iterable[str]) -> float:
    """Return the µs to acquire and release a grant for a request, over these paths in turn."""
    address = Address("handlers")
    address.publish(HandlersActor.start(HandlerTable(Router())))
    endpoints = [Endpoint(f"e{number}", f"e{number}", f"/e{number}{rule_end}") for number in range(ENDPOINTS)]
    ask(address, ReplaceEndpoints(tuple(endpoints), Router(endpoints)), timeout_s=5)
    for endpoint in endpoints:
        version = Version(1, "", 0.0)
        ask(address, DeployHandler(endpoint.id, version, lambda _request, _context: None), timeout_s=5)
    dispatch = Dispatch(address)
    wanted = itertools.cycle(paths)

    def once() -> None:
        granted = dispatch.acquire("bench.example", next(wanted), "GET")
        assert isinstance(granted, Grant)
        dispatch.release(granted.grant_id, failed=False)

    return best_us(once, 20_000)


def services(folder: Path) -> dict[str, float]:
    """Return, by name of a call, the µs that it takes longer through the actor than on the connection."""
    added = {}
    cache = {"name": "main", "kind": "cache", "settings": {"engine": "redis", "host": "127.0.0.1"}}
    with pool_of(cache, Idle) as address:
        client = Cache("main", address, 5.0)
        added["one that takes no time"] = added_us(lambda: client.get("k"), Idle(), CacheGet("k"))
    database = {"name": "main", "kind": "database", "settings": {"engine": "sqlite", "path": str(folder / "main.db")}}
    connect = connector(parse_service(database))
    with pool_of(database, connect) as address:
        sql = Database("main", address, 5.0)
        added["SELECT 1 in SQLite"] = added_us(lambda: sql.query("SELECT 1"), connect(), Query("SELECT 1"))
    if find("redis-server"):
        added["GET in Redis"] = redis_us(folder, cache)
    return added


def redis_us(folder: Path, cache: dict[str, object]) -> float:
    """Return the added µs of a GET in a Redis that is started for it."""
    port = free_port()
    argv = [find("redis-server") or "redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with running("redis-server", argv, folder, lambda: is_listening(port)):
        described = {**cache, "settings": {"engine": "redis", "host": "127.0.0.1", "port": port}}
        connect = connector(parse_service(described))
        with pool_of(described, connect) as address:
            client = Cache("main", address, 5.0)
            return added_us(lambda: client.get("k"), connect(), CacheGet("k"))


@contextmanager
def pool_of(described: dict[str, object], connect: Callable[[], ServiceConnection]) -> Iterator[Address]:
    """Run the actor of a service until the block ends."""
    slot = ServiceSlot(parse_service(described), lambda spec: ServicePool(spec, connect))
    address = Address("service")
    address.publish(ServiceActor.start(slot))
    slot.pool.start()
    reason = slot.pool.wait(5.0)
    if reason is not None:
        raise RuntimeError(f"the service did not start: {reason}")
    try:
        yield address
    finally:
        slot.pool.close(1.0)
        address.ref.stop()


def added_us(through_actor: Callable[[], object], direct: ServiceConnection, operation: object) -> float:
    """Return the median of calls through the actor minus that of calls on the connection.

    The calls alternate, because a call to another process takes 19 or 60 µs, depending on where the kernel runs it.
    """
    actor_us, direct_us = [], []
    try:
        for _ in range(CALLS):
            started = time.perf_counter()
            through_actor()
            halfway = time.perf_counter()
            direct.call(operation)
            actor_us.append((halfway - started) * 1e6)
            direct_us.append((time.perf_counter() - halfway) * 1e6)
    finally:
        direct.close()
    return median(actor_us) - median(direct_us)
