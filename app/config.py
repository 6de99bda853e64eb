"""The configuration: process environment -> one frozen Config. Every fault is reported at once, none is guessed away.

Only names that begin with EDGEPROXY_ are ours; one that is not in the table is a fault, so a misspelt variable never
goes unnoticed. `.env` files are honcho's business (and scripts/start's), not read here.
"""

from __future__ import annotations

import difflib
import ipaddress
import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

PREFIX: Final = "EDGEPROXY_"

PIPES: Final = 64
"""Pipes for bulk copying, two descriptors each (see app.inbound.pipes)."""
RESERVED_DESCRIPTORS: Final = 128
"""For listeners, databases, logs, threads and the metrics server."""
FEWEST_DESCRIPTORS: Final = 32
"""For connections: with fewer the edge does not start."""

T = TypeVar("T")

_MAPPED: Final = ipaddress.IPv6Network("::ffff:0:0/96")
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to listen. `host` is an IP address in text; port 0 lets the kernel choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def _listen_addresses(value: object) -> object:
    if not isinstance(value, str):
        return value
    return _each(value, _addresses_of) or _refuse("needs at least one address:port")


def _addresses_of(item: str) -> list[ListenAddress]:
    host, _, port = item.rpartition(":")
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{item!r}: needs a port from 0 to 65535, as in *:8080, 127.0.0.1:8080 or [::1]:8080")
    if host == "*":
        return [ListenAddress("0.0.0.0", int(port)), ListenAddress("::", int(port))]
    is_bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if is_bracketed else host)
    except ValueError:
        raise ValueError(f"{item!r}: {host!r} is not an IP address (or * for both families)") from None
    if is_bracketed != (address.version == 6):
        raise ValueError(f"{item!r}: IPv6 addresses, and only those, stand in brackets, as in [::1]:8080")
    if address in _MAPPED:
        raise ValueError(f"{item!r}: listen on the IPv4 address itself")
    return [ListenAddress(str(address), int(port))]


def _each(value: str, parse: Callable[[str], list[T]]) -> tuple[T, ...]:
    """Parse each item of a comma-separated list. Raises ValueError naming every bad one."""
    parsed: list[T] = []
    faults = []
    for item in filter(None, (part.strip() for part in value.split(","))):
        try:
            parsed += parse(item)
        except ValueError as error:
            faults.append(str(error))
    return tuple(parsed) if not faults else _refuse("; ".join(faults))


def _refuse(rule: str) -> NoReturn:
    raise ValueError(rule)


def _one_address(value: object) -> object:
    addresses = _listen_addresses(value)
    if isinstance(addresses, tuple) and len(addresses) != 1:
        raise ValueError("needs exactly one address:port")
    return addresses[0] if isinstance(addresses, tuple) else addresses


def _networks(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return _each(value, _network)
    except ValueError as error:
        raise ValueError(f"{error}; needs networks such as 10.0.0.0/8,2001:db8::/32") from None


def _network(item: str) -> list[IPNetwork]:
    network = ipaddress.ip_network(item)
    if network.version == 6 and network.subnet_of(_MAPPED):
        raise ValueError(f"{item!r}: clients of IPv4 are known by their IPv4 address, name that network")
    return [network]


def _lower(value: object) -> object:
    return value.strip().lower() if isinstance(value, str) else value


def _none_if_empty(value: object) -> object:
    return None if isinstance(value, str) and not value.strip() else value


def _not_empty(value: object) -> object:
    return value if not isinstance(value, str) or value.strip() else _refuse("must not be empty")


def _within_descriptors(connections: int) -> int:
    allowed = descriptors_for_connections() // 2
    if connections > allowed:
        raise ValueError(f"the file-descriptor limit allows {allowed} (raise it with ulimit -n or LimitNOFILE)")
    return connections


Seconds = Annotated[float, Field(ge=0.01, le=31_536_000, allow_inf_nan=False)]
Region = Annotated[str, BeforeValidator(_lower), Field(pattern=r"^[a-z0-9_-]{0,63}$")]


class Config(BaseModel):
    """The whole configuration. Field NAME is environment variable EDGEPROXY_NAME; `*_secs` are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    listen_addr: Annotated[tuple[ListenAddress, ...], BeforeValidator(_listen_addresses)] = Field(
        default="*:8080",
        validate_default=True,
        description="Where clients connect: a comma-separated list; * is IPv4 and IPv6",
    )
    db_path: Annotated[Path, BeforeValidator(_not_empty)] = Field(
        default=Path("routing.db"), description="The SQLite routing database"
    )
    region: Region = Field(default="sa", description="The region of this point of presence")
    app: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        default="", description="Serve only this app's backends; empty = all rows"
    )
    db_reload_secs: Seconds = Field(default=5, description="A full reload of the routing database at the latest after")
    geoip_path: str = Field(default="", description="Country database; empty = the shipped one, off = no geography")
    binding_ttl_secs: Seconds = Field(default=600, description="How long an idle client stays bound to its backend")
    binding_gc_interval_secs: Seconds = Field(default=60, description="Expired bindings are all freed within")
    binding_ipv6_prefix: int = Field(
        default=128, ge=1, le=128, description="Bits of an IPv6 address that make a client"
    )
    binding_max: int = Field(default=1_000_000, ge=0, le=10_000_000, description="Bindings held; the oldest goes first")
    binding_snapshot: Annotated[Path | None, BeforeValidator(_none_if_empty)] = Field(
        default=None, description="File that keeps the bindings over a restart; empty = off"
    )
    connect_timeout_secs: Seconds = Field(default=3, description="For one dial of a backend")
    connect_attempts: int = Field(default=3, ge=1, le=10, description="Distinct backends dialled for one connection")
    idle_timeout_secs: Seconds = Field(default=3600, description="Without a byte in either direction")
    linger_timeout_secs: Seconds = Field(default=60, description="Without a byte after one side has closed")
    drain_withdraw_secs: float = Field(
        default=0, ge=0, le=3600, description="On SIGTERM: /ready is 503 and connections still welcome for"
    )
    drain_timeout_secs: float = Field(default=30, ge=0, le=86_400, description="On SIGTERM: open connections get")
    max_connections: Annotated[int, AfterValidator(_within_descriptors)] = Field(
        default=0, ge=0, description="Client connections at once; 0 = what the file-descriptor limit allows"
    )
    max_connections_per_client: int = Field(default=0, ge=0, description="At once; 0 = no limit")
    connection_rate_per_client: float = Field(default=0, ge=0, le=1e6, description="New ones a second; 0 = no limit")
    proxy_protocol_from: Annotated[tuple[IPNetwork, ...], BeforeValidator(_networks)] = Field(
        default=(), description="Networks that must send a PROXY header; empty = nobody may"
    )
    send_proxy: Annotated[Literal["off", "v1", "v2"], BeforeValidator(_lower)] = Field(
        default="off", description="Send a PROXY header to backends: off, v1 or v2"
    )
    soft_limit_spill: bool = Field(default=False, description="Prefer backends under their soft limit in tiers 0-2")
    metrics_listen_addr: Annotated[ListenAddress, BeforeValidator(_one_address)] = Field(
        default="127.0.0.1:9090",
        validate_default=True,
        description="Where /metrics, /live and /ready answer",
    )
    log_path: Annotated[Path | None, BeforeValidator(_none_if_empty)] = Field(
        default=None, description="JSON log file; empty = stderr"
    )
    debug: bool = Field(default=False, description="Log at DEBUG level")

    def effective_max_connections(self) -> int:
        """Return the limit in force: the configured one, or what the descriptor limit leaves, two per connection."""
        return self.max_connections or descriptors_for_connections() // 2


def descriptors_for_connections() -> int:
    """Return how many file descriptors the process may spend on client connections and their backends."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(2, soft - RESERVED_DESCRIPTORS - 2 * PIPES)


class ConfigError(ValueError):
    """The configuration is unusable. `faults` has one line each: variable, value, rule."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def load(environment: Mapping[str, str]) -> Config:
    """Read the configuration. Raises ConfigError naming every fault."""
    field_of = {variable(field): field for field in Config.model_fields}
    given = {field_of[name]: text for name, text in environment.items() if name in field_of}
    faults = [_unknown(name) for name in environment if name.startswith(PREFIX) and name not in field_of]
    try:
        config = Config.model_validate(given)
    except ValidationError as error:
        raise ConfigError([*map(_describe, error.errors()), *faults]) from None
    faults += _conflicts(config)
    if faults:
        raise ConfigError(faults)
    return config


def _conflicts(config: Config) -> list[str]:
    """Name what is wrong with values that are right each for itself, or with the place they are to work in."""
    faults = []
    listening = [*config.listen_addr, config.metrics_listen_addr]
    for address in {a for a in listening if a.port and listening.count(a) > 1}:
        faults.append(f"{variable('listen_addr')}, {variable('metrics_listen_addr')}: {address} is given twice")
    for field in ("db_path", "log_path"):
        path = getattr(config, field)
        if path is not None and path.is_dir():
            faults.append(f"{variable(field)}={str(path)!r}: is a folder")
    snapshot = config.binding_snapshot
    if snapshot is not None and not snapshot.absolute().parent.is_dir():
        faults.append(f"{variable('binding_snapshot')}={str(snapshot)!r}: there is no such folder")
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < RESERVED_DESCRIPTORS + 2 * PIPES + FEWEST_DESCRIPTORS:
        faults.append(f"the file-descriptor limit {soft} leaves none for connections (raise it with ulimit -n)")
    return faults


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), Config.model_fields, n=1)
    hint = f", did you mean {variable(near[0])}?" if near else ""
    return f"{name}: no such variable{hint}"


def _describe(fault: Any) -> str:
    name = variable(str(fault["loc"][0]))
    message = fault["msg"].removeprefix("Value error, ")
    return f"{name}={fault['input']!r}: {message}"
