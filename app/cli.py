"""The command line, thin: parse, call, print. `python -m app --help` lists the commands."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

import click
import gevent
from loguru import logger
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from app import backend_commands, gateway_commands, replicate_command
from app.bootstrap import Edge, open_geo, raise_descriptor_limit
from app.config import Config, ConfigError, Pool, Settings, json_schema, load, variable
from app.domain.client import unmapped
from app.domain.explain import Verdict
from app.domain.explain import explain as judge
from app.domain.stored import StoreError
from app.edge_commands import endpoints, register, services, tokens
from app.garbage import everything_visible, tame_garbage_collector
from app.inbound.listener import BindError
from app.outbound import json_log
from app.outbound.maxmind_geo import GeoDatabaseError
from app.outbound.peewee_backends import SqliteBackendRepository
from app.outbound.peewee_tokens import TokenStoreError
from app.plans import backends_of
from app.ports import BackendSet, RepositoryError

EXIT_USAGE = 2

THREAD_SWITCH_SECONDS = 0.0005
"""How long a busy thread may keep the interpreter from the event loop (CPython's default is 5 ms)."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """A geo-aware, sticky TCP and HTTP proxy. Configured by EDGEPROXY_ variables and a YAML file."""


def _fail(*lines: str) -> NoReturn:
    """Say what is wrong, a line each, and exit with 2."""
    for line in lines:
        click.echo(f"edgeproxy: {line}", err=True)
    sys.exit(EXIT_USAGE)


def load_or_exit(overrides: Mapping[str, str] | None = None) -> Config:
    """Read the configuration, or name every fault and exit with 2."""
    raise_descriptor_limit()
    try:
        return load(os.environ, overrides=overrides)
    except ConfigError as error:
        _fail(*error.faults)


def configuration_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that go before the environment and the file; they arrive as keyword arguments."""
    for name, metavar, text in (
        ("log-format", "json|text", "How the log is written."),
        ("log-level", "LEVEL", "debug, info, warning or error."),
        ("config", "FILE", "The YAML file of frontends and backends."),
    ):
        command = click.option(f"--{name}", metavar=metavar, help=text)(command)
    return command


def _given(options: Mapping[str, str | None]) -> dict[str, str]:
    return {name: text for name, text in options.items() if text is not None}


@main.command()
@configuration_options
def serve(**options: str | None) -> None:
    """Run the edge until SIGTERM or SIGINT, then drain. SIGHUP reads the file again."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to reload: unhandled, it would end us
    overrides = _given(options)
    config = load_or_exit(overrides)
    try:
        log = json_log.configure(config.log_path, level=config.log_level, format=config.log_format)
    except OSError as error:
        _fail(f"{variable('log_path')}={str(config.log_path)!r}: {error.strerror}")
    sys.setswitchinterval(THREAD_SWITCH_SECONDS)
    gevent.get_hub().SYSTEM_ERROR = ()  # a greenlet that a handler has started must not end the edge by sys.exit
    try:
        edge = Edge(config, log, reread=lambda: load(os.environ, overrides=overrides))
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, edge.request_stop)
        gevent.signal_handler(signal.SIGHUP, edge.reload)
        gevent.signal_handler(signal.SIGUSR1, _log_greenlets)
        edge.start()
    except GeoDatabaseError as error:
        _fail(f"{variable('geoip_path')}={config.geoip_path!r}: {error}")
    except (BindError, StoreError, TokenStoreError) as error:
        _fail(str(error))
    tame_garbage_collector()
    code = edge.run()
    sys.stdout.flush()
    # Skip the interpreter's own leave-taking: it would wait for idle threads of the pools.
    os._exit(code)


def _log_greenlets() -> None:
    """Handle SIGUSR1: log what every greenlet does."""
    logger.info("{}", "\n".join(everything_visible(gevent.util.format_run_info)))


@main.command()
@configuration_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(as_json: bool, **options: str | None) -> None:
    """Validate the configuration and print the effective one. Exits with 2 naming every fault."""
    config = load_or_exit(_given(options))
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
    _console().print(table)
    if config.config_path is not None:
        _console().print(_frontend_table(config))


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


@main.command()
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors."""
    click.echo(json.dumps(json_schema(), indent=2))


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


def _geo_pool(config: Config, name: str | None) -> Pool:
    """Return the pool of a geo frontend, the first one's if none is named, or exit with 2."""
    of_algorithm = {frontend.name: frontend for frontend in config.frontends if frontend.algorithm == "geo"}
    if name is None and of_algorithm:
        name = next(iter(of_algorithm))
    if name not in of_algorithm:
        _fail(f"there is no frontend {name or ''} with algorithm geo; with it: {', '.join(of_algorithm) or 'none'}")
    return next(pool for pool in config.pools if pool.name == of_algorithm[name].backend)


@main.command()
@click.argument("address")
@configuration_options
@click.option("--frontend", "frontend_name", metavar="NAME", help="Of a file's geo frontends; else its first.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain(address: str, frontend_name: str | None, as_json: bool, **options: str | None) -> None:
    """Say where a client at ADDRESS would land and why, from the databases alone."""
    config = load_or_exit(_given(options))
    pool = _geo_pool(config, frontend_name)
    try:
        address = unmapped(str(ipaddress.ip_address(address)))
        geo = open_geo(config.geoip_path)
        found = SqliteBackendRepository(config.db_path).load() if pool.app is not None else BackendSet()
    except ValueError:
        _fail(f"{address!r} is not an IP address")
    except (GeoDatabaseError, RepositoryError) as error:
        _fail(str(error))
    location = geo.resolve(address) if geo is not None else None
    verdicts = judge(backends_of(pool, found.backends), location, config.region or None)
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
main.add_command(gateway_commands.handler)
main.add_command(endpoints.endpoints)
main.add_command(services.services)
main.add_command(tokens.tokens)
main.add_command(register.register)
main.add_command(replicate_command.replicate)
