"""The registry actor owns the pools: backends, counts, health, leases. It translates messages to app.domain.pool."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Final

import gevent
from loguru import logger

from actors.messages import (
    BackendProbed,
    ContinueReplacing,
    Count,
    CountCandidates,
    DescribePool,
    LeaseBackend,
    PoolCounts,
    ReadGenerations,
    ReleaseLease,
    ReplaceBackends,
    ReplacePools,
    RestoreLease,
    TrafficFailed,
    TrafficSucceeded,
)
from actors.runtime import ActorDead, Address, GeventActor, tell
from app.domain import metric_names as names
from app.domain.health import HealthState
from app.domain.member_views import Transition
from app.domain.model import Backend
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.pool import Pool
from app.domain.selection import Selector

_BETWEEN_SLICES_SECONDS: Final = 0.001


class RegistryActor(GeventActor):
    """Translates messages. After a crash it is rebuilt from the planned pools, the known backends and the leases held.

    `make_selector` makes the selector for a plan; `leases` are (pool, lease id, backend).
    """

    def __init__(
        self,
        make_selector: Callable[[SelectorPlan], Selector],
        metrics: Address,
        plans: Iterable[PoolPlan],
        backends: Mapping[str, Iterable[Backend]],
        leases: Iterable[tuple[str, int, Backend]],
    ) -> None:
        super().__init__()
        self._make_selector = make_selector
        self._metrics = metrics
        self._pools: dict[str, Pool] = {}
        self._replacing: dict[str, Iterator[None]] = {}
        now = time.monotonic()
        self._replace_pools(plans, now)
        for pool, found in backends.items():
            self._pool(pool).replace(found, now)
        for pool, lease_id, backend in leases:
            self._pool(pool).restore(lease_id, backend, now)

    def handle(self, message: object) -> object:  # noqa: PLR0912 - one arm a message
        match message:
            case LeaseBackend(lease_id, pool, frontend, client, preferred, excluded):
                return self._pool(pool).lease(lease_id, frontend, client, preferred, excluded, time.monotonic())
            case ReleaseLease(pool, lease_id):
                self._pool(pool).release(lease_id)
            case TrafficFailed(pool, backend, cause):
                self._pool(pool).traffic_failed(backend, cause, time.monotonic())
            case TrafficSucceeded(pool, backend):
                self._pool(pool).traffic_succeeded(backend, time.monotonic())
            case BackendProbed(pool, backend, failure):
                self._pool(pool).probed(backend, failure, time.monotonic())
            case RestoreLease(pool, lease_id, backend):
                self._pool(pool).restore(lease_id, backend, time.monotonic())
            case ReplacePools(plans):
                self._replace_pools(plans, time.monotonic())
            case ReplaceBackends(pool, backends):
                self._replacing[pool] = self._pool(pool).replace_in_slices(backends, time.monotonic())
                self._continue_replacing(pool)
            case ContinueReplacing(pool):
                self._continue_replacing(pool)
            case CountCandidates():
                return {name: PoolCounts(*pool.counts(time.monotonic())) for name, pool in self._pools.items()}
            case ReadGenerations():
                return {name: pool.generation(time.monotonic()) for name, pool in self._pools.items()}
            case DescribePool(pool, first, count):
                return self._pool(pool).view(time.monotonic(), first, count)
            case _:
                return super().handle(message)
        return None

    def _pool(self, name: str) -> Pool:
        """Return a pool; an unknown one is an empty pool."""
        pool = self._pools.get(name)
        return pool if pool is not None else self._new_pool(name)

    def _new_pool(self, name: str) -> Pool:
        return Pool(lambda change: self._health_changed(name, change), lambda is_open: self._failed_open(name, is_open))

    def _replace_pools(self, plans: Iterable[PoolPlan], now: float) -> None:
        """Apply the configured pools and selectors; unchanged ones keep their state."""
        before, self._pools = self._pools, {}
        for plan in plans:
            pool = self._pools[plan.name] = before.get(plan.name) or self._new_pool(plan.name)
            pool.set_rules(plan.rules, now)
            pool.set_selectors(plan.selectors, self._make_selector)

    def _continue_replacing(self, pool: str) -> None:
        for _ in self._replacing.get(pool, ()):
            # Sent at once, the message would be the next one, and the event loop would get no turn.
            gevent.spawn_later(_BETWEEN_SLICES_SECONDS, self._send_continue, pool)
            return
        self._replacing.pop(pool, None)

    def _send_continue(self, pool: str) -> None:
        with suppress(ActorDead):  # a successor starts from the whole set
            self.actor_ref.tell(ContinueReplacing(pool))

    def _health_changed(self, pool: str, change: Transition) -> None:
        """Log and count a change of a backend's health."""
        bound = logger.bind(pool=pool, backend=change.backend_id, state=change.after, cause=change.cause)
        if change.after is HealthState.EJECTED:
            bound.warning("backend {} is ejected for {:.0f} s: {}", change.backend_id, change.seconds, change.cause)
        else:
            level = "WARNING" if change.after is HealthState.DOWN else "INFO"
            bound.log(level, "backend {} is {}: {}", change.backend_id, change.after, change.cause)
        tell(self._metrics, Count(names.HEALTH_CHANGES, (pool, change.backend_id, change.after)))

    def _failed_open(self, pool: str, is_open: bool) -> None:
        if is_open:
            logger.bind(pool=pool).error(
                "pool {}: every backend is down, so all that are healthy in the database serve", pool
            )
            tell(self._metrics, Count(names.FAIL_OPENS, (pool,)))
        else:
            logger.bind(pool=pool).info("pool {}: healthy backends serve again", pool)
