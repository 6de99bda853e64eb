"""Places the backends of the routing database in the private network, and finds their addresses there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from app.domain.mesh.plan import InstanceRequest, Plan, PlanError
from app.domain.model import Backend

Family = Literal["ipv6", "ipv4"]


@dataclass(frozen=True, slots=True)
class Home:
    """The home of a backend: a POP and an instance, "" for the POP itself. Backends may share an instance."""

    pop: str
    instance: str
    ipv4: IPv4Address | None = None


def homes_of(
    backends: Iterable[Backend], plan: Plan, known: Mapping[str, str], last: Plan | None = None
) -> dict[str, Home]:
    """Return the home of every backend by id. Raises PlanError for backends that fit no POP or several.

    In this order, a backend's home is the POP in `known` (POP by backend id), the POP that had its address in the last
    plan, the POP whose network contains its address, or the only POP of its region. Backends with the same address are
    one instance, named by the id of the first. A backend with a host name instead of an address has a home only if it
    is in `known`.
    """
    names = {pop.name for pop in plan.pops}
    homes: dict[str, Home] = {}
    instance_at: dict[str, str] = {}
    faults = []
    for backend in sorted(backends, key=lambda one: one.id):
        address = _address(backend.host)
        ipv4 = address if isinstance(address, IPv4Address) else None
        if backend.id in known:
            homes[backend.id] = Home(known[backend.id], backend.id, ipv4)
            continue
        if address is None:
            continue
        planned = plan.name_of(address) or (last.name_of(address) if last is not None else None)
        pops = [pop.name for pop in plan.pops if any(address in network for network in pop.networks)]
        pops = pops or [pop.name for pop in plan.pops if pop.region == backend.region]
        if planned is not None and planned[1] in names:
            homes[backend.id] = Home(planned[1], planned[2])
        elif len(pops) == 1:
            instance = instance_at.setdefault(backend.host, backend.id)
            homes[backend.id] = Home(pops[0], instance, ipv4)
        else:
            where = f"region {backend.region} has {len(pops)} pops" if backend.region else "it has no region"
            faults.append(f"backend {backend.id}: no pop's network contains {backend.host}, and {where}")
    if faults:
        raise PlanError(faults)
    return homes


def instances_of(homes: Mapping[str, Home]) -> tuple[InstanceRequest, ...]:
    """Return the instances that the homes of backends require."""
    return tuple(InstanceRequest(home.instance, home.pop, home.ipv4) for home in homes.values() if home.instance)


def host_of(home: Home, plan: Plan, family: Family) -> str:
    """Return the address of a home in a plan. Raises PlanError if the plan lacks the address family."""
    pop = next(one for one in plan.pops if one.name == home.pop)
    holder = pop if not home.instance else next(one for one in pop.instances if one.id == home.instance)
    address = holder.ipv6 if family == "ipv6" else holder.ipv4
    if address is None:
        raise PlanError([f"the plan has no {family} addresses"])
    return str(address)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """Return a host as an address, None if it is a name."""
    try:
        return ip_address(host)
    except ValueError:
        return None
