"""Commands for the private network between points of presence: key, plan, whois, backends, bgp, announce."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import NamedTuple, NoReturn, cast

import click
from rich.table import Table

from app.anycast.announcer import Announcer
from app.commands.configuration import load_or_exit
from app.commands.output import EXIT_FAILED, console, fail
from app.config import ConfigError
from app.config.mesh import Mesh, read_mesh, stored_plan
from app.domain.mesh.addresses import fields_of
from app.domain.mesh.backends import Family, Home, homes_of, host_of, instances_of
from app.domain.mesh.changes import changes
from app.domain.mesh.plan import Plan, PlanError, make_plan
from app.domain.mesh.tunnels import faults_of
from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE, Backend, parse_backend
from app.outbound.mesh_folder import MeshFolder
from app.outbound.peewee_backends import SqliteBackendRepository, row_of
from app.outbound.wireguard_keys import KeyFileError, make_key
from app.ports import RepositoryError
from app.wire.exabgp_conf import exabgp_conf

_DEFAULT_FOLDER = "mesh"
_READY_URL = "http://127.0.0.1:9090/ready"

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_FOLDER = click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=_DEFAULT_FOLDER,
    show_default=True,
    help="Directory of the plan.",
)
_DATABASE = click.option(
    "--db",
    "database",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also plan the backends of this routing database.",
)


@click.group()
def mesh() -> None:
    """Plan the private network between points of presence, and announce anycast prefixes."""


def _fail(*lines: str) -> NoReturn:
    fail("mesh", *lines)


class _Planned(NamedTuple):
    """A plan without keys, the last plan, and the inputs."""

    plan: Plan
    last: Plan | None
    mesh: Mesh
    backends: tuple[Backend, ...]
    homes: dict[str, Home]


def _read(file: Path) -> Mesh:
    try:
        return read_mesh(file.read_bytes(), str(file))
    except OSError as error:
        _fail(f"{file}: {error.strerror}")
    except ConfigError as error:
        _fail(*error.faults)


def _planned(file: Path, folder: MeshFolder, database: Path | None) -> _Planned:
    """Plan the file and the backends of the database, or print every fault and exit with 2."""
    mesh = _read(file)
    backends: tuple[Backend, ...] = ()
    try:
        last = folder.last_plan()
        if database is not None:
            found = SqliteBackendRepository(database).load()
            for bad in found.refused:
                click.echo(f"mesh: not planned: {bad}", err=True)
            backends = found.backends
        bare = make_plan(mesh.request(), last)
        homes = homes_of(backends, bare, {id: pop for id, pop, _ in mesh.instances()}, last)
        plan = make_plan(mesh.request(instances_of(homes)), last)
    except (ConfigError, PlanError) as error:
        _fail(*error.faults)
    except RepositoryError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    faults = faults_of(plan)
    if faults:
        _fail(*faults)
    return _Planned(plan, last, mesh, backends, homes)


@mesh.command("key")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def key(file: Path) -> None:
    """Print the public key of the private key in FILE.

    If FILE does not exist, make a private key that only its owner can read.
    """
    try:
        click.echo(make_key(file))
    except KeyFileError as error:
        _fail(str(error))


@mesh.command("plan")
@_FILE
@_FOLDER
@_DATABASE
@click.option("--dry-run", is_flag=True, help="Print only; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(file: Path, folder: Path, database: Path | None, dry_run: bool, as_json: bool) -> None:
    """Plan the network in FILE: addresses, WireGuard configurations, and changes since the last plan."""
    kept = MeshFolder(folder)
    planned = _planned(file, kept, database)
    try:
        whole = _with_keys(planned.plan, kept, may_make=not dry_run)
        written = [] if dry_run else kept.write(whole)
    except KeyFileError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}")
    found = changes(planned.last, whole)
    if as_json:
        described = {
            "plan": json.loads(stored_plan(whole)),
            "changes": [dataclasses.asdict(change) for change in found],
            "written": written,
        }
        click.echo(json.dumps(described, indent=2))
        return
    console().print(_table(whole))
    click.echo("\n".join(["", "changes since the last plan:", *map(str, found)] if found else ["", "no changes"]))
    if written:
        click.echo(f"\nwritten: {', '.join(f'{folder / pop}' for pop in written)}")


def _with_keys(bare: Plan, folder: MeshFolder, *, may_make: bool) -> Plan:
    """Return the plan with the public key of each POP: from the file, or of a private key in the directory."""
    pops = [
        dataclasses.replace(pop, public_key=pop.public_key or folder.key(pop.name, may_make=may_make))
        for pop in bare.pops
    ]
    return dataclasses.replace(bare, pops=tuple(pops))


def _table(whole: Plan) -> Table:
    table = Table("region", "pop", "instance", *(f"ipv{network.version}" for network in whole.networks), box=None)
    for pop in whole.pops:
        table.add_row(pop.region, pop.name, "", *map(str, pop.addresses))
        for instance in pop.instances:
            table.add_row(pop.region, pop.name, instance.id, *map(str, instance.addresses))
    return table


@mesh.command("whois")
@_FILE
@click.argument("addresses", nargs=-1, required=True)
@_FOLDER
@_DATABASE
def whois(file: Path, addresses: tuple[str, ...], folder: Path, database: Path | None) -> None:
    """Show what ADDRESSES are assigned to. Exits with 1 if one is not assigned in the plan of FILE."""
    whole = _planned(file, MeshFolder(folder), database).plan
    is_complete = True
    for text in addresses:
        try:
            address = ip_address(text)
        except ValueError:
            _fail(f"{text!r} is not an IP address")
        names = whole.name_of(address)
        is_complete &= names is not None
        if names is not None:
            click.echo(f"{address}  {_named(*names)}")
        elif isinstance(address, IPv6Address) and whole.ipv6_network is not None and address in whole.ipv6_network:
            click.echo(f"{address}  not in the plan; its digits mean {_named(*fields_of(address).names)}")
        else:
            click.echo(f"{address}  not in {' or '.join(map(str, whole.networks))}")
    sys.exit(0 if is_complete else EXIT_FAILED)


def _named(region: str | None, pop: str | None, instance: str | None) -> str:
    """Format names for people. A name that is None cannot be told from its number."""
    itself = "the POP itself" if instance == "" else f"instance {instance or '?'}"
    return f"region {region or '?'}, pop {pop or '?'}, {itself}"


@mesh.command("backends")
@_FILE
@_FOLDER
@_DATABASE
@click.option(
    "--family", type=click.Choice(["ipv6", "ipv4"]), default="ipv6", show_default=True, help="Family of wg_ip."
)
def backends(file: Path, folder: Path, database: Path | None, family: str) -> None:
    """Print rows for the apps in FILE and the backends of the database, with their planned addresses as wg_ip.

    The output is CSV for `python -m app backends load`. Other columns of the database are unchanged.
    """
    planned = _planned(file, MeshFolder(folder), database)
    homes = dict(planned.homes)
    rows = {backend.id: row_of(backend) for backend in planned.backends}
    for id, pop, columns in planned.mesh.instances():
        homes[id] = Home(pop, id)
        rows.setdefault(id, {"id": id, **columns})
    try:
        for id, home in homes.items():
            rows[id]["wg_ip"] = host_of(home, planned.plan, cast(Family, family))
    except PlanError as error:
        _fail(*error.faults)
    writer = csv.DictWriter(sys.stdout, (*BACKEND_COLUMNS, DRAIN_DEADLINE), lineterminator="\n")
    writer.writeheader()
    for id in sorted(rows):
        writer.writerow(row_of(parse_backend(rows[id])))


@mesh.command("bgp")
@_FILE
@click.argument("pop")
@click.option(
    "--ready", "ready_url", default=_READY_URL, show_default=True, help="URL that exabgp checks before it announces."
)
def bgp(file: Path, pop: str, ready_url: str) -> None:
    """Print the exabgp configuration of POP in FILE."""
    try:
        click.echo(exabgp_conf(_read(file).announcement(pop), ready_url), nl=False)
    except ConfigError as error:
        _fail(*error.faults)


@mesh.command()
def announce() -> None:
    """Run exabgp with EDGEPROXY_BGP_CONFIG until SIGTERM and the end of the edge. Idles if it is not set."""
    Announcer(load_or_exit()).run()
