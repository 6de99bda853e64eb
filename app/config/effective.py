"""Combines command line, environment and file into one frozen Config, or reports every fault."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.config.clashes import clashes
from app.config.environment import Settings, listeners, option, read_environment, variable
from app.config.faults import ConfigError, did_you_mean
from app.config.file import read_file, read_mapping, warnings_of
from app.config.model import FileConfig, Frontend, HealthCheck, Limits, Pool, TcpOptions
from app.config.yaml_text import MAX_FILE_BYTES
from app.domain.geography import REGIONS

FRONTEND_FIELDS: Final = (
    "listen_addr",
    "app",
    "connect_timeout_secs",
    "connect_attempts",
    "idle_timeout_secs",
    "linger_timeout_secs",
    "max_connections_per_client",
    "connection_rate_per_client",
    "proxy_protocol_from",
    "send_proxy",
    "soft_limit_spill",
    "health_check",
    "health_check_path",
    "health_check_interval_secs",
)
"""Fields that define the one frontend without a file. With a file they are ignored, with a warning."""

_PASSIVE_COOLDOWN_SECONDS: Final = 10.0
"""Of the one pool that exists without a file."""


class Config(Settings):
    """The whole configuration: the settings in force, the frontends and the pools."""

    frontends: tuple[Frontend, ...]
    pools: tuple[Pool, ...]
    warnings: tuple[str, ...] = ()

    @property
    def config_path(self) -> Path | None:
        """The configuration file, or None."""
        return self.config


def load(
    environment: Mapping[str, str],
    *,
    overrides: Mapping[str, str] | None = None,
    document: Mapping[str, Any] | None = None,
) -> Config:
    """Load the configuration. Raises ConfigError naming every fault.

    `overrides` is the command line, by field name: {"config": "edge.yaml", "log_level": "debug"}. For log_level,
    log_format and metrics_listen_addr the command line overrides the environment, which overrides the file. Frontends
    and pools come from the file alone; without a file, the variables define one frontend.

    A program that embeds the edge can pass the content of the file as `document`:
    `load({}, document={"frontends": [{"name": "web", ...}], "backends": [...]})`.
    """
    faults: list[str] = []
    settings: Settings | None = None
    try:
        settings = read_environment(environment, overrides or {})
    except ConfigError as error:
        faults += error.faults
    try:
        content = _content(settings, environment, overrides or {}, document)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults or settings is None:
        raise ConfigError(faults)
    return _from_environment(settings) if content is None else _from_file(settings, content)


def _content(
    settings: Settings | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    document: Mapping[str, Any] | None,
) -> FileConfig | None:
    """Return the content of the file, even if the environment is invalid. Raises ConfigError."""
    taken = listeners(settings) if settings is not None else []
    if document is not None:
        return read_mapping(document, listeners=taken)
    name = overrides.get("config", environment.get(variable("config"), ""))
    if not name.strip():
        return None
    try:
        with open(name, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is not a regular file")
            source = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        where = option("config") if "config" in overrides else variable("config")
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{where}={name!r}: {reason}"]) from None
    return read_file(source, name, listeners=taken)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file without waiting for the other end of a FIFO."""
    return os.open(path, flags | os.O_NONBLOCK)


def _from_file(settings: Settings, content: FileConfig) -> Config:
    given = settings.model_fields_set
    process = content.global_
    values = dict(settings)
    if "log_level" not in given:
        values["log_level"] = "debug" if settings.debug else process.log_level
    if "log_format" not in given:
        values["log_format"] = process.log_format
    if "metrics_listen_addr" not in given:
        values["metrics_listen_addr"] = process.metrics.listen
    values["debug"] = values["log_level"] == "debug"
    warnings = [*_warnings(settings), *warnings_of(content)]
    ignored = [variable(field) for field in FRONTEND_FIELDS if field in given]
    if ignored:
        source = settings.config or "the document"
        warnings.append(f"{', '.join(ignored)}: ignored, because the frontends come from {source}")
    return Config(**values, frontends=content.frontends, pools=content.pools(), warnings=tuple(warnings))


def _from_environment(settings: Settings) -> Config:
    values = dict(settings)
    if "log_level" not in settings.model_fields_set and settings.debug:
        values["log_level"] = "debug"
    values["debug"] = values["log_level"] == "debug"
    pool = _pool(settings)
    frontend = _frontend(settings, pool.name)
    metrics = variable("metrics_listen_addr"), settings.metrics_listen_addr
    beside = dict.fromkeys([*listeners(settings), metrics])  # the default of the metrics is not among the listeners
    faults = list(clashes([*beside, *((variable("listen_addr"), address) for address in settings.listen_addr)]))
    if faults:
        raise ConfigError(faults)
    return Config(**values, frontends=(frontend,), pools=(pool,), warnings=tuple(_warnings(settings)))


def _warnings(settings: Settings) -> list[str]:
    """Return a line for each variable that is valid but probably a mistake."""
    region = settings.region
    if not region or region in REGIONS:
        return []
    near = next((known for known in REGIONS if region.startswith(known)), None)
    rule = f"clients are in {', '.join(REGIONS)}, so only backends of this very region are near this POP"
    return [f"{variable('region')}={region!r}: {rule}{did_you_mean(near)}"]


def _frontend(settings: Settings, pool: str) -> Frontend:
    return Frontend(
        name="edge",
        listen=settings.listen_addr,
        backend=pool,
        algorithm="geo",
        soft_limit_spill=settings.soft_limit_spill,
        proxy_protocol_from=settings.proxy_protocol_from,
        limits=Limits(
            max_connections_per_client=settings.max_connections_per_client,
            connection_rate_per_client=settings.connection_rate_per_client,
        ),
        tcp=TcpOptions(
            connect_timeout_seconds=settings.connect_timeout_secs,
            connect_attempts=settings.connect_attempts,
            idle_timeout_seconds=settings.idle_timeout_secs,
            linger_timeout_seconds=settings.linger_timeout_secs,
            send_proxy=settings.send_proxy,
        ),
    )


def _pool(settings: Settings) -> Pool:
    check = HealthCheck(
        type=settings.health_check,
        interval_seconds=settings.health_check_interval_secs,
        cooldown_seconds=_PASSIVE_COOLDOWN_SECONDS,
    )
    if settings.health_check == "http":
        check = check.model_copy(update={"path": settings.health_check_path})
    # Not validated: an app may have a name that a file could not give to a pool.
    return Pool.model_construct(name=settings.app or "default", servers=(), app=settings.app, health_check=check)
