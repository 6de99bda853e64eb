"""Frontends and pools: the schema of the configuration file and, validated, the objects that the edge works with.

Field names carry units; the file's keys are their aliases without (`connect_timeout: 3s`).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError

from app.config.values import (
    Duration,
    HealthCheckType,
    ListenAddresses,
    LogFormat,
    LogLevel,
    Networks,
    OneListenAddress,
    SendProxy,
    ServerAddress,
    Statuses,
    Switch,
    Whole,
    filled,
    not_null,
)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""The name of a header: RFC 9110, section 5.6.2."""
_HEADER_VALUE: Final = re.compile(r"(?:[!-~](?:[ \t!-~]*[!-~])?)?")
"""The value of a header: RFC 9110, section 5.5, without its obsolete part."""
_FIXED_HEADERS: Final = frozenset(
    [
        *["host", "content-length", "transfer-encoding", "trailer"],
        *["connection", "keep-alive", "proxy-connection", "te", "upgrade"],
    ]
)
"""Framing and the connection's own business (RFC 9110, section 7.6.1): not for a configuration to change."""

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,63}$")]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True)


class HealthCheckDefaults(_Model):
    """When a server counts as down and as up again."""

    interval_seconds: Duration = Field(
        default=10, validation_alias="interval", description="Between two probes of a server"
    )
    timeout_seconds: Duration = Field(
        default=5, validation_alias="timeout", description="For one probe, connecting included"
    )
    unhealthy_threshold: Whole = Field(
        default=3, ge=1, le=1000, description="Failures in a row that take a server out, of probes or of connections"
    )
    healthy_threshold: Whole = Field(
        default=2, ge=1, le=1000, description="Successful probes in a row that bring a server back"
    )
    cooldown_seconds: Duration = Field(
        default=30,
        validation_alias="cooldown",
        description="First ejection after failed connections; doubles to 5 minutes",
    )


class HealthCheck(HealthCheckDefaults):
    """How the servers of a pool are judged: active probes, and the failures that clients' connections meet."""

    type: HealthCheckType = Field(default="off", description="Active probes: off, tcp (connect) or http (GET)")
    path: str = Field(default="/", pattern=r"^/[!-~]{0,2047}$", description="What a probe of type http asks for")
    expected_status: Statuses = Field(
        default=frozenset(range(200, 400)),
        description="Answers to a probe of type http that are a success",
        json_schema_extra={"default": "200-399"},
    )
    body: Annotated[str | None, BeforeValidator(not_null)] = Field(
        default=None, min_length=1, max_length=1024, description="Text that the answer to a probe must contain"
    )
    passive_statuses: Statuses = Field(
        default=frozenset(),
        description="Answers to clients' requests that count as failures, such as [502, 503, 504]",
        json_schema_extra={"default": []},
    )

    @field_validator("path", "expected_status", "body")
    @classmethod
    def _only_for_http(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("type", "http") != "http":
            raise ValueError("works with type: http only")
        return value

    def with_defaults(self, defaults: HealthCheckDefaults) -> HealthCheck:
        """Return this with the defaults in place of whatever was not given."""
        absent = HealthCheckDefaults.model_fields.keys() - self.model_fields_set
        return self.model_copy(update={name: getattr(defaults, name) for name in absent})


class Server(_Model):
    """One server of a pool."""

    address: ServerAddress = Field(description="IP address or host name, and port; IPv6 in brackets")
    weight: Whole = Field(default=1, ge=0, le=256, description="Share of the clients; 0 = no new ones")


class Pool(_Model):
    """The servers behind frontends: either listed here or, with `app`, those of the routing database."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["servers"]}, {"required": ["app"]}]},
    )

    name: Name = Field(description="What frontends call it")
    servers: Annotated[tuple[Server, ...], BeforeValidator(filled)] = Field(
        default_factory=tuple, description="The servers", json_schema_extra={"minItems": 1}
    )
    app: Annotated[str | None, BeforeValidator(not_null)] = Field(
        default=None, description="This app's backends of the routing database; empty = all rows"
    )
    health_check: HealthCheck = Field(default_factory=HealthCheck, description="How its servers are judged")

    @field_validator("servers")
    @classmethod
    def _distinct(cls, servers: tuple[Server, ...]) -> tuple[Server, ...]:
        uses = Counter(str(server.address) for server in servers)
        twice = [address for address, count in uses.items() if count > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)}: given twice")
        return servers

    @model_validator(mode="after")
    def _one_source(self) -> Pool:
        if self.name and bool(self.servers) == (self.app is not None):  # NO_POOL has no name, and nobody
            raise ValueError("needs either servers or app")
        return self


class Limits(_Model):
    """What one frontend admits; the process's own limit holds beside it."""

    max_connections: Whole = Field(default=0, ge=0, description="At once; 0 = no limit of its own")
    max_connections_per_client: Whole = Field(default=0, ge=0, description="At once; 0 = no limit")
    connection_rate_per_client: Annotated[float, Strict()] = Field(
        default=0, ge=0, le=1e6, allow_inf_nan=False, description="New ones a second; 0 = no limit"
    )


class TcpOptions(_Model):
    """Connections of either protocol, to backends and with clients."""

    connect_timeout_seconds: Duration = Field(
        default=3, validation_alias="connect_timeout", description="For one dial of a backend"
    )
    connect_attempts: Whole = Field(
        default=3, ge=1, le=10, description="Distinct backends dialled for one connection or request"
    )
    idle_timeout_seconds: Duration = Field(
        default=3600, validation_alias="idle_timeout", description="Without a byte in either direction"
    )
    linger_timeout_seconds: Duration = Field(
        default=60, validation_alias="linger_timeout", description="Without a byte after one side has closed"
    )
    send_proxy: SendProxy = Field(default="off", description="Send a PROXY header to backends: off, v1 or v2")


def _fit_for_headers(changes: HeaderChanges) -> HeaderChanges:
    named = [*changes.set, *changes.remove]
    lower = [name.lower() for name in named]
    faults = [
        f"{name!r} is no name of a header (RFC 9110, section 5.6.2)" for name in named if not _TOKEN.fullmatch(name)
    ]
    faults += [f"{name} is the edge's own business" for name in named if name.lower() in _FIXED_HEADERS]
    faults += [f"{name} is named twice" for name in dict.fromkeys(lower) if lower.count(name) > 1]
    for name, value in changes.set.items():
        if not _HEADER_VALUE.fullmatch(value):
            faults.append(f"{name}: {value!r} needs printable ASCII without spaces at its ends")
    if faults:
        raise ValueError("; ".join(faults))
    return changes


class HeaderChanges(_Model):
    """Headers to set (replacing any of that name) and to remove."""

    set: dict[str, str] = Field(default={}, description="Name and value of headers to set")
    remove: tuple[str, ...] = Field(default=(), description="Names of headers to remove")


FitHeaderChanges = Annotated[HeaderChanges, AfterValidator(_fit_for_headers)]


class HttpOptions(_Model):
    """Requests and answers of a frontend with protocol http."""

    head_timeout_seconds: Duration = Field(
        default=10, validation_alias="head_timeout", description="For the whole head of a request (408 after)"
    )
    keep_alive_timeout_seconds: Duration = Field(
        default=60, validation_alias="keep_alive_timeout", description="Between two requests of a connection"
    )
    response_timeout_seconds: Duration = Field(
        default=60, validation_alias="response_timeout", description="For the head of a backend's answer (504 after)"
    )
    max_head_bytes: Whole = Field(
        default=32_768, ge=1024, le=1_048_576, description="Of a request or an answer (431, 502 above)"
    )
    trusted_proxies: Networks = Field(
        default=(), description="Networks whose X-Forwarded-For and Forwarded are extended, not replaced"
    )
    request_headers: FitHeaderChanges = Field(
        default_factory=HeaderChanges, description="Changes on the way to backends"
    )
    response_headers: FitHeaderChanges = Field(
        default_factory=HeaderChanges, description="Changes on the way to clients"
    )


class Frontend(_Model):
    """One front door: where clients come in and which pool serves them."""

    name: Name = Field(description="What logs and metrics call it")
    listen: ListenAddresses = Field(
        description="Where clients connect: address:port, a list or comma-separated; * is IPv4 and IPv6"
    )
    protocol: Literal["tcp", "http"] = Field(default="tcp", description="What is balanced: connections or requests")
    gateway: Switch = Field(
        default=False, description="http: requests that an endpoint takes are answered by its handler"
    )
    backend: str = Field(
        default="",
        validate_default=True,
        description="Name of the pool in `backends` that serves; with `gateway: on` it may be left out",
    )
    algorithm: Literal["geo", "round_robin", "weighted", "least_connections", "ip_hash"] = Field(
        default="round_robin", description="Which server gets a connection or request"
    )
    affinity: Switch = Field(
        default_factory=lambda frontend: frontend.get("algorithm") == "geo",
        description="A client stays with its server; on for geo, off otherwise",
    )
    soft_limit_spill: Annotated[bool, Strict()] = Field(
        default=False, description="geo: prefer backends under their soft limit in tiers 0-2"
    )
    proxy_protocol_from: Networks = Field(
        default=(), description="Networks that must send a PROXY header; empty = nobody may"
    )
    limits: Limits = Field(default_factory=Limits, description="What it admits")
    tcp: TcpOptions = Field(default_factory=TcpOptions, description="Connections, of either protocol")
    http: HttpOptions = Field(default_factory=HttpOptions, description="Requests, with protocol http only")

    @field_validator("gateway")
    @classmethod
    def _only_with_http(cls, is_on: bool, info: ValidationInfo) -> bool:
        if is_on and info.data.get("protocol", "http") != "http":
            raise ValueError("works with protocol: http only")
        return is_on

    @field_validator("backend")
    @classmethod
    def _required(cls, backend: str, info: ValidationInfo) -> str:
        if not backend and not info.data.get("gateway", True):
            raise PydanticCustomError("missing", "is required")
        return backend

    @field_validator("soft_limit_spill")
    @classmethod
    def _only_for_geo(cls, spills: bool, info: ValidationInfo) -> bool:
        if spills and info.data.get("algorithm", "geo") != "geo":
            raise ValueError("works with algorithm: geo only")
        return spills

    @field_validator("http")
    @classmethod
    def _only_for_http(cls, options: HttpOptions, info: ValidationInfo) -> HttpOptions:
        if info.data.get("protocol", "http") != "http":
            raise ValueError("works with protocol: http only")
        return options


class Metrics(_Model):
    """Where the edge answers for itself."""

    listen: OneListenAddress = Field(
        default="127.0.0.1:9090", validate_default=True, description="Where /metrics, /live and /ready answer"
    )


class Global(_Model):
    """What is the process's, not one frontend's."""

    log_level: LogLevel = Field(default="info", description="Events below it are not logged")
    log_format: LogFormat = Field(default="json", description="One JSON object a line, or text for people")
    metrics: Metrics = Field(default_factory=Metrics, description="The listener for metrics")


class FileConfig(_Model):
    """The configuration file of the edge proxy."""

    global_: Global = Field(default_factory=Global, validation_alias="global", description="What is the process's")
    health_check_defaults: HealthCheckDefaults = Field(
        default_factory=HealthCheckDefaults, description="For whatever a backend's health_check leaves out"
    )
    frontends: Annotated[tuple[Frontend, ...], BeforeValidator(filled)] = Field(
        description="The front doors", json_schema_extra={"minItems": 1}
    )
    backends: tuple[Pool, ...] = Field(default=(), description="The pools behind them")

    def pools(self) -> tuple[Pool, ...]:
        """Return the pools with the defaults filled in."""
        defaults = self.health_check_defaults
        pools = [
            pool.model_copy(update={"health_check": pool.health_check.with_defaults(defaults)})
            for pool in self.backends
        ]
        if not all(frontend.backend for frontend in self.frontends):
            pools.append(NO_POOL)
        return tuple(pools)


NO_POOL: Final = Pool.model_construct(name="", servers=(), app=None, health_check=HealthCheck())
"""Of frontends that have none: nobody is there."""


class _PlainSchema(GenerateJsonSchema):
    """Without titles that repeat the key, and without null: a key that has no value is a fault."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def nullable_schema(self, schema: Any) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: Any) -> JsonSchemaValue:
        described = super().default_schema(schema)
        return {key: value for key, value in described.items() if (key, value) != ("default", None)}


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of the configuration file, for editors."""
    schema = FileConfig.model_json_schema(by_alias=True, schema_generator=_PlainSchema)
    return {"$schema": GenerateJsonSchema.schema_dialect, **schema}
