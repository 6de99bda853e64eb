"""Reads the YAML file of the private network: what to plan and to announce. Reports every fault with its line."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from app.config.faults import ConfigError, did_you_mean, nearest, shown
from app.config.file import Fault, Faults, duplicate_names, faults_in, items_of, read_document
from app.config.values import Switch, Whole, not_empty_list, not_null
from app.config.yaml_text import read_yaml
from app.domain.mesh.anycast import Announcement, Neighbour
from app.domain.mesh.plan import POP_PREFIX_V4, InstanceRequest, MeshRequest, Plan, PopRequest

_HOST_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*"
)


def _matching(pattern: str, rule: str) -> AfterValidator:
    """Require that the whole text matches. Raises ValueError with the rule."""

    def check(text: str) -> str:
        if not re.fullmatch(pattern, text, re.ASCII):
            raise ValueError(rule)
        return text

    return AfterValidator(check)


def _parsed_by(parse: Callable[[str], object], rule: str) -> BeforeValidator:
    """Parse a text into an address or a network. Raises ValueError with the rule."""

    def parse_text(value: object) -> object:
        try:
            return parse(value) if isinstance(value, str) else value
        except ValueError:
            raise ValueError(rule) from None

    return BeforeValidator(parse_text)


Label = Annotated[
    str,
    _matching(
        r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?",
        "needs 1 to 63 characters of a-z, 0-9 and hyphen, without a hyphen at either end",
    ),
]
"""A name that is valid in DNS and as a file name."""
PublicKey = Annotated[
    str,
    _matching(r"[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=", "needs a public key, as printed by `python -m app mesh key`"),
]
"""32 bytes in base64."""
Country = Annotated[str, _matching(r"[A-Z]{2}", "needs a country code of two capital letters, as in BR")]
Address = Annotated[IPv4Address | IPv6Address, _parsed_by(ip_address, "needs an IP address")]
IPv4 = Annotated[IPv4Address, _parsed_by(IPv4Address, "needs an IPv4 address")]
Network = Annotated[
    IPv4Network | IPv6Network,
    _parsed_by(ip_network, "needs a network, as in 198.51.100.0/24 or 2001:db8:100::/48, without host bits"),
]
NetworkV4 = Annotated[
    IPv4Network, _parsed_by(IPv4Network, "needs an IPv4 network, as in 10.50.0.0/16, without host bits")
]
AsNumber = Annotated[Whole, Field(ge=1, le=4_294_967_294)]


def _endpoint(text: str) -> str:
    """Validate host or host:port, IPv6 addresses in brackets. Raises ValueError."""
    host, port = text, ""
    if text.startswith("["):
        host, bracket, port = text[1:].partition("]")
        if not bracket or ":" not in host or (port and not port.startswith(":")):
            raise ValueError("needs an IPv6 address in brackets, as in [2001:db8::1]:51820")
        port = port[1:] if port else "51820"
    elif ":" in text:
        host, _, port = text.partition(":")
    else:
        port = "51820"
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError(
            "needs a host and optionally a port, as in gru.example.net, 192.0.2.1:51820 or [2001:db8::1]:51820"
        )
    try:
        ip_address(host)
    except ValueError:
        if not _HOST_NAME.fullmatch(host) or host.rpartition(".")[2].isdigit():
            raise ValueError(f"{host!r} is neither an IP address nor a host name") from None
    return text


def _one_24(network: IPv4Network) -> IPv4Network:
    if network.prefixlen != POP_PREFIX_V4:
        raise ValueError(f"needs a /{POP_PREFIX_V4}, as in 10.50.1.0/24")
    return network


def _divisible_into_24s(network: IPv4Network) -> IPv4Network:
    if not 8 <= network.prefixlen < POP_PREFIX_V4:
        raise ValueError("needs a network from /8 to /23, as in 10.50.0.0/16: each POP gets a /24 of it")
    return network


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class _Neighbour(_Model):
    address: Address = Field(description="Address of the router")
    as_number: AsNumber = Field(validation_alias="as", description="AS number of the router")
    local_address: Address = Field(description="Local address of the BGP session")

    @field_validator("local_address")
    @classmethod
    def _same_version(cls, local: IPv4Address | IPv6Address, info: ValidationInfo) -> IPv4Address | IPv6Address:
        if "address" in info.data and info.data["address"].version != local.version:
            raise ValueError(f"needs an IPv{info.data['address'].version} address, like the neighbour's")
        return local


class _Bgp(_Model):
    router_id: IPv4 = Field(description="BGP identifier of this POP, written as an IPv4 address")
    neighbours: Annotated[tuple[_Neighbour, ...], BeforeValidator(not_empty_list)] = Field(
        description="Routers that receive the announcements"
    )


class _Pop(_Model):
    name: Label = Field(
        description="Name, best of three characters, such as gru: then it can be read back from an address"
    )
    region: Label = Field(description="Region, as in the routing database")
    country: Annotated[Country | None, BeforeValidator(not_null)] = Field(
        default=None, description="Country of its instances, ISO 3166-1"
    )
    endpoint: Annotated[
        str | None, AfterValidator(lambda text: text and _endpoint(text)), BeforeValidator(not_null)
    ] = Field(default=None, description="Host or host:port where other POPs reach it; omit it behind NAT")
    public_key: Annotated[PublicKey | None, BeforeValidator(not_null)] = Field(
        default=None,
        description="Public key that `python -m app mesh key` printed there; without it the plan makes a key pair",
    )
    hub: Switch = Field(default=False, description="With topology hub: other POPs route through it")
    ipv4: Annotated[NetworkV4 | None, AfterValidator(lambda net: net and _one_24(net)), BeforeValidator(not_null)] = (
        Field(default=None, description="A /24 that it already uses")
    )
    bgp: Annotated[_Bgp | None, BeforeValidator(not_null)] = Field(
        default=None, description="BGP sessions over which it announces the anycast prefixes"
    )


class _App(_Model):
    name: Label = Field(description="Name of the app, as in the routing database")
    port: Annotated[Whole, Field(ge=1, le=65535)] = Field(description="Port of its instances")
    instances: dict[str, Annotated[Whole, Field(ge=1, le=1000)]] = Field(description="Number of instances by POP")


class _Anycast(_Model):
    as_number: AsNumber = Field(validation_alias="as", description="Our AS number")
    prefixes: Annotated[tuple[Network, ...], BeforeValidator(not_empty_list)] = Field(
        description="Prefixes to announce"
    )


class _MeshFile(_Model):
    network: Annotated[str, _matching(r"[!-~]{1,253}", "needs a name of 1 to 253 characters without spaces")] = Field(
        description="A globally unique name, such as a domain of yours; its hash determines the IPv6 network"
    )
    families: Literal["ipv6", "dual", "ipv4"] = "ipv6"
    ipv4: Annotated[
        NetworkV4 | None, AfterValidator(lambda net: net and _divisible_into_24s(net)), BeforeValidator(not_null)
    ] = Field(default=None, description="IPv4 network, with families dual and ipv4; each POP gets a /24 of it")
    topology: Literal["mesh", "hub"] = "mesh"
    port: Annotated[Whole, Field(ge=1, le=65535)] = 51820
    mtu: Annotated[Whole, Field(ge=1280, le=9000)] = 1420
    keepalive: Annotated[Whole, Field(ge=0, le=65535)] = 25
    pops: Annotated[tuple[_Pop, ...], BeforeValidator(not_empty_list)]
    apps: tuple[_App, ...] = ()
    anycast: Annotated[_Anycast | None, BeforeValidator(not_null)] = None

    @field_validator("ipv4")
    @classmethod
    def _of_some_families(cls, ipv4: IPv4Network | None, info: ValidationInfo) -> IPv4Network | None:
        if info.data.get("families") == "ipv6":
            raise ValueError("works with families: dual or ipv4 only")
        return ipv4


class Mesh:
    """A validated file: the request for the planner, the apps, and the announcement of each POP."""

    def __init__(self, content: _MeshFile) -> None:
        self._content = content

    def request(self, more: tuple[InstanceRequest, ...] = ()) -> MeshRequest:
        """Return the request for the planner, with `more` instances that the file does not list."""
        file = self._content
        return MeshRequest(
            network=file.network,
            pops=tuple(_pop_request(pop, file.port) for pop in file.pops),
            instances=(*(InstanceRequest(id, pop) for id, pop, _ in self.instances()), *more),
            families=file.families,
            ipv4=file.ipv4,
            topology=file.topology,
            port=file.port,
            mtu=file.mtu,
            keepalive_seconds=file.keepalive,
        )

    def instances(self) -> Iterator[tuple[str, str, dict[str, object]]]:
        """Yield id and POP of every instance of the apps, and the other columns of its row in the routing database."""
        regions = {pop.name: (pop.region, pop.country) for pop in self._content.pops}
        for app in self._content.apps:
            for pop, count in app.instances.items():
                region, country = regions[pop]
                columns: dict[str, object] = {"app": app.name, "region": region, "country": country, "port": app.port}
                for number in range(1, count + 1):
                    yield f"{pop}-{app.name}-{number}", pop, columns

    def announcement(self, pop_name: str) -> Announcement:
        """Return what a POP announces. Raises ConfigError if the file does not define it."""
        pop = next((one for one in self._content.pops if one.name == pop_name), None)
        if pop is None:
            near = nearest(pop_name, [one.name for one in self._content.pops])
            raise ConfigError([f"{pop_name!r}: there is no such POP{did_you_mean(near)}"])
        if pop.bgp is None or self._content.anycast is None:
            missing = "anycast" if self._content.anycast is None else f"bgp of pop {pop_name}"
            raise ConfigError([f"{missing}: is required to announce"])
        return Announcement(
            pop=pop.name,
            as_number=self._content.anycast.as_number,
            router_id=pop.bgp.router_id,
            prefixes=self._content.anycast.prefixes,
            neighbours=tuple(Neighbour(one.address, one.as_number, one.local_address) for one in pop.bgp.neighbours),
        )


def read_mesh(source: bytes, name: str) -> Mesh:
    """Parse the text of the file, called `name` in faults. Raises ConfigError naming every fault."""
    return Mesh(read_document(read_yaml(source, ("network", "pops")), name, _validate))


def _validate(values: Mapping[str, Any]) -> _MeshFile:
    conflicts = list(_conflicts(values))
    try:
        content = _MeshFile.model_validate(values, by_alias=True, by_name=False)
    except ValidationError as error:
        raise Faults([*faults_in(error, _MeshFile, values), *conflicts]) from None
    if conflicts:
        raise Faults(conflicts)
    return content


def _conflicts(values: Mapping[str, Any]) -> Iterator[Fault]:
    yield from duplicate_names(values, "pops")
    yield from duplicate_names(values, "apps")
    if values.get("families") in ("dual", "ipv4") and "ipv4" not in values:
        yield Fault(("ipv4",), f": is required by families: {values['families']}, as in 10.50.0.0/16")
    names = [name for _, pop in items_of(values, "pops") if isinstance(name := pop.get("name"), str)]
    for path, app in items_of(values, "apps"):
        counts = app.get("instances")
        for name in counts if isinstance(counts, Mapping) else ():
            if name not in names:
                near = did_you_mean(nearest(name, names))
                yield Fault((*path, "instances", name), f": there is no POP {shown(name)}{near}")


def _pop_request(pop: _Pop, port: int) -> PopRequest:
    endpoint = pop.endpoint
    if endpoint is not None and (endpoint.endswith("]") or ":" not in endpoint):
        endpoint = f"{endpoint}:{port}"
    return PopRequest(pop.name, pop.region, pop.country, endpoint, pop.public_key, pop.hub, pop.ipv4)


# The last plan

_STORED: Final = TypeAdapter(Plan)


def stored_plan(plan: Plan) -> str:
    """Return a plan as JSON text."""
    return _STORED.dump_json(plan, indent=2).decode() + "\n"


def read_plan(source: bytes, name: str) -> Plan:
    """Parse a stored plan. Raises ConfigError."""
    try:
        return _STORED.validate_json(source)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError([": ".join(filter(None, (f"{name}: is not a plan", where, first["msg"])))]) from None
