"""The commands `check` and `schema`: whether an edge would start, by which configuration, and what a file may say."""

from __future__ import annotations

import json

import click
from pydantic import BaseModel
from rich.table import Table

from app.commands.configuration import configuration_options, given, load_or_exit
from app.commands.output import console, fail, json_option, print_table
from app.commands.settings import Setting, effective_settings
from app.commands.start_messages import worded
from app.commands.systemd import systemd_or_exit
from app.config import Config, json_schema
from app.config.sources import WrittenKey, written_keys
from app.edge.preflight import preflight, try_databases
from app.edge.routing_warnings import routing_warnings


@click.command()
@configuration_options
@click.option("--db", "reads_database", is_flag=True, help="Warn of frontends without a backend in the database, too.")
@json_option
def check(reads_database: bool, as_json: bool, **options: str | None) -> None:
    """Do what a start does, short of serving, and print the effective values.

    What differs from the defaults comes first, each with its source. On faults, print all of them and exit with 2. An
    address in use is a warning: it may be the running edge's.
    """
    config = load_or_exit(given(options))
    warnings = [*_tried(config), *(routing_warnings(config) if reads_database else ())]
    for warning in warnings:
        click.echo(f"edgeproxy: warning: {warning}", err=True)
    path = config.config_path
    keys = list(written_keys(path.read_bytes(), str(path))) if path is not None else []
    settings = effective_settings(config, given(options), {key.key: key.source for key in keys})
    if as_json:
        values = {setting.variable: setting.value for setting in settings}
        sources = {setting.variable: setting.source for setting in settings}
        parts = {name: [_plain(part) for part in getattr(config, name)] for name in ("frontends", "pools")}
        click.echo(json.dumps({**values, "sources": sources, **parts}, indent=2))
        return
    _print_settings([setting for setting in settings if setting.differs])
    if path is not None:
        print_table(WrittenKey._fields, keys)
        console().print(_frontend_table(config))
    _print_settings([setting for setting in settings if not setting.differs])


def _print_settings(settings: list[Setting]) -> None:
    if settings:
        rows = ((one.variable, one.value, one.source, one.meaning) for one in settings)
        print_table(("variable", "value", "source", "meaning"), rows)


def _tried(config: Config) -> list[str]:
    """Try what a start needs. Returns the warnings, or prints the faults and exits with 2."""
    _, passed = systemd_or_exit()
    found = preflight(config, passed)
    faults = [*found.faults, *try_databases(config)]
    if faults:
        fail("edgeproxy", *(worded(config, fault) for fault in faults))
    unless = "if not by the running edge or its socket unit, a start will fail"
    taken = [f"{worded(config, fault)} ({unless})" for fault in found.taken]
    return [*config.warnings, *found.warnings, *taken]


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
