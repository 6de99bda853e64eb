"""The variables in force, each with its source, for `check`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from app.commands.env_file import applied_env_file
from app.config import Config, Settings, option, variable
from app.config.effective import FRONTEND_FIELDS

DEFAULT: Final = "default"
_FILE_KEYS: Final = {
    "log_level": "global.log_level",
    "log_format": "global.log_format",
    "metrics_listen_addr": "global.metrics.listen",
}
"""Keys of the file that say the same as a variable."""
_DEFAULTS: Final = Settings()


@dataclass(frozen=True)
class Setting:
    """A variable, the value in force, where it comes from, and whether it differs from the default."""

    variable: str
    value: str
    source: str
    differs: bool
    meaning: str


def effective_settings(config: Config, overrides: Mapping[str, str], keys: Mapping[str, str]) -> list[Setting]:
    """Return the variables in force; those that a configuration file replaces are not among them.

    `overrides` is the command line by field. `keys` says where the keys of the file stand.
    """
    return list(_settings(config, overrides, keys))


def _settings(config: Config, overrides: Mapping[str, str], keys: Mapping[str, str]) -> Iterator[Setting]:
    for name, field in Settings.model_fields.items():
        if config.config_path is not None and name in FRONTEND_FIELDS:
            continue
        value, default = getattr(config, name), getattr(_DEFAULTS, name)
        source = _source(name, overrides)
        if source == DEFAULT and value != default:
            source = keys.get(_FILE_KEYS.get(name, ""), variable("log_level" if name == "debug" else "debug"))
        shown = config.effective_max_connections() if name == "max_connections" else value
        yield Setting(variable(name), _shown(shown), source, value != default, field.description or "")


def _source(name: str, overrides: Mapping[str, str]) -> str:
    file, known = applied_env_file(), variable(name)
    if name in overrides:
        return option(name)
    if file is not None and known in file.variables:
        return f"{file.path}:{file.lines[known]}"
    return "environment" if known in os.environ else DEFAULT


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
