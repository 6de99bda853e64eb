"""Reads the environment variables that begin with EDGEPROXY_ into Settings.

An unknown name is a fault, so a misspelt variable never goes unnoticed. `.env` is not read here but by the commands,
as by honcho.
"""

from __future__ import annotations

import ipaddress
import os
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

from app.config import patterns
from app.config.clashes import clashes
from app.config.faults import ConfigError, did_you_mean, nearest, rule_of
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
    SecondsVariable,
    SendProxy,
    WrittenSeconds,
    database_url,
    listen_addresses,
    none_if_empty,
    not_empty,
    one_listen_address,
)
from app.domain.secrets import MASK

PREFIX: Final = "EDGEPROXY_"

_SECRETS: Final = ("db_url",)
"""Fields whose value a fault masks."""
PIPES: Final = 64
"""Pipes for bulk copying, two descriptors each (see app.inbound.pipes)."""
RESERVED_DESCRIPTORS: Final = 256
"""For listeners, databases, logs, threads, the metrics server and up to 128 probes (see actors.health)."""
MAX_IDLE_UPSTREAMS: Final = 512
"""Idle backend connections kept by HTTP frontends. Those in use are counted with their client connections."""
MIN_DESCRIPTORS: Final = 32
"""For connections; with fewer the edge does not start."""


def _within_descriptors(connections: int) -> int:
    allowed = descriptors_for_connections() // 2
    if connections > allowed:
        raise ValueError(f"the file-descriptor limit allows {allowed}; raise it with ulimit -n or LimitNOFILE")
    return connections


def _listen_addresses_or_none(value: object) -> object:
    return () if none_if_empty(value) is None else listen_addresses(value)


def _listen_address_or_none(value: object) -> object:
    text = none_if_empty(value)
    return text if text is None else one_listen_address(text)


class Settings(BaseModel):
    """The environment variables. Field `name` is the variable EDGEPROXY_NAME; `*_secs` are seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    config: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None,
        description="YAML file of frontends and backends; empty = one frontend, defined by these variables",
    )
    env_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=Path(".env"),
        description="File of variables that every command reads first, except those started by honcho; empty = none",
    )
    listen_addr: ListenAddresses = Field(
        default="*:8080",
        validate_default=True,
        description="Addresses that clients connect to, a comma-separated list; * is IPv4 and IPv6",
    )
    db_path: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("routing.db"), description="SQLite file with the routing database"
    )
    db_url: Annotated[DatabaseUrl | None, BeforeValidator(database_url)] = Field(
        default=None, description="Routing database in PostgreSQL, postgresql://user@host/name; empty = the SQLite file"
    )
    region: Region = Field(default="sa", description="Region of this point of presence (POP)")
    app: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        default="", description="Serve only the backends of this app; empty = all rows"
    )
    db_reload_secs: SecondsVariable = Field(
        default=5, description="Longest time between full reloads of the routing database; changes are seen earlier"
    )
    geoip_path: str = Field(
        default="", description="Country database (MaxMind format); empty = the one in app/data, off = no geography"
    )
    binding_ttl_secs: SecondsVariable = Field(
        default=600, description="Time that an idle client stays bound to its backend"
    )
    binding_gc_interval_secs: SecondsVariable = Field(
        default=60, description="Time within which all expired bindings are freed"
    )
    binding_ipv6_prefix: int = Field(
        default=128,
        ge=1,
        le=128,
        description="Prefix length by which IPv6 clients are bound; 128 = each address is a client",
    )
    binding_max: int = Field(
        default=1_000_000, ge=0, le=10_000_000, description="Largest number of bindings; above it the oldest is removed"
    )
    binding_snapshot: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="File that preserves the bindings across restarts; empty = off"
    )
    connect_timeout_secs: SecondsVariable = Field(default=3, description="Time limit of one connect to a backend")
    connect_attempts: int = Field(
        default=3, ge=1, le=10, description="Number of different backends tried for one connection"
    )
    idle_timeout_secs: SecondsVariable = Field(
        default=3600, description="Close a connection after this time without a byte in either direction"
    )
    linger_timeout_secs: SecondsVariable = Field(
        default=60, description="Close a half-closed connection after this time without a byte"
    )
    drain_withdraw_secs: Annotated[float, WrittenSeconds] = Field(
        default=0,
        ge=0,
        le=3600,
        description="On SIGTERM: time during which /ready is 503 and new connections are still accepted",
    )
    drain_timeout_secs: Annotated[float, WrittenSeconds] = Field(
        default=30, ge=0, le=86_400, description="On SIGTERM: time for open connections to end, before they are closed"
    )
    max_connections: Annotated[int, AfterValidator(_within_descriptors)] = Field(
        default=0, ge=0, description="Concurrent client connections; 0 = as many as the file-descriptor limit allows"
    )
    max_connections_per_client: int = Field(
        default=0, ge=0, description="Concurrent connections of one client; 0 = no limit"
    )
    connection_rate_per_client: float = Field(
        default=0, ge=0, le=1e6, description="New connections per second of one client; 0 = no limit"
    )
    proxy_protocol_from: Networks = Field(
        default=(),
        description="Networks whose connections must begin with a PROXY header; from all others it is refused",
    )
    send_proxy: SendProxy = Field(default="off", description="Send a PROXY header to backends: off, v1 or v2")
    soft_limit_spill: bool = Field(default=False, description="Prefer backends below their soft limit in tiers 0-2")
    health_check: HealthCheckType = Field(
        default="off", description="Active probes of the backends: off, tcp (connect) or http (GET)"
    )
    health_check_path: str = Field(default="/", pattern=patterns.PATH, description="Path that an http probe requests")
    health_check_interval_secs: SecondsVariable = Field(default=10, description="Time between two probes of a backend")
    metrics_listen_addr: OneListenAddress = Field(
        default="127.0.0.1:9090",
        validate_default=True,
        description="Address that serves /metrics, /live and /ready",
    )
    admin_listen_addr: Annotated[ListenAddress | None, BeforeValidator(_listen_address_or_none)] = Field(
        default="127.0.0.1:8081", validate_default=True, description="Address of the admin API; empty = off"
    )
    admin_tls_cert: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Certificate chain (PEM) for the admin API; empty = no TLS"
    )
    admin_tls_key: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Private key of the certificate (PEM); empty = in the certificate's file"
    )
    admin_insecure: bool = Field(
        default=False, description="Allow the admin API without TLS on an address other than loopback"
    )
    admin_token_file: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("admin.token"), description="File to which the first start writes the first token of the admin API"
    )
    gateway_db_path: Annotated[Path, BeforeValidator(not_empty)] = Field(
        default=Path("gateway.db"), description="SQLite file with endpoints, handlers and the tokens of the admin API"
    )
    api_url: str = Field(
        default="",
        description="URL of the edge that commands call; empty = http://127.0.0.1:8081, or the database for `backends`",
    )
    api_token: SecretStr = Field(
        default=SecretStr(""), description="Token that commands send; empty = the one in EDGEPROXY_ADMIN_TOKEN_FILE"
    )
    api_ca_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None,
        description="Certificates of the authorities that commands trust (PEM); empty = those of the system",
    )
    bgp_config: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="exabgp configuration for the bgp process of the Procfile; empty = the process idles"
    )
    dns_listen_addr: Annotated[tuple[ListenAddress, ...], BeforeValidator(_listen_addresses_or_none)] = Field(
        default="",
        validate_default=True,
        description="Addresses of the internal DNS, a comma-separated list; empty = off",
    )
    dns_domain: DnsDomain = Field(default="internal", description="Domain of the internal DNS")
    dns_ttl_secs: Annotated[int, WrittenSeconds] = Field(
        default=5, ge=0, le=86_400, description="TTL of the records of the internal DNS"
    )
    etcd_endpoints: EtcdEndpoints = Field(
        default=(),
        description="URLs of the etcd that replicates the backends, a comma-separated list; empty = no replication",
    )
    etcd_user: Annotated[str, StringConstraints(strip_whitespace=True)] = Field(
        default="", description="User name for etcd; empty = no authentication"
    )
    etcd_password_file: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="File with the password of the etcd user"
    )
    etcd_tls_ca: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Certificates of the authorities trusted for etcd (PEM); empty = those of the system"
    )
    etcd_tls_cert: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Client certificate for etcd (PEM); empty = none"
    )
    etcd_tls_key: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Private key of the certificate (PEM); empty = in the certificate's file"
    )
    replicator_listen_addr: OneListenAddress = Field(
        default="127.0.0.1:8082",
        validate_default=True,
        description="Address where the replicator accepts changes of backends from the edge on this machine",
    )
    log_path: Annotated[Path | None, BeforeValidator(none_if_empty)] = Field(
        default=None, description="Log file; empty = stderr"
    )
    log_level: LogLevel = Field(
        default="info", description="Lowest level that is logged: debug, info, warning or error"
    )
    log_format: LogFormat = Field(default="json", description="json (one object per line) or text (for people)")
    debug: bool = Field(default=False, description="Same as EDGEPROXY_LOG_LEVEL=debug")

    @property
    def routing(self) -> Path | DatabaseUrl:
        """Location of the routing database."""
        return self.db_url or self.db_path

    @property
    def is_replicated(self) -> bool:
        """Whether the routing database is a replica, so that backends are changed through the replicator."""
        return bool(self.etcd_endpoints)

    def effective_max_connections(self) -> int:
        """Return the limit in force: the configured one, or half of the descriptors that are left for connections."""
        return self.max_connections or descriptors_for_connections() // 2


def descriptors_for_connections() -> int:
    """Return the number of file descriptors left for connections of clients and to their backends."""
    return max(2, _free_descriptors() - idle_upstreams())


def idle_upstreams() -> int:
    """Return the number of idle connections to backends that may be kept: at most an eighth of the descriptors."""
    return min(MAX_IDLE_UPSTREAMS, max(0, _free_descriptors() // 8))


def _free_descriptors() -> int:
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft - RESERVED_DESCRIPTORS - 2 * PIPES


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return PREFIX + field.upper()


def option(field: str) -> str:
    """Return the command-line option of a field."""
    return "--" + field.replace("_", "-")


def read_environment(environment: Mapping[str, str], overrides: Mapping[str, str]) -> Settings:
    """Validate the variables and the overrides of the command line, by field name. Raises ConfigError."""
    field_of = {variable(field): field for field in Settings.model_fields}
    given = {field_of[name]: text for name, text in environment.items() if name in field_of}
    faults = [_unknown(name) for name in environment if name.upper().startswith(PREFIX) and name not in field_of]
    try:
        settings = Settings.model_validate({**given, **overrides})
    except ValidationError as error:
        described = []
        for fault in error.errors():
            field = str(fault["loc"][0])
            where = option(field) if field in overrides else variable(field)
            shown = {**given, **overrides}[field] if field not in _SECRETS else MASK
            described.append(f"{where}={shown!r}: {rule_of(fault)}")
        raise ConfigError([*described, *faults]) from None
    faults += _conflicts(settings)
    if settings.debug and "log_level" in given and "log_level" not in overrides and settings.log_level != "debug":
        faults.append(f"{variable('debug')}={given['debug']!r}: {variable('log_level')} says {settings.log_level}")
    if faults:
        raise ConfigError(faults)
    return settings


def _unknown(name: str) -> str:
    near = nearest(name[len(PREFIX) :].lower(), Settings.model_fields)
    return f"{name}: no such variable{did_you_mean(variable(near) if near else None)}"


def listeners(settings: Settings) -> list[tuple[str, ListenAddress]]:
    """Return what listens on this machine beside the frontends: the variable and the address.

    The metrics only if they were given, because the file has an address for them, too; the replicator, which is
    another process, if the backends are replicated.
    """
    fields = ["admin_listen_addr", "dns_listen_addr"]
    if "metrics_listen_addr" in settings.model_fields_set:
        fields.append("metrics_listen_addr")
    if settings.is_replicated:
        fields.append("replicator_listen_addr")
    return [(variable(field), address) for field in fields for address in _addresses(getattr(settings, field))]


def _addresses(value: ListenAddress | tuple[ListenAddress, ...] | None) -> tuple[ListenAddress, ...]:
    return value if isinstance(value, tuple) else (value,) if value is not None else ()


def _conflicts(settings: Settings) -> list[str]:
    """Return the faults of values that are valid by themselves but not together or on this machine."""
    faults = []
    for field in ("db_path", "log_path", "gateway_db_path", "admin_token_file", "binding_snapshot"):
        path = getattr(settings, field)
        if path is not None and os.path.isdir(path):  # Path.is_dir raises for a name too long
            faults.append(f"{variable(field)}={str(path)!r}: is a directory")
    snapshot = settings.binding_snapshot
    if snapshot is not None and not os.path.isdir(snapshot.absolute().parent):
        faults.append(f"{variable('binding_snapshot')}={str(snapshot)!r}: its directory does not exist")
    faults += [*_open_listeners(settings), *_etcd_conflicts(settings), *clashes(listeners(settings))]
    if "health_check_path" in settings.model_fields_set and settings.health_check != "http":
        name, path = variable("health_check_path"), settings.health_check_path
        faults.append(f"{name}={path!r}: works with {variable('health_check')}=http only")
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < RESERVED_DESCRIPTORS + 2 * PIPES + MIN_DESCRIPTORS:
        faults.append(
            f"the file-descriptor limit {soft} leaves none for connections; raise it with ulimit -n or LimitNOFILE"
        )
    return faults


def _etcd_conflicts(settings: Settings) -> list[str]:
    """Return the faults of incomplete etcd settings, and of a replicator that other machines could reach."""
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
        faults.append(
            f"{variable('db_url')}: works only without {variable('etcd_endpoints')}, whose replica is an SQLite file"
        )
    return faults


def _open_listeners(settings: Settings) -> list[str]:
    """Return the faults of an admin API that would send tokens unencrypted over a network without being told to."""
    address = settings.admin_listen_addr
    if settings.admin_tls_key is not None and settings.admin_tls_cert is None:
        return [f"{variable('admin_tls_key')}={str(settings.admin_tls_key)!r}: needs {variable('admin_tls_cert')} too"]
    if address is None or settings.admin_insecure or settings.admin_tls_cert is not None:
        return []
    if ipaddress.ip_address(address.host).is_loopback:
        return []
    ways = f"{variable('admin_tls_cert')}, or {variable('admin_insecure')}=true"
    return [f"{variable('admin_listen_addr')}={str(address)!r}: is not a loopback address and needs TLS: set {ways}"]
