"""The simulation selects as the edge does: the registry actor, asked for each client in turn, selects the same."""

from __future__ import annotations

import random

import pytest

from actors.messages import LeaseBackend
from actors.registry import RegistryActor
from actors.runtime import Address, ask
from app.domain.client import Client, client_key
from app.domain.geography import region_of
from app.domain.health import HealthRules
from app.domain.model import Backend, GeoInfo, Lease
from app.domain.plan import PoolPlan, SelectorPlan
from app.domain.selection import make_selector
from app.simulation.results import Flow
from app.simulation.run import Simulation

COUNTRIES = ("BR", "AR", "FR", "DE", "JP", "ZA", "US")
FLEET = [
    Backend(f"{country.lower()}-{number}", None, region_of(country), country, "10.0.0.1", 80, weight=number, **limits)
    for country, limits in {
        "BR": {"soft_limit": 40, "hard_limit": 60},
        "FR": {"soft_limit": 20, "hard_limit": 0},
        "JP": {"soft_limit": 50, "hard_limit": 55},
    }.items()
    for number in (1, 2, 3)
]


def locate(address: str) -> GeoInfo | None:
    country = COUNTRIES[int(address.rpartition(".")[2]) % len(COUNTRIES)]
    return GeoInfo(country, region_of(country))


@pytest.mark.parametrize("spills", [False, True])
def test_the_registry_selects_the_same_backends(spills):
    plan = PoolPlan("default", HealthRules(), (SelectorPlan("edge", "geo", spills),))
    addresses = [f"192.0.2.{random.Random(number).randrange(250)}" for number in range(900)]
    simulation = Simulation(plan, "edge", FLEET, "eu", locate, seed=11)
    simulation.arrive(addresses)
    simulated = simulation.stage("steady")

    chance = random.Random(11)
    registry = Address("registry")
    registry.publish(
        RegistryActor.start(
            lambda plan: make_selector(
                plan.algorithm, pop_region="eu", rng=chance, spills_at_soft_limit=plan.spills_at_soft_limit
            ),
            Address("metrics"),
            [plan],
            {"default": FLEET},
            [],
        )
    )
    flows: dict[Flow, int] = {}
    for number, address in enumerate(addresses):
        client = Client(address, client_key("default", address, 128), locate(address))
        found = ask(registry, LeaseBackend(number, "default", "edge", client, None, ()), timeout_s=5)
        country = client.geo.country
        if isinstance(found, Lease):
            flow = Flow(country, found.tier, found.backend.id, None)
        else:
            flow = Flow(country, None, None, found.reason)
        flows[flow] = flows.get(flow, 0) + 1
    assert simulated.flows == flows
    assert len(flows) > 20
