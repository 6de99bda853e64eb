"""What a configuration means to the actors: plans, what outlives a reload, backends, probes and limits of each part."""

from __future__ import annotations

from typing import Any

import pytest

from app.config import Config, load
from app.domain.health import HealthRules
from app.domain.limits import LimitRules
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.probe import ProbeSpec, Target
from app.edge.plans import backends_of, limit_rules, plan_pools, probe_targets, with_retired
from tests.unit.pools import backend

SERVERS = {"servers": [{"address": "10.0.0.1:80"}]}


def configuration(frontends: list[dict[str, Any]], pools: list[dict[str, Any]]) -> Config:
    """Return a configuration; each frontend listens somewhere, each pool has a server unless it says otherwise."""
    listening = [{"listen": f"127.0.0.1:{8000 + number}", **one} for number, one in enumerate(frontends)]
    served = [one if "app" in one or "servers" in one else {**SERVERS, **one} for one in pools]
    return load({}, document={"frontends": listening, "backends": served})


# Plans


def test_every_pool_has_a_plan_with_a_selector_for_each_frontend() -> None:
    config = configuration(
        [
            {"name": "web", "backend": "big", "algorithm": "least_connections"},
            {"name": "old", "backend": "small", "algorithm": "geo", "soft_limit_spill": True},
            {"name": "api", "backend": "big"},
        ],
        [{"name": "big"}, {"name": "small"}, {"name": "spare"}],
    )
    selectors = {plan.name: plan.selectors for plan in plan_pools(config)}
    assert selectors == {
        "big": (SelectorPlan("web", "least_connections"), SelectorPlan("api", "round_robin")),
        "small": (SelectorPlan("old", "geo", spills_at_soft_limit=True),),
        "spare": (),
    }


@pytest.mark.parametrize(("kind", "is_probed"), [("off", False), ("tcp", True), ("http", True)])
def test_the_health_of_a_pool_is_judged_by_its_own_rules(kind: str, is_probed: bool) -> None:
    check = {"type": kind, "unhealthy_threshold": 5, "healthy_threshold": 4, "cooldown": "7s"}
    config = configuration([{"name": "web", "backend": "p"}], [{"name": "p", "health_check": check}, {"name": "q"}])
    rules = [plan.rules for plan in plan_pools(config)]
    assert rules[0] == HealthRules(is_probed, unhealthy_threshold=5, healthy_threshold=4, cooldown_seconds=7)
    assert not rules[1].is_probed


def test_the_environment_alone_makes_one_pool_that_selects_by_geography() -> None:
    (plan,) = plan_pools(load({"EDGEPROXY_SOFT_LIMIT_SPILL": "true"}))
    assert plan.selectors == (SelectorPlan("edge", "geo", spills_at_soft_limit=True),)
    assert plan.rules == HealthRules(is_probed=False, cooldown_seconds=10)


# What is retired


RULES, OTHER_RULES = HealthRules(), HealthRules(is_probed=True)
WEB, API, OLD = (SelectorPlan(name, "round_robin") for name in ("web", "api", "old"))


def test_pools_and_selectors_in_use_outlive_the_configuration() -> None:
    former = [PoolPlan("p", RULES, (WEB, OLD)), PoolPlan("gone", RULES, (API, OLD)), PoolPlan("unused", RULES, (API,))]
    now = [PoolPlan("p", OTHER_RULES, (WEB,)), PoolPlan("new", RULES, (API,))]
    assert with_retired(now, former, {("p", "old"), ("gone", "api"), ("p", "web")}) == (
        PoolPlan("p", OTHER_RULES, (WEB, OLD)),
        PoolPlan("new", RULES, (API,)),
        PoolPlan("gone", RULES, (API,)),
    )


def test_unused_pools_are_removed() -> None:
    now = (PoolPlan("p", RULES, (WEB,)),)
    assert with_retired(now, [PoolPlan("p", RULES, (WEB, OLD)), PoolPlan("gone", RULES, (API,))], set()) == now


def test_a_changed_selector_also_replaces_the_former_one_for_open_connections() -> None:
    now = (PoolPlan("p", RULES, (SelectorPlan("web", "geo"),)),)
    assert with_retired(now, [PoolPlan("p", RULES, (WEB,))], {("p", "web")}) == now


def test_a_frontend_that_moved_to_another_pool_is_retired_in_its_old_one() -> None:
    now = [PoolPlan("p", RULES, ()), PoolPlan("q", RULES, (WEB,))]
    assert with_retired(now, [PoolPlan("p", RULES, (WEB,))], {("p", "web")}) == (
        PoolPlan("p", RULES, (WEB,)),
        PoolPlan("q", RULES, (WEB,)),
    )


def test_what_is_retired_stays_so_over_several_reloads_and_comes_back_as_configured() -> None:
    used = {("gone", "api")}
    first = with_retired([PoolPlan("p", RULES, (WEB,))], [PoolPlan("gone", RULES, (API,))], used)
    second = with_retired([PoolPlan("q", RULES, (WEB,))], first, used)
    assert second == (PoolPlan("q", RULES, (WEB,)), PoolPlan("gone", RULES, (API,)))
    assert with_retired([PoolPlan("gone", OTHER_RULES, (WEB,))], second, used) == (
        PoolPlan("gone", OTHER_RULES, (WEB, API)),
    )


# Backends


def test_the_servers_of_a_pool_are_its_backends_by_address() -> None:
    servers = [{"address": "10.0.0.1:80", "weight": 3}, {"address": "[2001:db8::1]:443"}]
    (pool,) = configuration([{"name": "web", "backend": "p"}], [{"name": "p", "servers": servers}]).pools
    one, other = backends_of(pool, [backend("of the database")])
    assert (one.id, one.host, one.port, one.weight) == ("10.0.0.1:80", "10.0.0.1", 80, 3)
    assert (other.id, other.host, other.port, other.weight) == ("[2001:db8::1]:443", "2001:db8::1", 443, 1)
    assert one.is_serving
    assert (one.region, one.country, one.hard_limit) == (None, None, 0)


def test_a_server_may_be_given_by_name() -> None:
    servers = [{"address": "App.Example:80"}]
    (pool,) = configuration([{"name": "web", "backend": "p"}], [{"name": "p", "servers": servers}]).pools
    (found,) = backends_of(pool, [])
    assert (found.id, found.host, found.host_name, found.port) == ("app.example:80", "", "app.example", 80)


def test_a_pool_with_an_app_has_that_apps_rows_and_with_an_empty_one_all() -> None:
    rows = [backend("a", app="shop"), backend("b", app="blog"), backend("c"), backend("d", app="shop", is_deleted=True)]
    apps = [{"name": "shops", "app": "shop"}, {"name": "all", "app": ""}, {"name": "none", "app": "unheard-of"}]
    pools = configuration([{"name": "web", "backend": "all"}], apps).pools
    assert [[row.id for row in backends_of(pool, rows)] for pool in pools] == [["a", "d"], ["a", "b", "c", "d"], []]


def test_unchanged_rows_are_the_same_objects() -> None:
    rows = [backend("a")]
    (pool,) = configuration([{"name": "web", "backend": "all"}], [{"name": "all", "app": ""}]).pools
    assert backends_of(pool, rows)[0] is rows[0]


# Probes


def test_in_every_pool_with_a_check_the_backends_that_are_not_deleted_are_probed_by_it() -> None:
    http = {
        "type": "http",
        "interval": "2s",
        "timeout": "500ms",
        "path": "/up",
        "expected_status": [200, 204],
        "body": "ok",
    }
    config = configuration(
        [{"name": "web", "backend": "p"}],
        [
            {"name": "p", "health_check": http},
            {"name": "q", "health_check": {"type": "tcp", "interval": "3s", "timeout": "1s"}},
            {"name": "r"},
        ],
    )
    rows = (backend("a"), backend("b", is_healthy=False), backend("c", is_deleted=True))
    targets = probe_targets(config, dict.fromkeys("pqr", rows))
    asks = ProbeSpec("http", 2, 0.5, "/up", frozenset({200, 204}), "ok")
    connects = ProbeSpec("tcp", 3, 1)
    assert targets == tuple(
        Target(pool, row, spec) for pool, spec in (("p", asks), ("q", connects)) for row in rows[:2]
    )


def test_without_checks_nothing_is_probed() -> None:
    assert probe_targets(load({}), {"default": [backend("a")]}) == ()


def test_a_check_of_the_environment_probes_the_one_pool() -> None:
    said = {"HEALTH_CHECK": "http", "HEALTH_CHECK_PATH": "/up", "HEALTH_CHECK_INTERVAL_SECS": "2"}
    config = load({f"EDGEPROXY_{name}": text for name, text in said.items()})
    (target,) = probe_targets(config, {"default": [backend("a")]})
    assert (target.pool, target.spec.kind, target.spec.path, target.spec.interval_seconds) == (
        "default",
        "http",
        "/up",
        2,
    )
    assert (200 in target.spec.expected_statuses, 404 in target.spec.expected_statuses) == (True, False)


# Limits


def test_only_frontends_with_limits_per_client_have_rules() -> None:
    def limited(name: str, **limits: float) -> dict[str, Any]:
        return {"name": name, "backend": "p", "limits": limits}

    config = configuration(
        [
            limited("free"),
            limited("few", max_connections_per_client=3),
            limited("slow", connection_rate_per_client=0.5),
            limited("room", max_connections=100),
        ],
        [{"name": "p"}],
    )
    assert limit_rules(config) == {"few": LimitRules(3, 0), "slow": LimitRules(0, 0.5)}


def test_the_limits_of_the_environment_are_those_of_its_frontend() -> None:
    config = load({"EDGEPROXY_MAX_CONNECTIONS_PER_CLIENT": "2", "EDGEPROXY_CONNECTION_RATE_PER_CLIENT": "5"})
    assert limit_rules(config) == {"edge": LimitRules(2, 5)}
    assert limit_rules(load({})) == {}


@pytest.mark.parametrize(
    ("headers", "expected"), [(["v2"], "v2"), (["v1", "v1"], "v1"), (["v2", "off"], "off"), (["off"], "off")]
)
def test_probes_begin_as_the_traffic_of_their_pool(headers, expected):
    document = {
        "frontends": [
            {
                "name": f"f{number}",
                "listen": f"127.0.0.1:{8000 + number}",
                "backend": "p",
                "tcp": {"send_proxy": header},
            }
            for number, header in enumerate(headers)
        ],
        "backends": [{"name": "p", "servers": [{"address": "127.0.0.1:1"}], "health_check": {"type": "tcp"}}],
    }
    (target,) = probe_targets(load({}, document=document), {"p": [backend("a")]})
    assert target.spec.proxy_header == expected
