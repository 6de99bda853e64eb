"""The schema of the configuration file; validated, the frontends and pools that the edge works with.

Field names carry units. The keys of the file are their aliases without units (`connect_timeout: 3s`). `schema` and
`check` print the descriptions.
"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Final, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticCustomError

from app.config import patterns
from app.config.http_options import HttpOptions
from app.config.section import Section
from app.config.values import (
    Duration,
    HealthCheckType,
    ListenAddresses,
    LogFormat,
    LogLevel,
    Networks,
    Number,
    OneListenAddress,
    SendProxy,
    ServerAddress,
    Statuses,
    Switch,
    Whole,
    not_empty_list,
    not_null,
)


def _needs(present: dict[str, Any], *, key: str, value: str) -> Any:
    """Return a rule of JSON Schema: where this is present, a key must have a value."""
    return {"if": present, "then": {"properties": {key: {"const": value}}, "required": [key]}}


_IS_ON: Final[dict[str, Any]] = {"enum": [True, "on"]}

Name = Annotated[str, Field(pattern=patterns.NAME)]


EXTENSION: Final = "x-"
"""Beginning of the keys at the top level that are ignored, as in Docker Compose and OpenAPI."""


class HealthCheckDefaults(Section):
    """When a backend counts as down, and when as up again."""

    interval_seconds: Duration = Field(
        default=10, validation_alias="interval", description="Time between two probes of a backend"
    )
    timeout_seconds: Duration = Field(
        default=5, validation_alias="timeout", description="Time limit of one probe, including the connect"
    )
    unhealthy_threshold: Whole = Field(
        default=3,
        ge=1,
        le=1000,
        description="Consecutive failures (of probes or of connections) after which a backend is down",
    )
    healthy_threshold: Whole = Field(
        default=2, ge=1, le=1000, description="Consecutive successful probes after which a backend is up again"
    )
    cooldown_seconds: Duration = Field(
        default=30,
        validation_alias="cooldown",
        description="Length of the first ejection after failed connections; doubles each time, up to 5 minutes",
    )


class HealthCheck(HealthCheckDefaults):
    """Health of a pool's backends: active probes, and failures of client connections (passive)."""

    model_config = ConfigDict(
        json_schema_extra=_needs(
            {"anyOf": [{"required": [key]} for key in ("path", "expected_status", "body")]}, key="type", value="http"
        )
    )

    type: HealthCheckType = Field(default="off", description="Type of active probe: off, tcp (connect) or http (GET)")
    path: str = Field(default="/", pattern=patterns.PATH, description="Path that an http probe requests")
    expected_status: Statuses = Field(
        default=frozenset(range(200, 400)),
        description="Status codes that make an http probe succeed",
        json_schema_extra={"default": "200-399"},
    )
    body: Annotated[str | None, BeforeValidator(not_null)] = Field(
        default=None, min_length=1, max_length=1024, description="Text that the response to an http probe must contain"
    )
    passive_statuses: Statuses = Field(
        default=frozenset(),
        description="Status codes of responses to clients that count as failures, such as [502, 503, 504]",
        json_schema_extra={"default": []},
    )

    @field_validator("path", "expected_status", "body")
    @classmethod
    def _only_for_http(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("type", "http") != "http":
            raise ValueError("works with type: http only")
        return value

    def with_defaults(self, defaults: HealthCheckDefaults) -> HealthCheck:
        """Return a copy in which the defaults fill the fields that were not given."""
        absent = HealthCheckDefaults.model_fields.keys() - self.model_fields_set
        return self.model_copy(update={name: getattr(defaults, name) for name in absent})


class Server(Section):
    """One backend of a pool, listed in the file."""

    address: ServerAddress = Field(description="IP address or host name, and port; IPv6 addresses in brackets")
    weight: Whole = Field(default=1, ge=0, le=256, description="Relative share of the clients; 0 = no new clients")
    backup: Switch = Field(
        default=False, description="Serve only while no other server of the pool can take a connection"
    )


Lenience = Annotated[
    Literal["repeated_content_length", "folded_headers", "leading_empty_lines", "any_status", "padded_chunk_sizes"],
    Field(description="Name of a fault that is mended"),
]
"""See app.wire.http1_lenient."""


class Pool(Section):
    """A pool of backends: listed under `servers`, or with `app` taken from the routing database."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["servers"]}, {"required": ["app"]}]},
    )

    name: Name = Field(description="Name of the pool, which frontends refer to")
    servers: Annotated[tuple[Server, ...], BeforeValidator(not_empty_list)] = Field(
        default_factory=tuple, description="The backends of the pool", json_schema_extra={"minItems": 1}
    )
    app: Annotated[str | None, BeforeValidator(not_null)] = Field(
        default=None, description="Take the backends of this app from the routing database; empty = all rows"
    )
    health_check: HealthCheck = Field(default_factory=HealthCheck, description="Health checks of its backends")
    lenient: tuple[Lenience, ...] = Field(
        default=(), description="Faults of its backends' HTTP responses that are mended instead of answered by 502"
    )

    @field_validator("servers")
    @classmethod
    def _distinct(cls, servers: tuple[Server, ...]) -> tuple[Server, ...]:
        uses = Counter(str(server.address) for server in servers)
        twice = [address for address, count in uses.items() if count > 1]
        if twice:
            raise ValueError(f"{', '.join(twice)}: is listed twice")
        if servers and all(server.backup for server in servers):
            raise ValueError("needs a server that is no backup")
        return servers

    @model_validator(mode="after")
    def _one_source(self) -> Pool:
        if self.name and bool(self.servers) == (self.app is not None):  # NO_POOL has neither a name nor backends
            raise ValueError("needs either servers or app")
        return self


class Limits(Section):
    """Connections that one frontend accepts. EDGEPROXY_MAX_CONNECTIONS limits the whole process."""

    max_connections: Whole = Field(
        default=0, ge=0, description="Concurrent connections; 0 = only the limit of the process"
    )
    max_connections_per_client: Whole = Field(
        default=0, ge=0, description="Concurrent connections of one client; 0 = no limit"
    )
    connection_rate_per_client: Number = Field(
        default=0,
        ge=0,
        le=1e6,
        allow_inf_nan=False,
        description="New connections per second of one client; 0 = no limit",
    )


class TcpOptions(Section):
    """Connections to backends and clients, for protocols tcp and http."""

    connect_timeout_seconds: Duration = Field(
        default=3, validation_alias="connect_timeout", description="Time limit of one connect to a backend"
    )
    connect_attempts: Whole = Field(
        default=3, ge=1, le=10, description="Number of different backends tried for one connection or request"
    )
    idle_timeout_seconds: Duration = Field(
        default=3600,
        validation_alias="idle_timeout",
        description="Close a connection after this time without a byte in either direction",
    )
    linger_timeout_seconds: Duration = Field(
        default=60,
        validation_alias="linger_timeout",
        description="Close a half-closed connection after this time without a byte",
    )
    send_proxy: SendProxy = Field(default="off", description="Send a PROXY header to backends: off, v1 or v2")


class Frontend(Section):
    """A frontend: where it listens, and which pool serves its clients."""

    model_config = ConfigDict(
        json_schema_extra={
            "allOf": [
                _needs({"required": ["http"]}, key="protocol", value="http"),
                _needs({"properties": {"gateway": _IS_ON}, "required": ["gateway"]}, key="protocol", value="http"),
                _needs(
                    {"properties": {"soft_limit_spill": _IS_ON}, "required": ["soft_limit_spill"]},
                    key="algorithm",
                    value="geo",
                ),
                {"anyOf": [{"required": ["backend"]}, {"properties": {"gateway": _IS_ON}, "required": ["gateway"]}]},
            ]
        }
    )

    name: Name = Field(description="Name of the frontend in logs and metrics")
    listen: ListenAddresses = Field(
        description="Addresses to listen on: address:port, a list or comma-separated; * is IPv4 and IPv6"
    )
    protocol: Literal["tcp", "http"] = Field(
        default="tcp", description="tcp balances connections, http balances requests"
    )
    gateway: Switch = Field(
        default=False, description="With protocol http: the handler of a matching endpoint responds to the request"
    )
    backend: str = Field(
        default="",
        validate_default=True,
        description="Name of the pool in `backends` that serves the clients; optional with `gateway: on`",
    )
    required: Switch = Field(
        default=False, description="The edge is not ready while this frontend has no candidate backend"
    )
    algorithm: Literal["geo", "round_robin", "weighted", "least_connections", "ip_hash"] = Field(
        default="round_robin", description="How a backend is selected for a connection or request"
    )
    affinity: Switch = Field(
        default_factory=lambda frontend: frontend.get("algorithm") == "geo",
        description="Keep each client on its backend; by default on with geo, off otherwise",
    )
    soft_limit_spill: Switch = Field(
        default=False, description="With algorithm geo: prefer backends below their soft limit in tiers 0-2"
    )
    proxy_protocol_from: Networks = Field(
        default=(),
        description="Networks whose connections must begin with a PROXY header; from all others it is refused",
    )
    limits: Limits = Field(default_factory=Limits, description="Connection limits")
    tcp: TcpOptions = Field(
        default_factory=TcpOptions, description="Options of connections, for protocols tcp and http"
    )
    http: HttpOptions = Field(default_factory=HttpOptions, description="Options of requests, only with protocol http")

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


class Metrics(Section):
    """The listener for metrics and probes."""

    listen: OneListenAddress = Field(
        default="127.0.0.1:9090", validate_default=True, description="Address that serves /metrics, /live and /ready"
    )


class Global(Section):
    """Settings of the process, common to all frontends."""

    log_level: LogLevel = Field(default="info", description="Lowest level that is logged")
    log_format: LogFormat = Field(default="json", description="json (one object per line) or text (for people)")
    metrics: Metrics = Field(default_factory=Metrics, description="The listener for metrics and probes")


class FileConfig(Section):
    """The configuration file of the edge proxy."""

    model_config = ConfigDict(
        json_schema_extra={
            "patternProperties": {f"^{EXTENSION}": {"description": "Ignored by the edge: a place for anchors"}}
        }
    )

    global_: Global = Field(default_factory=Global, validation_alias="global", description="Settings of the process")
    health_check_defaults: HealthCheckDefaults = Field(
        default_factory=HealthCheckDefaults, description="Values for the keys that a pool's health_check leaves out"
    )
    frontends: Annotated[tuple[Frontend, ...], BeforeValidator(not_empty_list)] = Field(
        description="The frontends", json_schema_extra={"minItems": 1}
    )
    backends: tuple[Pool, ...] = Field(default=(), description="The pools of backends")

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
"""The pool of frontends without `backend`: it has no backends."""


class _PlainSchema(GenerateJsonSchema):
    """Omits titles, which repeat the keys, and null, because a key without a value is a fault."""

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
