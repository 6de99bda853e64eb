"""The environment: variables that begin with EDGEPROXY_ -> Settings. One that is not in the table is a fault.

So a misspelt variable never goes unnoticed. No `.env` is read here: the commands do that, as honcho does.
"""

from __future__ import annotations

import ipaddress
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
)

from app.config.faults import ConfigError, did_you_mean, nearest
from app.config.values import (
    DatabaseUrl,
    DnsDomain,
    EtcdEndpoints,
    HealthCheckType,
    ListenAddress,
    ListenAddresses,
    LogFormat,
    LogLevel,
    Networks,
    OneListenAddress,
    Region,
    Seconds,
    SendProxy,
    database_url,
    listen_addresses,
    none_if_empty,
    not_empty,
    one_listen_address,
)
from app.domain.secrets import MASK

PREFIX: Final = "EDGEPROXY_"

_SECRETS: Final = ("db_url",)
"""Fields whose text is not repeated in a fault."""
PIPES: Final = 64
"""Pipes for bulk copying, two descriptors each (see app.inbound.pipes)."""
RESERVED_DESCRIPTORS: Final = 256
"""For listeners, databases, logs, threads, the metrics server and up to 128 probes (see actors.health)."""
MOST_IDLE_UPSTREAMS: Final = 512
"""Idle connections to backends that HTTP frontends keep; those in use are counted with their clients."""
FEWEST_DESCRIPTORS: Final = 32
"""For connections: with fewer the edge does not start."""


def _within_descriptors(connections: int) -> int:
    allowed = descriptors_for_connections() // 2
    if connections > allowed:
        raise ValueError(f"the file-descriptor limit allows {allowed} (raise it with ulimit -n or LimitNOFILE)")
    return connections


def _listen_addresses_or_none(value: object) -> object:
    return () if none_if_empty(value) is None else listen_addresses(value)


def _listen_address_or_none(value: object) -> object:
    text = none_if_empty(value)
    return text if text is None else one_listen_address(text)


class Settings(BaseModel):
    """What the environment says. Field NAME is environment variable EDGEPROXY_NAME; `*_secs` are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    config: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="YAML file with frontends and backends; empty = one frontend, of these variables"
    )
    env_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=Path(".env"),
        description="File of variables that every command reads first, unless honcho started it; empty = none",
    )
    listen_addr: ListenAddresses = Field(
        default="*:8080",
        validate_default=True,
        description="Where clients connect: a comma-separated list; * is IPv4 and IPv6",
    )
    db_path: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("routing.db"), description="The SQLite routing database"
    )
    db_url: Annotated[DatabaseUrl | None, BeforeValidator(database_url)] = Field(
        default=None, description="The routing database in PostgreSQL, postgresql://user@host/name; empty = the file"
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
    binding_snapshot: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
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
    proxy_protocol_from: Networks = Field(
        default=(), description="Networks that must send a PROXY header; empty = nobody may"
    )
    send_proxy: SendProxy = Field(default="off", description="Send a PROXY header to backends: off, v1 or v2")
    soft_limit_spill: bool = Field(default=False, description="Prefer backends under their soft limit in tiers 0-2")
    health_check: HealthCheckType = Field(
        default="off", description="Probe the backends: off, tcp (connect) or http (GET)"
    )
    health_check_path: str = Field(
        default="/", pattern=r"^/[!-~]{0,2047}$", description="What a probe of type http asks for"
    )
    health_check_interval_secs: Seconds = Field(default=10, description="Between two probes of a backend")
    metrics_listen_addr: OneListenAddress = Field(
        default="127.0.0.1:9090",
        validate_default=True,
        description="Where /metrics, /live and /ready answer",
    )
    admin_listen_addr: Annotated[ListenAddress | None, BeforeValidator(_listen_address_or_none)] = Field(
        default="127.0.0.1:8081", validate_default=True, description="Where the admin API answers; empty = off"
    )
    admin_tls_cert: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Certificate chain (PEM) for the admin API; empty = no TLS"
    )
    admin_tls_key: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Its private key (PEM); empty = in the file of the certificate"
    )
    admin_insecure: bool = Field(
        default=False, description="Let the admin API listen without TLS on an address that is not loopback"
    )
    admin_token_file: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("admin.token"), description="Gets the first token for the admin API, at the first start"
    )
    gateway_db_path: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("gateway.db"), description="The SQLite database of endpoints, handlers and the admin API's tokens"
    )
    api_url: str = Field(
        default="", description="The edge that commands ask; empty = http://127.0.0.1:8081, for backends the database"
    )
    api_token: SecretStr = Field(
        default=SecretStr(""), description="The token of commands; empty = what the file of the first token holds"
    )
    api_ca_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Authorities that commands trust to certify the edge (PEM); empty = the system's"
    )
    bgp_config: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="exabgp configuration that the Procfile's bgp process runs; empty = it idles"
    )
    dns_listen_addr: Annotated[tuple[ListenAddress, ...], BeforeValidator(_listen_addresses_or_none)] = Field(
        default="", validate_default=True, description="Where the internal DNS answers: a list; empty = off"
    )
    dns_domain: DnsDomain = Field(default="internal", description="The domain of the internal DNS")
    dns_ttl_secs: int = Field(default=5, ge=0, le=86_400, description="How long clients may keep an answer of it")
    etcd_endpoints: EtcdEndpoints = Field(
        default=(),
        description="URLs of the etcd that replicates the backends, a comma-separated list; empty = one machine",
    )
    etcd_user: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        default="", description="The user to etcd; empty = none"
    )
    etcd_password_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="File with that user's password"
    )
    etcd_tls_ca: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Certificates (PEM) that etcd's is verified by; empty = those of the system"
    )
    etcd_tls_cert: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Client certificate (PEM) shown to etcd; empty = none"
    )
    etcd_tls_key: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Its private key (PEM); empty = in the file of the certificate"
    )
    replicator_listen_addr: OneListenAddress = Field(
        default="127.0.0.1:8082",
        validate_default=True,
        description="Where the replicator takes changes of backends from this machine's edge",
    )
    log_path: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Log file; empty = stderr"
    )
    log_level: LogLevel = Field(default="info", description="debug, info, warning or error")
    log_format: LogFormat = Field(default="json", description="json, one object a line, or text for people")
    debug: bool = Field(default=False, description="Log at DEBUG level")

    @property
    def routing(self) -> Path | DatabaseUrl:
        """Where the routing database is."""
        return self.db_url or self.db_path

    @property
    def is_replicated(self) -> bool:
        """The routing database is a replica: changes of backends are the replicator's business."""
        return bool(self.etcd_endpoints)

    def effective_max_connections(self) -> int:
        """Return the limit in force: the configured one, or what the descriptor limit leaves, two per connection."""
        return self.max_connections or descriptors_for_connections() // 2


def descriptors_for_connections() -> int:
    """Return how many file descriptors the process may spend on client connections and their backends."""
    return max(2, _free_descriptors() - idle_upstreams())


def idle_upstreams() -> int:
    """Return how many idle connections to backends may be kept, an eighth of what there is at most."""
    return min(MOST_IDLE_UPSTREAMS, max(0, _free_descriptors() // 8))


def _free_descriptors() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - RESERVED_DESCRIPTORS - 2 * PIPES


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def option(field: str) -> str:
    """Return the option of the command line that says the same as a field."""
    return "--" + field.replace("_", "-")


def read_environment(environment: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    """Read the variables, and by field name what the command line says instead. Raises ConfigError."""
    field_of = {variable(field): field for field in Settings.model_fields}
    given = {field_of[name]: text for name, text in environment.items() if name in field_of}
    faults = [_unknown(name) for name in environment if name.startswith(PREFIX) and name not in field_of]
    try:
        settings = Settings.model_validate({**given, **overrides})
    except ValidationError as error:
        described = []
        for fault in error.errors():
            field = str(fault["loc"][0])
            where = option(field) if field in overrides else variable(field)
            shown = fault["input"] if field not in _SECRETS else MASK
            described.append(f"{where}={shown!r}: {fault['msg'].removeprefix('Value error, ')}")
        raise ConfigError([*described, *faults]) from None
    faults += _conflicts(settings)
    if settings.debug and "log_level" in given and "log_level" not in overrides and settings.log_level != "debug":
        faults.append(f"{variable('debug')}={given['debug']!r}: {variable('log_level')} says {settings.log_level}")
    if faults:
        raise ConfigError(faults)
    return settings


def _unknown(name: str) -> str:
    near = nearest(name.removeprefix(PREFIX).lower(), Settings.model_fields)
    return f"{name}: no such variable{did_you_mean(variable(near) if near else None)}"


def _conflicts(settings: Settings) -> list[str]:
    """Name what is wrong with the place that values, right each for itself, are to work in."""
    faults = []
    for field in ("db_path", "log_path", "gateway_db_path", "admin_token_file"):
        path = getattr(settings, field)
        if path is not None and path.is_dir():
            faults.append(f"{variable(field)}={str(path)!r}: is a folder")
    snapshot = settings.binding_snapshot
    if snapshot is not None and not snapshot.absolute().parent.is_dir():
        faults.append(f"{variable('binding_snapshot')}={str(snapshot)!r}: there is no such folder")
    faults += [*_open_listeners(settings), *_etcd_conflicts(settings)]
    if "health_check_path" in settings.model_fields_set and settings.health_check != "http":
        name, path = variable("health_check_path"), settings.health_check_path
        faults.append(f"{name}={path!r}: works with {variable('health_check')}=http only")
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < RESERVED_DESCRIPTORS + 2 * PIPES + FEWEST_DESCRIPTORS:
        faults.append(f"the file-descriptor limit {soft} leaves none for connections (raise it with ulimit -n)")
    return faults


def _etcd_conflicts(settings: Settings) -> list[str]:
    """Name what goes to etcd without what belongs to it, and a listener of plain HTTP that others could reach."""
    faults = []
    pairs = (
        ("etcd_user", "etcd_password_file"),
        ("etcd_password_file", "etcd_user"),
        ("etcd_tls_key", "etcd_tls_cert"),
        *((field, "etcd_endpoints") for field in ("etcd_user", "etcd_tls_ca", "etcd_tls_cert")),
    )
    for field, needed in pairs:
        if getattr(settings, field) and not getattr(settings, needed):
            faults.append(f"{variable(field)}={str(getattr(settings, field))!r}: needs {variable(needed)} too")
    address = settings.replicator_listen_addr
    if not ipaddress.ip_address(address.host).is_loopback or not address.port:
        faults.append(f"{variable('replicator_listen_addr')}={str(address)!r}: must be a loopback address with a port")
    if settings.is_replicated and settings.db_url is not None:
        faults.append(f"{variable('db_url')}: works without {variable('etcd_endpoints')} only, whose replica is a file")
    return faults


def _open_listeners(settings: Settings) -> list[str]:
    """Refuse to carry tokens in the clear over a network, unless that was asked for."""
    address = settings.admin_listen_addr
    if settings.admin_tls_key is not None and settings.admin_tls_cert is None:
        return [f"{variable('admin_tls_key')}={str(settings.admin_tls_key)!r}: needs {variable('admin_tls_cert')} too"]
    if address is None or settings.admin_insecure or settings.admin_tls_cert is not None:
        return []
    if ipaddress.ip_address(address.host).is_loopback:
        return []
    ways = f"{variable('admin_tls_cert')}, or {variable('admin_insecure')}=true"
    return [f"{variable('admin_listen_addr')}={str(address)!r}: is no loopback address: needs TLS ({ways})"]
