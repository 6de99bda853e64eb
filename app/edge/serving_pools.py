"""The pools that serve: what the configuration in force, the routing database and the names' addresses make of them.

The actors are told of every change. Pools and elections of former configurations stay until nobody is left on them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from actors.messages import Forget, ReplaceBackends, ReplaceLimits, ReplacePools, ReplaceTargets
from actors.runtime import tell
from app.config import Config
from app.domain.model import Backend
from app.domain.plan import PoolPlan
from app.domain.probe import Target
from app.edge.plans import backends_of, limit_rules, plan_pools, probe_targets, with_retired
from app.outbound.name_lookup import NameLookup
from app.outbound.name_watcher import NameWatcher
from app.proxy_service import Actors

Used = Iterable[tuple[str, str]]
"""Pools and the frontends that elect in them."""


class ServingPools:
    """Pools, elections and backends. `rows` gives the routing database's backends; `names` is to be told to look."""

    def __init__(self, config: Config, actors: Actors, rows: Callable[[], tuple[Backend, ...]]) -> None:
        self._config = config
        self._actors: Final = actors
        self._rows: Final = rows
        self.names: Final = NameWatcher(NameLookup(), on_change=self.replace_backends)
        self._configured = self.plans = plan_pools(config)
        """The pools and elections of the configuration; and these with those of former ones that are still used."""
        self._backends: dict[str, tuple[Backend, ...]] = {pool.name: backends_of(pool, ()) for pool in config.pools}

    @property
    def backends(self) -> Mapping[str, tuple[Backend, ...]]:
        """By pool. The registry actor's first ones, and whatever they are at the moment."""
        return self._backends

    def targets(self) -> tuple[Target, ...]:
        """Return what is to be probed."""
        return probe_targets(self._config.pools, self._backends)

    def use(self, config: Config) -> None:
        """Go by another configuration; whoever came in under the old one still finds its pool."""
        everything = {(plan.name, selector.frontend) for plan in self.plans for selector in plan.selectors}
        self._config = config
        self._configured = plan_pools(config)
        self._replace_plans(with_retired(self._configured, self.plans, everything))
        tell(self._actors.bindings, ReplaceLimits(limit_rules(config)))
        self.replace_backends()

    def replace_backends(self) -> None:
        """Tell the actors of every pool whose backends have changed."""
        rows = {pool.name: backends_of(pool, self._rows()) for pool in self._config.pools}
        self.names.follow(backend for found in rows.values() for backend in found)
        for pool, found in rows.items():
            backends = self.names.resolved(found)
            if backends != self._backends.get(pool):
                self._backends[pool] = backends
                tell(self._actors.registry, ReplaceBackends(pool, backends))
        tell(self._actors.health, ReplaceTargets(self.targets()))
        self._forget_vanished()

    def forget_retired(self, used: Used) -> None:
        """Drop what former configurations had and nobody is left on."""
        if self.plans == self._configured:
            return
        plans = with_retired(self._configured, self.plans, set(used))
        if plans != self.plans:
            self._replace_plans(plans)
            self._forget_vanished()

    def _replace_plans(self, plans: tuple[PoolPlan, ...]) -> None:
        self.plans = plans
        self._backends = {plan.name: self._backends.get(plan.name, ()) for plan in plans}
        tell(self._actors.registry, ReplacePools(plans))

    def _forget_vanished(self) -> None:
        """Tell the metrics which backends and frontends there are; requests that got no backend are counted too."""
        known = {(pool, backend.id) for pool, backends in self._backends.items() for backend in backends}
        nobody = {(pool, "") for pool in (*self._backends, "")}
        frontends = {selector.frontend for plan in self.plans for selector in plan.selectors}
        tell(self._actors.metrics, Forget(frozenset(known | nobody), frozenset(frontends)))
