"""Reads command line, environment and YAML file into one frozen Config, reporting every fault at once."""

from app.config.effective import Config, load
from app.config.environment import (
    PIPES,
    PREFIX,
    RESERVED_DESCRIPTORS,
    Settings,
    descriptors_for_connections,
    idle_upstreams,
    option,
    variable,
)
from app.config.faults import ConfigError
from app.config.http_options import HeaderChanges, HttpOptions
from app.config.model import (
    Frontend,
    HealthCheck,
    Limits,
    Pool,
    Server,
    TcpOptions,
    json_schema,
)
from app.config.values import DatabaseUrl, IPNetwork, ListenAddress, database_url

__all__ = [
    "PIPES",
    "PREFIX",
    "RESERVED_DESCRIPTORS",
    "Config",
    "ConfigError",
    "DatabaseUrl",
    "Frontend",
    "HeaderChanges",
    "HealthCheck",
    "HttpOptions",
    "IPNetwork",
    "Limits",
    "ListenAddress",
    "Pool",
    "Server",
    "Settings",
    "TcpOptions",
    "database_url",
    "descriptors_for_connections",
    "idle_upstreams",
    "json_schema",
    "load",
    "option",
    "variable",
]
