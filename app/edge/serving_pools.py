"""The pools in force, made of the configuration, the routing database and the addresses of host names.

The actors are told of every change. Pools and selectors of former configurations stay while connections use them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from actors.messages import Forget, ProbeSoon, ReplaceBackends, ReplaceLimits, ReplacePools, ReplaceTargets
from actors.runtime import tell
from app.config import Config
from app.domain.limits import LimitRules
from app.domain.model import Backend
from app.domain.plan import PoolPlan
from app.domain.probe import Target
from app.edge.plans import backends_of, changed_checks, limit_rules, plan_pools, probe_targets, with_retired
from app.outbound.name_lookup import NameLookup
from app.outbound.name_watcher import NameWatcher
from app.ports import BackendSet
from app.proxy_service import Actors

Used = Iterable[tuple[str, str]]
"""Pools, each with a frontend that selects in it."""


class ServingPools:
    """Pools, selectors and backends by `config`, the configuration in force."""

    def __init__(self, config: Config, actors: Actors) -> None:
        self.config = config
        self._actors: Final = actors
        self._rows: tuple[Backend, ...] = ()
        self.names: Final = NameWatcher(NameLookup(), on_change=self.replace_backends)
        self._configured = self.plans = plan_pools(config)
        """The pools and selectors of the configuration; and these with the former ones that are still used."""
        self._backends: dict[str, tuple[Backend, ...]] = {pool.name: backends_of(pool, ()) for pool in config.pools}

    @property
    def backends(self) -> Mapping[str, tuple[Backend, ...]]:
        """The backends of the moment, by pool."""
        return self._backends

    def targets(self) -> tuple[Target, ...]:
        """Return what is to be probed."""
        return probe_targets(self.config, self._backends)

    def limits(self) -> dict[str, LimitRules]:
        """Return the limits per client, by frontend."""
        return limit_rules(self.config)

    def use(self, config: Config) -> None:
        """Serve by another configuration; connections accepted under the old one still find their pools."""
        everything = {(plan.name, selector.frontend) for plan in self.plans for selector in plan.selectors}
        checks = changed_checks(self.config, config)
        self.config = config
        self._configured = plan_pools(config)
        self._replace_plans(with_retired(self._configured, self.plans, everything))
        tell(self._actors.bindings, ReplaceLimits(self.limits()))
        self.replace_backends()
        if checks:
            tell(self._actors.health, ProbeSoon(checks))

    def replace_rows(self, found: BackendSet) -> None:
        """Use other rows of the routing database."""
        self._rows = found.backends
        self.replace_backends()

    def replace_backends(self) -> None:
        """Tell the actors of every pool whose backends have changed."""
        rows = {pool.name: backends_of(pool, self._rows) for pool in self.config.pools}
        self.names.follow(backend for found in rows.values() for backend in found)
        for pool, found in rows.items():
            backends = self.names.resolved(found)
            if backends != self._backends.get(pool):
                self._backends[pool] = backends
                tell(self._actors.registry, ReplaceBackends(pool, backends))
        tell(self._actors.health, ReplaceTargets(self.targets()))
        self._forget_vanished()

    def forget_retired(self, used: Used) -> None:
        """Remove the pools and selectors of former configurations that no connection uses."""
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
        """Tell the metrics which backends and frontends there are; requests without a backend are counted under ""."""
        known = {(pool, backend.id) for pool, backends in self._backends.items() for backend in backends}
        without_backend = {(pool, "") for pool in (*self._backends, "")}
        frontends = {selector.frontend for plan in self.plans for selector in plan.selectors}
        tell(self._actors.metrics, Forget(frozenset(known | without_backend), frozenset(frontends)))
