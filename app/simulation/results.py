"""The results of a simulation by stage. All figures are sums over `Stage.flows`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from app.domain.geography import region_of
from app.domain.model import Backend
from app.domain.outcome import NoLease


class Flow(NamedTuple):
    """Clients of one country with the same outcome: a backend (id) and its tier, or the reason for none."""

    country: str | None
    tier: int | None
    backend: str | None
    reason: NoLease | None


@dataclass(frozen=True, slots=True)
class BackendLoad:
    """A backend and its connections. `is_serving`: it is enabled in the database and has not failed."""

    backend: Backend
    is_serving: bool
    connections: int

    @property
    def is_full(self) -> bool:
        return 0 < self.backend.hard_limit <= self.connections

    @property
    def is_over_soft(self) -> bool:
        return self.connections >= self.backend.soft_limit

    @property
    def state(self) -> str:
        """The state for people: ok, over soft, full or out."""
        if not self.is_serving:
            return "out"
        if self.is_full:
            return "full"
        return "over soft" if self.is_over_soft else "ok"


@dataclass(frozen=True, slots=True)
class Stage:
    """Connections after a stage. `nearest` is the best tier for each country if no backend were full."""

    name: str
    loads: tuple[BackendLoad, ...]
    flows: Mapping[Flow, int]
    nearest: Mapping[str | None, int]

    @property
    def clients(self) -> int:
        return sum(self.flows.values())

    @property
    def served(self) -> int:
        return sum(self.tiers.values())

    @property
    def tiers(self) -> dict[int, int]:
        """Clients by the tier of their backend, 0-3."""
        found = Counter[int]()
        for flow, count in self.flows.items():
            if flow.tier is not None:
                found[flow.tier] += count
        return {tier: found[tier] for tier in range(4)}

    @property
    def unserved(self) -> dict[str, int]:
        """Clients without a backend, by reason."""
        found = Counter[str]()
        for flow, count in self.flows.items():
            if flow.reason is not None:
                found[str(flow.reason)] += count
        return dict(sorted(found.items()))

    @property
    def overflow(self) -> dict[str, int]:
        """Clients whose nearest backends were full, by country: served from farther away, or not at all."""
        found = Counter[str]()
        for flow, count in self.flows.items():
            nearest = self.nearest.get(flow.country)
            if flow.reason is NoLease.FULL or (flow.tier is not None and nearest is not None and flow.tier > nearest):
                found[flow.country or "unknown"] += count
        return dict(found.most_common())

    @property
    def regions(self) -> dict[str, tuple[int, int]]:
        """Clients in each region, and connections of its backends."""
        clients, carried = Counter[str](), Counter[str]()
        for flow, count in self.flows.items():
            clients[region_of(flow.country) or "unknown"] += count
        for load in self.loads:
            carried[load.backend.region or "unknown"] += load.connections
        return {region: (clients[region], carried[region]) for region in sorted({*clients, *carried})}


class Move(NamedTuple):
    """Clients of a failed backend, and the backend to which they moved, None if there was none."""

    source: str
    target: str | None
    clients: int


@dataclass(frozen=True, slots=True)
class Results:
    """All stages, and the moves after the failure. `broken_bindings` counts clients bound to a failed backend."""

    stages: tuple[Stage, ...]
    failed: tuple[str, ...] = ()
    broken_bindings: int = 0
    moves: tuple[Move, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return everything as plain data. Equal simulations give equal data."""
        return {
            "stages": [_stage_to_json(stage) for stage in self.stages],
            "failed": list(self.failed),
            "broken_bindings": self.broken_bindings,
            "moves": [{"from": move.source, "to": move.target, "clients": move.clients} for move in self.moves],
        }


def _stage_to_json(stage: Stage) -> dict[str, object]:
    return {
        "name": stage.name,
        "clients": stage.clients,
        "served": stage.served,
        "backends": [_load_to_json(load) for load in stage.loads],
        "regions": {name: {"clients": n, "connections": carried} for name, (n, carried) in stage.regions.items()},
        "tiers": {str(tier): count for tier, count in stage.tiers.items()},
        "unserved": stage.unserved,
        "overflow": stage.overflow,
    }


def _load_to_json(load: BackendLoad) -> dict[str, object]:
    backend = load.backend
    return {
        "id": backend.id,
        "region": backend.region,
        "country": backend.country,
        "weight": backend.weight,
        "soft_limit": backend.soft_limit,
        "hard_limit": backend.hard_limit,
        "connections": load.connections,
        "state": load.state,
    }
