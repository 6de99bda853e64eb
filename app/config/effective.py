"""The configuration in force: command line, environment and file -> one frozen Config, or every fault at once."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.config.environment import Settings, option, read_environment, variable
from app.config.faults import ConfigError
from app.config.file import read_file, read_mapping, warnings_of
from app.config.model import FileConfig, Frontend, HealthCheck, Limits, Pool, TcpOptions
from app.config.yaml_text import LARGEST_FILE_BYTES

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
"""What shapes the one frontend of the environment, and says nothing where a file has frontends."""

_PASSIVE_COOLDOWN_SECONDS: Final = 10.0
"""Of the one pool of the environment."""


class Config(Settings):
    """The whole configuration: what the environment says, with the file's say in it, the frontends and the pools."""

    frontends: tuple[Frontend, ...]
    pools: tuple[Pool, ...]
    warnings: tuple[str, ...] = ()

    @property
    def config_path(self) -> Path | None:
        """The file that the frontends come from; None without one."""
        return self.config


def load(
    environment: Mapping[str, str],
    *,
    overrides: Mapping[str, str] | None = None,
    document: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration. Raises ConfigError naming every fault.

    `overrides` is the command line, by field name: {"config": "edge.yaml", "log_level": "debug"}. For log_level,
    log_format and metrics_listen_addr the command line goes before the environment, and that before the file. With a
    file the frontends and pools are the file's alone; without one there is one frontend, made of the variables.

    A program that embeds the edge may give the file's content as `document` instead:
    `load({}, document={"frontends": [{"name": "web", ...}], "backends": [...]})`.
    """
    faults: list[str] = []
    said: Settings | None = None
    try:
        said = read_environment(environment, overrides or {})
    except ConfigError as error:
        faults += error.faults
    try:
        content = _content(said, environment, overrides or {}, document)
    except ConfigError as error:
        raise ConfigError([*faults, *error.faults]) from None
    if faults or said is None:
        raise ConfigError(faults)
    return _from_environment(said) if content is None else _from_file(said, content)


def _content(
    said: Settings | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    document: Mapping[str, Any] | None,
) -> FileConfig | None:
    """Return what the file says, also where the environment is at fault. Raises ConfigError."""
    is_decided = said is not None and "metrics_listen_addr" in said.model_fields_set
    metrics = said.metrics_listen_addr if said is not None and is_decided else None
    if document is not None:
        return read_mapping(document, metrics=metrics)
    name = overrides.get("config", environment.get(variable("config"), ""))
    if not name.strip():
        return None
    try:
        with open(name, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ValueError("is no regular file")
            source = file.read(LARGEST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        where = option("config") if "config" in overrides else variable("config")
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError([f"{where}={name!r}: {reason}"]) from None
    return read_file(source, name, metrics=metrics)


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file; of a FIFO nobody waits for the other end."""
    return os.open(path, flags | os.O_NONBLOCK)


def _from_file(said: Settings, content: FileConfig) -> Config:
    given = said.model_fields_set
    process = content.global_
    values = dict(said)
    if "log_level" not in given:
        values["log_level"] = "debug" if said.debug else process.log_level
    if "log_format" not in given:
        values["log_format"] = process.log_format
    if "metrics_listen_addr" not in given:
        values["metrics_listen_addr"] = process.metrics.listen
    values["debug"] = values["log_level"] == "debug"
    warnings = warnings_of(content)
    ignored = [variable(field) for field in FRONTEND_FIELDS if field in given]
    if ignored:
        source = said.config or "the document"
        warnings.append(f"{', '.join(ignored)}: not used, the frontends are those of {source}")
    return Config(**values, frontends=content.frontends, pools=content.pools(), warnings=tuple(warnings))


def _from_environment(said: Settings) -> Config:
    values = dict(said)
    if "log_level" not in said.model_fields_set and said.debug:
        values["log_level"] = "debug"
    values["debug"] = values["log_level"] == "debug"
    pool = _pool(said)
    frontend = _frontend(said, pool.name)
    faults = _clashes(said)
    if faults:
        raise ConfigError(faults)
    return Config(**values, frontends=(frontend,), pools=(pool,))


def _frontend(said: Settings, pool: str) -> Frontend:
    return Frontend(
        name="edge",
        listen=said.listen_addr,
        backend=pool,
        algorithm="geo",
        soft_limit_spill=said.soft_limit_spill,
        proxy_protocol_from=said.proxy_protocol_from,
        limits=Limits(
            max_connections_per_client=said.max_connections_per_client,
            connection_rate_per_client=said.connection_rate_per_client,
        ),
        tcp=TcpOptions(
            connect_timeout_seconds=said.connect_timeout_secs,
            connect_attempts=said.connect_attempts,
            idle_timeout_seconds=said.idle_timeout_secs,
            linger_timeout_seconds=said.linger_timeout_secs,
            send_proxy=said.send_proxy,
        ),
    )


def _pool(said: Settings) -> Pool:
    check = HealthCheck(
        type=said.health_check,
        interval_seconds=said.health_check_interval_secs,
        cooldown_seconds=_PASSIVE_COOLDOWN_SECONDS,
    )
    if said.health_check == "http":
        check = check.model_copy(update={"path": said.health_check_path})
    # Not validated: an app may have a name that a file could not give to a pool.
    return Pool.model_construct(name=said.app or "default", servers=(), app=said.app, health_check=check)


def _clashes(said: Settings) -> list[str]:
    """Name the addresses on which Linux would not listen because of another one."""
    faults = []
    taken = [said.metrics_listen_addr]
    for address in said.listen_addr:
        other = next((user for user in taken if address.clashes_with(user)), None)
        if other is not None:
            rule = f"{address} is given twice" if other == address else f"{address} and {other} exclude each other"
            faults.append(f"{variable('listen_addr')}, {variable('metrics_listen_addr')}: {rule}")
        taken.append(address)
    return faults
