"""The differences between two plans, one line each."""

from __future__ import annotations

from dataclasses import dataclass

from app.domain.mesh.plan import Plan


@dataclass(frozen=True, slots=True)
class Change:
    """One thing that is new (`before` None), gone (`after` None) or different."""

    what: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        if self.before is None:
            return f"+ {self.what}: {self.after}"
        if self.after is None:
            return f"- {self.what}: {self.before}"
        return f"~ {self.what}: {self.before} -> {self.after}"


def changes(before: Plan | None, after: Plan) -> list[Change]:
    """Return the differences: first the network, then the POPs with their instances, sorted by name."""
    old, new = {} if before is None else _facts(before), _facts(after)
    found = [Change(what, old.get(what), new.get(what)) for what in {**new, **old} if old.get(what) != new.get(what)]
    return sorted(found, key=lambda change: (not change.what.startswith("network"), change.what))


def _facts(plan: Plan) -> dict[str, str]:
    """Return every value of a plan by its name."""
    facts: dict[str, object] = {
        "network": plan.network,
        "network ipv6": plan.ipv6_network,
        "network ipv4": plan.ipv4_network,
        "network topology": plan.topology,
        "network port": plan.port,
        "network mtu": plan.mtu,
        "network keepalive": plan.keepalive_seconds,
    }
    for pop in plan.pops:
        name = f"pop {pop.name}"
        facts[f"{name} region"] = pop.region
        facts[f"{name} country"] = pop.country
        facts[f"{name} endpoint"] = pop.endpoint
        facts[f"{name} key"] = pop.public_key
        facts[f"{name} hub"] = "yes" if pop.is_hub else None
        facts[f"{name} ipv6"] = pop.ipv6_network
        facts[f"{name} ipv4"] = pop.ipv4_network
        for instance in pop.instances:
            facts[f"{name} instance {instance.id} ipv6"] = instance.ipv6
            facts[f"{name} instance {instance.id} ipv4"] = instance.ipv4
    return {what: str(value) for what, value in facts.items() if value is not None}
