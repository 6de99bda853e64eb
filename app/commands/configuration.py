"""Loads the configuration for all commands that need it; the commands `check` and `schema`.

The options that override the environment and the file are defined here.
"""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable, Mapping

import click
from pydantic import BaseModel
from rich.table import Table

from app.commands.env_file import applied_env_file
from app.commands.output import console, fail, json_option
from app.config import Config, ConfigError, Settings, json_schema, load, variable
from app.outbound.maxmind_geo import GeoDatabaseError, open_geo


def load_or_exit(overrides: Mapping[str, str] | None = None) -> Config:
    """Load the configuration, or print every fault and exit with 2."""
    _raise_descriptor_limit()
    try:
        return load(os.environ, overrides=overrides)
    except ConfigError as error:
        file = applied_env_file()
        fail("edgeproxy", *(file.locate(fault) if file else fault for fault in error.faults))


def _raise_descriptor_limit() -> None:
    """Raise the descriptor limit to the hard limit. The limits of a configuration are validated against it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def configuration_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that override the environment and the file. They arrive as keyword arguments."""
    for name, metavar, text in (
        ("log-format", "json|text", "Format of the log."),
        ("log-level", "LEVEL", "Lowest level that is logged: debug, info, warning or error."),
        ("config", "FILE", "YAML file of frontends and backends."),
    ):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


def given(options: Mapping[str, str | None]) -> dict[str, str]:
    """Return the options that were given, as overrides for load_or_exit."""
    return {name: text for name, text in options.items() if text is not None}


@click.command()
@configuration_options
@json_option
def check(as_json: bool, **options: str | None) -> None:
    """Validate the configuration and print the effective values. On faults, print all of them and exit with 2."""
    config = load_or_exit(given(options))
    _check_geo(config)
    effective = {variable(name): _shown(getattr(config, name)) for name in Settings.model_fields}
    effective[variable("max_connections")] = str(config.effective_max_connections())
    for warning in config.warnings:
        click.echo(f"edgeproxy: warning: {warning}", err=True)
    if as_json:
        parts = {name: [_plain(part) for part in getattr(config, name)] for name in ("frontends", "pools")}
        click.echo(json.dumps({**effective, **parts}, indent=2))
        return
    table = Table("variable", "value", "meaning", box=None, header_style="bold")
    for name, field in Settings.model_fields.items():
        table.add_row(variable(name), effective[variable(name)], field.description)
    console().print(table)
    if config.config_path is not None:
        console().print(_frontend_table(config))


def _plain(part: BaseModel) -> object:
    return part.model_dump(mode="json", by_alias=True, fallback=str)


def _frontend_table(config: Config) -> Table:
    table = Table("frontend", "listen", "protocol", "backend", "servers", "algorithm", "affinity", box=None)
    pools = {pool.name: pool for pool in config.pools}
    for frontend in config.frontends:
        pool = pools[frontend.backend]
        servers = str(len(pool.servers)) if pool.app is None else f"app {pool.app or '(all)'}"
        affinity = "on" if frontend.affinity else "off"
        listen = ",".join(map(str, frontend.listen))
        table.add_row(frontend.name, listen, frontend.protocol, pool.name, servers, frontend.algorithm, affinity)
    return table


@click.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


def _check_geo(config: Config) -> None:
    try:
        open_geo(config.geoip_path)
    except GeoDatabaseError as error:
        fail("edgeproxy", f"{variable('geoip_path')}={config.geoip_path!r}: {error}")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)
