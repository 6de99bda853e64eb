"""The plan of the private network: from a request it computes every address, each of them unique."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, Literal

from app.domain.mesh.addresses import instance_address, network_of, pop_network
from app.domain.mesh.places import assign_places

Families = Literal["ipv6", "dual", "ipv4"]
Topology = Literal["mesh", "hub"]

POP_PREFIX_V4: Final = 24
_FIRST_HOST: Final = 2
"""The first instance in an IPv4 /24: 1 is the POP itself, as in IPv6."""
_HOSTS: Final = 253


class PlanError(ValueError):
    """The request cannot be planned. `faults` has one line per fault."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class PopRequest:
    """A requested point of presence. `endpoint` is host:port at which others reach it, None behind NAT."""

    name: str
    region: str
    country: str | None = None
    endpoint: str | None = None
    public_key: str | None = None
    is_hub: bool = False
    ipv4: IPv4Network | None = None


@dataclass(frozen=True, slots=True)
class InstanceRequest:
    """A requested instance: the id of a backend, and its POP. `ipv4` is the address it already has."""

    id: str
    pop: str
    ipv4: IPv4Address | None = None


@dataclass(frozen=True, slots=True)
class MeshRequest:
    """The whole request. `ipv4` is given unless the only family is ipv6; `keepalive_seconds` 0 disables keepalives."""

    network: str
    pops: tuple[PopRequest, ...]
    instances: tuple[InstanceRequest, ...] = ()
    families: Families = "ipv6"
    ipv4: IPv4Network | None = None
    topology: Topology = "mesh"
    port: int = 51820
    mtu: int = 1420
    keepalive_seconds: int = 25


@dataclass(frozen=True, slots=True)
class Instance:
    """A planned instance. The address of a family that the network lacks is None."""

    id: str
    ipv6: IPv6Address | None = None
    ipv4: IPv4Address | None = None

    @property
    def addresses(self) -> tuple[IPv6Address | IPv4Address, ...]:
        return tuple(one for one in (self.ipv6, self.ipv4) if one is not None)


@dataclass(frozen=True, slots=True)
class Pop:
    """A planned point of presence: its networks, its own addresses in them, and its instances by id."""

    name: str
    region: str
    country: str | None
    endpoint: str | None
    public_key: str | None
    is_hub: bool
    ipv6_network: IPv6Network | None
    ipv4_network: IPv4Network | None
    instances: tuple[Instance, ...] = ()

    @property
    def networks(self) -> tuple[IPv6Network | IPv4Network, ...]:
        return tuple(one for one in (self.ipv6_network, self.ipv4_network) if one is not None)

    @property
    def ipv6(self) -> IPv6Address | None:
        """Its own address, instance 1."""
        return None if self.ipv6_network is None else instance_address(self.ipv6_network, "")

    @property
    def ipv4(self) -> IPv4Address | None:
        """Its own address, host 1."""
        return None if self.ipv4_network is None else self.ipv4_network.network_address + 1

    @property
    def addresses(self) -> tuple[IPv6Address | IPv4Address, ...]:
        return tuple(one for one in (self.ipv6, self.ipv4) if one is not None)


@dataclass(frozen=True, slots=True)
class Plan:
    """The whole plan, with points of presence sorted by name."""

    network: str
    ipv6_network: IPv6Network | None
    ipv4_network: IPv4Network | None
    topology: Topology
    port: int
    mtu: int
    keepalive_seconds: int
    pops: tuple[Pop, ...]

    @property
    def networks(self) -> tuple[IPv6Network | IPv4Network, ...]:
        return tuple(one for one in (self.ipv6_network, self.ipv4_network) if one is not None)

    def name_of(self, address: IPv6Address | IPv4Address) -> tuple[str, str, str] | None:
        """Return region, POP and instance ("" for the POP itself) of an address, None if it is not assigned."""
        for pop in self.pops:
            if address in pop.addresses:
                return pop.region, pop.name, ""
            for instance in pop.instances:
                if address in instance.addresses:
                    return pop.region, pop.name, instance.id
        return None


def make_plan(request: MeshRequest, last: Plan | None = None) -> Plan:
    """Plan every address. IPv6 addresses depend on names only; IPv4 addresses of the last plan are kept.

    Raises PlanError if two names have the same number, IPv4 networks overlap, or addresses run out.
    """
    faults = list(_in_two_places(request.instances))
    ipv6 = network_of(request.network) if request.families != "ipv4" else None
    ipv4_networks: dict[str, IPv4Network] = {}
    if request.families != "ipv6":
        ipv4_networks = _ipv4_networks(request, last, faults)
    pops = []
    for one in sorted(request.pops, key=lambda pop: pop.name):
        ipv4_network = ipv4_networks.get(one.name)
        wanted = [instance for instance in request.instances if instance.pop == one.name]
        hosts = {} if ipv4_network is None else _hosts(one.name, ipv4_network, wanted, last, faults)
        network = None if ipv6 is None else pop_network(ipv6, one.region, one.name)
        instances = tuple(
            Instance(id, None if network is None else instance_address(network, id), hosts.get(id))
            for id in sorted({instance.id for instance in wanted})
        )
        pops.append(
            Pop(
                one.name,
                one.region,
                one.country,
                one.endpoint,
                one.public_key,
                one.is_hub,
                network,
                ipv4_network,
                instances,
            )
        )
    faults += _collisions(pops)
    if faults:
        raise PlanError(faults)
    return Plan(
        network=request.network,
        ipv6_network=ipv6,
        ipv4_network=request.ipv4 if request.families != "ipv6" else None,
        topology=request.topology,
        port=request.port,
        mtu=request.mtu,
        keepalive_seconds=request.keepalive_seconds,
        pops=tuple(pops),
    )


def _in_two_places(instances: Iterable[InstanceRequest]) -> Iterator[str]:
    pops: dict[str, set[str]] = defaultdict(set)
    for instance in instances:
        pops[instance.id].add(instance.pop)
    for id, names in pops.items():
        if len(names) > 1:
            yield f"instance {id}: is in {' and in '.join(sorted(names))}"


def _collisions(pops: Iterable[Pop]) -> Iterator[str]:
    """Report regions, POPs and instances whose names have the same number."""
    regions: dict[int, str] = {}
    networks: dict[IPv6Network, str] = {}
    for pop in pops:
        if pop.ipv6_network is None:
            continue
        region_number = int(pop.ipv6_network.network_address) >> 64
        other_region = regions.setdefault(region_number, pop.region)
        if other_region != pop.region:
            yield f"region {pop.region}: has the same number as region {other_region}: rename one of them"
        other = networks.setdefault(pop.ipv6_network, pop.name)
        if other != pop.name:
            yield f"pop {pop.name}: has the same number as pop {other}: rename one of them"
        holders: dict[IPv6Address | None, str] = {pop.ipv6: "the POP itself"}
        for instance in pop.instances:
            holder = holders.setdefault(instance.ipv6, instance.id)
            if holder != instance.id:
                yield f"instance {instance.id}: has the same number as {holder} in {pop.name}: change one id"


# IPv4


def _ipv4_networks(request: MeshRequest, last: Plan | None, faults: list[str]) -> dict[str, IPv4Network]:
    """Return the /24 of every POP: the requested one, else that of the last plan, else a free one."""
    whole = request.ipv4
    assert whole is not None, "validated with the families"
    requested = {pop.name: pop.ipv4 for pop in request.pops if pop.ipv4 is not None}
    kept = {pop.name: pop.ipv4_network for pop in last.pops if pop.ipv4_network is not None} if last else {}
    users = defaultdict(list)
    for name, network in requested.items():
        if not network.subnet_of(whole):
            faults.append(f"pop {name}: {network} is not within {whole}")
        users[network].append(name)
    faults += [
        f"pops {', '.join(names)}: all have the network {network}" for network, names in users.items() if names[1:]
    ]
    names = {pop.name for pop in request.pops} - requested.keys()
    taken = {
        name: network
        for name, network in kept.items()
        if name in names and network.subnet_of(whole) and network not in users
    }
    if faults:
        return requested
    first = int(whole.network_address)
    size = 256
    numbers = {name: (int(network.network_address) - first) // size for name, network in {**requested, **taken}.items()}
    try:
        numbers = assign_places((pop.name for pop in request.pops), 2 ** (POP_PREFIX_V4 - whole.prefixlen), numbers)
    except OverflowError as error:
        faults.append(f"{len(request.pops)} pops, but {error} in {whole}")
        return requested
    return {name: IPv4Network((first + number * size, POP_PREFIX_V4)) for name, number in numbers.items()}


def _hosts(
    pop: str, network: IPv4Network, wanted: list[InstanceRequest], last: Plan | None, faults: list[str]
) -> dict[str, IPv4Address]:
    """Return the IPv4 address of every instance of a POP: as requested, else as in the last plan, else a free one."""
    first = network.network_address + _FIRST_HOST
    before = next((one.instances for one in last.pops if one.name == pop), ()) if last else ()
    kept = {one.id: one.ipv4 for one in before if one.ipv4 is not None and one.ipv4 in network}
    requested = {one.id: one.ipv4 for one in wanted if one.ipv4 is not None and one.ipv4 in network}
    ids = {one.id for one in wanted}
    numbers: dict[str, int] = {}
    used: dict[int, str] = {}
    for id, address in sorted(requested.items()) + sorted(
        item for item in kept.items() if item[0] in ids - requested.keys()
    ):
        number = int(address) - int(first)
        holder = used.get(number)
        if not 0 <= number < _HOSTS:
            faults.append(f"instance {id}: {address} is not an instance address; use {first} to {first + _HOSTS - 1}")
        elif holder is None:
            numbers[id], used[number] = number, id
        elif id in requested:
            faults.append(f"instance {id}: {holder} also has {address}")
    try:
        numbers = assign_places(ids, _HOSTS, numbers)
    except OverflowError as error:
        faults.append(f"pop {pop}: {len(ids)} instances, but {error} in {network}")
        return {}
    return {id: first + number for id, number in numbers.items()}
