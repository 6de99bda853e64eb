"""`simulate`: thin. Reads the databases, lets app.simulation do it, prints tables or JSON, writes the picture."""

from __future__ import annotations

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

from app.domain.model import Backend
from app.outbound.maxmind_geo import MaxmindGeo
from app.simulation.clients import AddressSpace, Crowd, internet_users
from app.simulation.picture import draw
from app.simulation.results import Move, Results
from app.simulation.run import Simulation

PICTURES: Final = (".svg", ".png")
_PNG_MAKER: Final = "rsvg-convert"
_PNG_SECONDS: Final = 60
_TOLD_EVERY: Final = 10_000


class SimulationFault(Exception):
    """What was asked for cannot be simulated; the text says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be simulated. `surges` are by country how many times its clients come; `failed` are backend ids."""

    clients: int
    surges: Mapping[str, float]
    seed: int
    failed: tuple[str, ...]


def parse_surges(_context: click.Context, _parameter: click.Parameter, values: Iterable[str]) -> dict[str, float]:
    """Read `BR=5` and so on."""
    surges = {}
    for value in values:
        country, _, text = value.partition("=")
        try:
            surges[country.strip().upper()] = factor = float(text)
        except ValueError:
            factor = 0
        if not 1 < factor <= 1000:
            raise click.BadParameter(f"{value!r}: needs a country and how many times its clients come, such as BR=5")
    return surges


def parse_picture(_context: click.Context, _parameter: click.Parameter, path: Path | None) -> Path | None:
    """Refuse what cannot be written before the work begins."""
    if path is not None and path.suffix.lower() not in PICTURES:
        raise click.BadParameter(f"{path}: must end in .svg or .png")
    if path is not None and path.suffix.lower() == ".png" and shutil.which(_PNG_MAKER) is None:
        raise click.BadParameter(
            f"{path}: a PNG is made by {_PNG_MAKER}; install it (Debian: librsvg2-bin), or take .svg"
        )
    if path is not None and not path.absolute().parent.is_dir():
        raise click.BadParameter(f"{path}: there is no such folder")
    return path


def failing(names: Iterable[str], backends: Iterable[Backend]) -> tuple[str, ...]:
    """Return the ids of the backends that names mean: an id, or else a region. Raises SimulationFault."""
    rows, found = list(backends), dict[str, None]()
    for name in names:
        ids = [row.id for row in rows if row.id == name] or [row.id for row in rows if row.region == name.lower()]
        if not ids:
            raise SimulationFault(f"--fail {name}: no backend and no region of backends is called so")
        found |= dict.fromkeys(ids)
    return tuple(found)


def run(request: Request, geo: MaxmindGeo, simulation: Simulation) -> Results:
    """Let clients arrive, surge and meet the failure, with progress on stderr. Raises SimulationFault."""
    crowd = Crowd(AddressSpace(geo.ipv4_networks()), internet_users(), random.Random(request.seed))
    extra = {country: _extra(crowd, country, times, request) for country, times in request.surges.items()}
    moves: tuple[Move, ...] = ()
    with _progress() as begin:
        simulation.arrive(_told(crowd.draw(request.clients), request.clients, begin("clients arrive")))
        stages = [simulation.stage("steady")]
        for country, count in extra.items():
            simulation.arrive(_told(crowd.draw_from(country, count), count, begin(f"more from {country}")))
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
        raise SimulationFault(f"--surge {country}: no clients are drawn from there") from None


Advance = Callable[[int, int], None]
"""Told how much of how much is done."""


@contextmanager
def _progress() -> Iterator[Callable[[str], Advance]]:
    """Give a function that begins a bar on stderr, where that is a terminal, and returns how to move it."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as progress:

        def begin(what: str) -> Advance:
            bar = progress.add_task(what, total=None)
            return lambda done, total: progress.update(bar, completed=done, total=total)

        yield begin


def _told(addresses: Iterator[str], count: int, advance: Advance) -> Iterator[str]:
    for done in range(0, count, _TOLD_EVERY):
        yield from islice(addresses, _TOLD_EVERY)
        advance(min(done + _TOLD_EVERY, count), count)


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
