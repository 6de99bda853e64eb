"""What a configuration means to the actors: pools and their selectors, backends, probe targets, client limits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from app.config import Config, Pool
from app.domain.health import HealthRules
from app.domain.host_name import is_host_name
from app.domain.limits import LimitRules
from app.domain.model import Backend
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.probe import ProbeSpec, Target


def plan_pools(config: Config) -> tuple[PoolPlan, ...]:
    """Return a plan for each pool, with a selector for each frontend that uses it."""
    return tuple(
        PoolPlan(
            pool.name,
            _health_rules(pool),
            tuple(
                SelectorPlan(frontend.name, frontend.algorithm, frontend.soft_limit_spill, _has_backups(pool))
                for frontend in config.frontends
                if frontend.backend == pool.name
            ),
        )
        for pool in config.pools
    )


def _has_backups(pool: Pool) -> bool:
    return any(server.backup for server in pool.servers)


def _health_rules(pool: Pool) -> HealthRules:
    check = pool.health_check
    return HealthRules(
        is_probed=check.type != "off",
        unhealthy_threshold=check.unhealthy_threshold,
        healthy_threshold=check.healthy_threshold,
        cooldown_seconds=check.cooldown_seconds,
    )


def with_retired(
    plans: Iterable[PoolPlan], former: Iterable[PoolPlan], still_used: Collection[tuple[str, str]]
) -> tuple[PoolPlan, ...]:
    """Return the plans, with those pools and selectors of the former plans that are still used.

    `still_used` has (pool, frontend) of the connections accepted before the configuration changed.
    """
    merged = {plan.name: plan for plan in plans}
    for old in former:
        used = tuple(selector for selector in old.selectors if (old.name, selector.frontend) in still_used)
        if old.name not in merged:
            if used:
                merged[old.name] = replace(old, selectors=used)
            continue
        known = {selector.frontend for selector in merged[old.name].selectors}
        retired = tuple(selector for selector in used if selector.frontend not in known)
        merged[old.name] = replace(merged[old.name], selectors=merged[old.name].selectors + retired)
    return tuple(merged.values())


def backends_of(pool: Pool, routing: Iterable[Backend]) -> tuple[Backend, ...]:
    """Return the backends of a pool: its servers of the configuration, or its app's rows of the routing database."""
    if pool.app is None:
        return tuple(
            Backend(
                id=str(server.address),
                app=None,
                region=None,
                country=None,
                host="" if is_host_name(server.address.host) else server.address.host,
                port=server.address.port,
                weight=server.weight,
                host_name=server.address.host if is_host_name(server.address.host) else None,
                is_backup=server.backup,
            )
            for server in pool.servers
        )
    return tuple(backend for backend in routing if not pool.app or backend.app == pool.app)


def probe_targets(config: Config, backends: Mapping[str, Iterable[Backend]]) -> tuple[Target, ...]:
    """Return a target for each backend that is not deleted and has an address, in every pool with a health check."""
    return tuple(
        Target(pool.name, backend, spec)
        for pool in config.pools
        if (spec := _probe_spec(pool, _proxy_header(config, pool))) is not None
        for backend in backends[pool.name]
        if not backend.is_deleted and backend.host
    )


def changed_checks(before: Config, after: Config) -> dict[str, int]:
    """Return how many probes decide on a backend, for each pool whose health check is another than before."""
    known = {pool.name: _check(before, pool) for pool in before.pools}
    return {
        pool.name: max(pool.health_check.unhealthy_threshold, pool.health_check.healthy_threshold)
        for pool in after.pools
        if pool.name in known and known[pool.name] != _check(after, pool)
    }


def _check(config: Config, pool: Pool) -> tuple[ProbeSpec | None, int, int]:
    check = pool.health_check
    return _probe_spec(pool, _proxy_header(config, pool)), check.unhealthy_threshold, check.healthy_threshold


def _proxy_header(config: Config, pool: Pool) -> Literal["off", "v1", "v2"]:
    """Return how probes of a pool begin: as traffic does, if its frontends agree on that."""
    headers = {frontend.tcp.send_proxy for frontend in config.frontends if frontend.backend == pool.name}
    return headers.pop() if len(headers) == 1 else "off"


def _probe_spec(pool: Pool, proxy_header: Literal["off", "v1", "v2"]) -> ProbeSpec | None:
    check = pool.health_check
    if check.type == "off":
        return None
    return ProbeSpec(
        kind=check.type,
        interval_seconds=check.interval_seconds,
        timeout_seconds=check.timeout_seconds,
        path=check.path,
        expected_statuses=check.expected_status,
        body=check.body,
        proxy_header=proxy_header,
    )


def limit_rules(config: Config) -> dict[str, LimitRules]:
    """Return the limits per client, by frontend, where there are any."""
    rules = {
        frontend.name: LimitRules(
            frontend.limits.max_connections_per_client, frontend.limits.connection_rate_per_client
        )
        for frontend in config.frontends
    }
    return {name: rule for name, rule in rules.items() if rule.are_enabled}
