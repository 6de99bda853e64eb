"""The command line, thin: parse, call, print. `python -m app --help` lists the commands."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import signal
import sys
import time
from typing import NoReturn

import click
import gevent
from loguru import logger
from rich.console import Console
from rich.table import Table

from app import backend_commands
from app.bootstrap import Edge, open_geo, raise_descriptor_limit
from app.config import Config, ConfigError, load, variable
from app.domain.client import unmapped
from app.domain.explain import Verdict
from app.domain.explain import explain as judge
from app.inbound.listener import BindError
from app.outbound import json_log
from app.outbound.maxmind_geo import GeoDatabaseError
from app.outbound.peewee_backends import SqliteBackendRepository
from app.ports import RepositoryError

EXIT_USAGE = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A geo-aware, sticky TCP proxy. Configured by EDGEPROXY_ variables; `check` lists them."""


def _fail(*lines: str) -> NoReturn:
    """Say what is wrong, a line each, and exit with 2."""
    for line in lines:
        click.echo(f"edgeproxy: {line}", err=True)
    sys.exit(EXIT_USAGE)


def load_or_exit() -> Config:
    """Read the configuration from the environment, or name every fault and exit with 2."""
    raise_descriptor_limit()
    try:
        return load(os.environ)
    except ConfigError as error:
        _fail(*error.faults)


@main.command()
def serve() -> None:
    """Run the edge until SIGTERM or SIGINT, then drain."""
    config = load_or_exit()
    try:
        log = json_log.configure(config.log_path, is_debug=config.debug)
    except OSError as error:
        _fail(f"{variable('log_path')}={str(config.log_path)!r}: {error.strerror}")
    try:
        edge = Edge(config, log)
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, edge.request_stop)
        gevent.signal_handler(signal.SIGUSR1, lambda: logger.info("{}", "\n".join(gevent.util.format_run_info())))
        edge.start()
    except GeoDatabaseError as error:
        _fail(f"{variable('geoip_path')}={config.geoip_path!r}: {error}")
    except BindError as error:
        _fail(str(error))
    log.start()
    code = edge.run()
    log.stop()
    sys.stdout.flush()
    # Skip the interpreter's own leave-taking: it would wait for idle threads of the pools.
    os._exit(code)


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool) -> None:
    """Validate the configuration and print the effective one. Exits with 2 naming every fault."""
    config = load_or_exit()
    _check_geo(config)
    effective = {variable(name): _shown(value) for name, value in config}
    effective[variable("max_connections")] = str(config.effective_max_connections())
    if as_json:
        click.echo(json.dumps(effective, indent=2))
        return
    table = Table("variable", "value", "meaning", box=None, header_style="bold")
    for name, field in Config.model_fields.items():
        table.add_row(variable(name), effective[variable(name)], field.description)
    _console().print(table)


def _check_geo(config: Config) -> None:
    try:
        open_geo(config.geoip_path)
    except GeoDatabaseError as error:
        _fail(f"{variable('geoip_path')}={config.geoip_path!r}: {error}")


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)


def _console() -> Console:
    """Return a console that does not fold tables when its output is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 200)


@main.command()
@click.argument("address")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(address: str, as_json: bool) -> None:
    """Say where a client at ADDRESS would land and why, from the databases alone."""
    config = load_or_exit()
    try:
        address = unmapped(str(ipaddress.ip_address(address)))
        geo = open_geo(config.geoip_path)
        found = SqliteBackendRepository(config.db_path, config.app).load()
    except ValueError:
        _fail(f"{address!r} is not an IP address")
    except (GeoDatabaseError, RepositoryError) as error:
        _fail(str(error))
    location = geo.resolve(address) if geo is not None else None
    verdicts = judge(found.backends, location, config.region or None)
    built = time.strftime("%Y-%m-%d", time.gmtime(geo.built_at)) if geo is not None else None
    age_days = int((time.time() - geo.built_at) // 86_400) if geo is not None else None
    head = {
        "client": address,
        "country": location.country if location else None,
        "region": location.region if location else None,
        "pop_region": config.region or None,
        "geography_built": built,
        "geography_age_days": age_days,
    }
    if as_json:
        refused = [str(bad) for bad in found.refused]
        click.echo(json.dumps({**head, "backends": [_flat(v) for v in verdicts], "refused_rows": refused}, indent=2))
        return
    click.echo("  ".join(f"{name}: {value if value is not None else '-'}" for name, value in head.items()))
    _console().print(_verdict_table(verdicts))
    for bad in found.refused:
        click.echo(f"refused row: {bad}")


def _flat(verdict: Verdict) -> dict[str, object]:
    fields = dataclasses.asdict(verdict)
    return {**fields.pop("backend"), **fields}


def _verdict_table(verdicts: list[Verdict]) -> Table:
    table = Table("backend", "app", "region", "country", "address", "weight", "tier", "score", "why", box=None)
    for v in verdicts:
        b = v.backend
        host = f"[{b.host}]" if ":" in b.host else b.host
        table.add_row(
            b.id, b.app, b.region, b.country, f"{host}:{b.port}", str(b.weight), str(v.tier), f"{v.score:g}", v.why
        )
    return table


main.add_command(backend_commands.backends)
