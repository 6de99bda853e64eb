"""The tunnels between POPs and the networks behind them: a full mesh, or hubs and spokes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from itertools import combinations

from app.domain.mesh.plan import Plan, Pop

Network = IPv6Network | IPv4Network


@dataclass(frozen=True, slots=True)
class Peer:
    """The far end of a POP's tunnel. `networks` are reached through it."""

    pop: Pop
    networks: tuple[Network, ...]


def faults_of(plan: Plan) -> list[str]:
    """Return what would leave POPs unconnected: a tunnel needs one end that the other can reach from outside."""
    faults = []
    if plan.topology == "hub":
        if not any(pop.is_hub for pop in plan.pops):
            faults.append("topology hub: no pop has hub: on")
        faults += [f"pop {hub.name}: is a hub and needs an endpoint" for hub in _hubs(plan) if hub.endpoint is None]
    else:
        faults += [
            f"pops {one.name} and {other.name}: neither has an endpoint, so neither can reach the other; "
            "give one an endpoint, or use topology hub"
            for one, other in combinations(plan.pops, 2)
            if one.endpoint is None and other.endpoint is None
        ]
    return faults


def peers_of(plan: Plan, pop: Pop) -> tuple[Peer, ...]:
    """Return the peers of a POP, sorted by name. The plan must have no faults."""
    if plan.topology == "mesh":
        return tuple(Peer(other, other.networks) for other in plan.pops if other != pop)
    if not pop.is_hub:
        return (Peer(hub_of(plan, pop), plan.networks),)
    return tuple(_peers_of_hub(plan, pop))


def hub_of(plan: Plan, pop: Pop) -> Pop:
    """Return the hub of a spoke: the first of its region, else the first of all."""
    hubs = _hubs(plan)
    return next((hub for hub in hubs if hub.region == pop.region), hubs[0])


def _peers_of_hub(plan: Plan, hub: Pop) -> Iterator[Peer]:
    """Yield the peers of a hub: its own spokes, and every other hub together with that hub's spokes."""
    for other in plan.pops:
        if other == hub:
            continue
        if other.is_hub:
            spokes = [one for one in plan.pops if not one.is_hub and hub_of(plan, one) == other]
            yield Peer(other, tuple(network for one in (other, *spokes) for network in one.networks))
        elif hub_of(plan, other) == hub:
            yield Peer(other, other.networks)


def _hubs(plan: Plan) -> list[Pop]:
    return [pop for pop in plan.pops if pop.is_hub]
