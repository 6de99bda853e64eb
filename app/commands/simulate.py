"""The command `simulate`: reads the databases, runs app.simulation, prints tables or JSON, draws the picture."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from app.commands.configuration import configuration_options, given, load_or_exit
from app.commands.geo_frontend import geo_frontend, stored_backends
from app.commands.output import console, fail, json_option
from app.config import variable
from app.domain.model import Backend
from app.edge.plans import backends_of, plan_pools
from app.outbound.maxmind_geo import GeoDatabaseError, MaxmindGeo, open_geo
from app.ports import RepositoryError
from app.simulation.clients import AddressSpace, Crowd, internet_users
from app.simulation.picture import draw
from app.simulation.results import Move, Results
from app.simulation.run import Simulation
from app.simulation.tables import tables

PICTURES: Final = (".svg", ".png")
_PNG_MAKER: Final = "rsvg-convert"
_PNG_SECONDS: Final = 60
_PROGRESS_STEP: Final = 10_000


class SimulationFault(Exception):
    """The request cannot be simulated. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Request:
    """What to simulate. `surges` are factors of clients by country; `failed` are ids of backends."""

    clients: int
    surges: Mapping[str, float]
    seed: int
    failed: tuple[str, ...]


def parse_surges(_context: click.Context, _parameter: click.Parameter, values: Iterable[str]) -> dict[str, float]:
    """Parse `COUNTRY=FACTOR` texts such as `BR=5`."""
    surges = {}
    for value in values:
        country, _, text = value.partition("=")
        try:
            surges[country.strip().upper()] = factor = float(text)
        except ValueError:
            factor = 0
        if not 1 < factor <= 1000:
            raise click.BadParameter(f"{value!r}: needs a country and a factor above 1, at most 1000, such as BR=5")
    return surges


def parse_picture(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse a path that cannot be written, before the work begins."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"{path}: must end in .svg or .png")
    if path is not None and path.suffix.lower() == ".png" and shutil.which(_PNG_MAKER) is None:
        raise click.BadParameter(f"{path}: PNG needs {_PNG_MAKER}; install it (Debian: librsvg2-bin), or use .svg")
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path}: its directory does not exist")
    return path


@click.command()
@click.option(
    "--db", "database", metavar="FILE|URL", default="", help="Routing database [default: that of the configuration]."
)
@click.option(
    "--clients", default=1_000_000, show_default=True, type=click.IntRange(1, 10_000_000), help="Number of clients."
)
@click.option(
    "--fail",
    "fails",
    metavar="NAME",
    multiple=True,
    help="Let a backend or all backends of a region fail; may be repeated.",
)
@click.option(
    "--surge",
    "surges",
    metavar="COUNTRY=FACTOR",
    multiple=True,
    callback=parse_surges,
    help="Multiply the clients of a country; may be repeated.",
)
@click.option("--seed", default=1, show_default=True, help="Seed of all random choices.")
@click.option("--frontend", "frontend_name", metavar="NAME", help="A geo frontend of the file [default: the first].")
@json_option
@click.option(
    "--picture",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    callback=parse_picture,
    help="Draw a map into FILE, .svg or .png.",
)
@configuration_options
def simulate(
    database: str,
    clients: int,
    fails: tuple[str, ...],
    surges: dict[str, float],
    seed: int,
    frontend_name: str | None,
    as_json: bool,
    picture: Path | None,
    **options: str | None,
) -> None:
    """Simulate clients from all over the world and show which backends they would get."""
    config = load_or_exit(given(options) | _routing_at(database))
    frontend, pool = geo_frontend(config, frontend_name)
    plan = next(plan for plan in plan_pools(config) if plan.name == pool.name)
    try:
        geo = open_geo(config.geoip_path)
        if geo is None:
            fail("edgeproxy", f"{variable('geoip_path')}='off': clients need the country database; remove this setting")
        found = backends_of(pool, stored_backends(config, pool).backends)
        failed = failing(fails, found)
        request = Request(clients, surges, seed, failed)
        results = run(request, geo, Simulation(plan, frontend, found, config.region or None, geo.resolve, seed))
        if picture is not None:
            write_picture(results, config.region or None, picture)
    except (GeoDatabaseError, RepositoryError, SimulationFault) as error:
        fail("edgeproxy", str(error))
    if as_json:
        head = {"pop_region": config.region or None, "frontend": frontend, "seed": seed}
        click.echo(json.dumps({**head, **results.to_json()}, indent=2))
        return
    for table in tables(results):
        console().print(table)


def _routing_at(location: str) -> dict[str, str]:
    """Return the overrides of the configuration for --db, if given."""
    if not location:
        return {}
    return {"db_url": location} if "://" in location else {"db_path": location, "db_url": ""}


def failing(names: Iterable[str], backends: Iterable[Backend]) -> tuple[str, ...]:
    """Return the ids of the named backends, or of all backends in named regions. Raises SimulationFault."""
    rows, found = list(backends), dict[str, None]()
    for name in names:
        ids = [row.id for row in rows if row.id == name] or [row.id for row in rows if row.region == name.lower()]
        if not ids:
            raise SimulationFault(f"--fail {name}: there is no such backend or region")
        found |= dict.fromkeys(ids)
    return tuple(found)


def run(request: Request, geo: MaxmindGeo, simulation: Simulation) -> Results:
    """Simulate arrival, surges and failures, with progress on stderr. Raises SimulationFault."""
    crowd = Crowd(AddressSpace(geo.ipv4_networks()), internet_users(), random.Random(request.seed))
    extra = {country: _extra(crowd, country, times, request) for country, times in request.surges.items()}
    moves: tuple[Move, ...] = ()
    with _progress() as begin:
        simulation.arrive(_with_progress(crowd.draw(request.clients), request.clients, begin("clients arrive")))
        stages = [simulation.stage("steady")]
        for country, count in extra.items():
            simulation.arrive(_with_progress(crowd.draw_from(country, count), count, begin(f"more from {country}")))
        if extra:
            stages.append(simulation.stage("surge"))
        if request.failed:
            moves = simulation.fail(request.failed, begin("bindings break"))
            stages.append(simulation.stage("failure"))
    return Results(tuple(stages), request.failed, sum(move.clients for move in moves), moves)


def _extra(crowd: Crowd, country: str, times: float, request: Request) -> int:
    try:
        return round(request.clients * crowd.share(country) * (times - 1))
    except KeyError:
        raise SimulationFault(f"--surge {country}: no clients come from this country") from None


Advance = Callable[[int, int], None]
"""Reports progress: done, total."""


@contextmanager
def _progress() -> Iterator[Callable[[str], Advance]]:
    """Yield a function that starts a progress bar on stderr, if that is a terminal, and returns its Advance."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:

        def begin(what: str) -> Advance:
            bar = progress.add_task(what, total=None)
            return lambda done, total: progress.update(bar, completed=done, total=total)

        yield begin


def _with_progress(addresses: Iterator[str], count: int, advance: Advance) -> Iterator[str]:
    for done in range(0, count, _PROGRESS_STEP):
        yield from islice(addresses, _PROGRESS_STEP)
        advance(min(done + _PROGRESS_STEP, count), count)


def write_picture(results: Results, pop_region: str | None, path: Path) -> None:
    """Write the picture as SVG, or as PNG through rsvg-convert. Raises SimulationFault."""
    text = draw(results, pop_region)
    try:
        if path.suffix.lower() == ".svg":
            path.write_text(text, encoding="utf-8")
            return
        command = [_PNG_MAKER, "--zoom=2", f"--output={path.absolute()}"]
        subprocess.run(command, input=text.encode(), check=True, capture_output=True, timeout=_PNG_SECONDS)
    except subprocess.CalledProcessError as error:
        raise SimulationFault(f"{path}: {_PNG_MAKER}: {error.stderr.decode(errors='replace').strip()}") from None
    except OSError as error:
        raise SimulationFault(f"{path}: {error.strerror}") from None
