"""The results of a simulation as tables: backends, regions, tiers, overflow, moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group
from rich.table import Table
from rich.text import Text

from app.domain.explain import TIER_MEANING
from app.simulation.results import BackendLoad, Results, Stage

_COUNTRIES_SHOWN = 10


def tables(results: Results) -> Iterator[Group]:
    """Yield the tables that are not empty, each below its title, with one or more columns per stage."""
    yield _titled("Connections", _backends(results.stages))
    yield _titled("Regions", _regions(results.stages))
    yield _titled("Share by tier", _tiers(results.stages))
    if any(stage.overflow for stage in results.stages):
        yield _titled("Overflow: clients whose nearest backends were full", _overflow(results.stages))
    if results.failed:
        title = f"Bindings broken by the failure of {', '.join(results.failed)}: {results.broken_bindings:,}"
        yield _titled(title, _moves(results))


def _titled(title: str, table: Table) -> Group:
    return Group("", Text(title, style="bold"), table)


def _table(words: Iterable[str], numbers: Iterable[str]) -> Table:
    table = Table(*words, box=None, header_style="bold")
    for column in numbers:
        table.add_column(column, justify="right")
    return table


def _backends(stages: Sequence[Stage]) -> Table:
    table = _table(("backend", "region", "country"), ("weight", "soft", "hard"))
    for stage in stages:
        table.add_column(stage.name, justify="right")
        table.add_column("", style="dim")
    for loads in zip(*(stage.loads for stage in stages), strict=True):
        b = loads[0].backend
        limits = (str(b.weight), f"{b.soft_limit:,}", f"{b.hard_limit:,}" if b.hard_limit else "-")
        cells = (text for load in loads for text in (f"{load.connections:,}", _remark(load)))
        table.add_row(b.id, b.region, b.country, *limits, *cells)
    sums = (text for stage in stages for text in (f"{stage.served:,}", f"of {stage.clients:,}"))
    table.add_row("all", "", "", "", "", "", *sums, style="bold")
    return table


def _remark(load: BackendLoad) -> str:
    return "" if load.state == "ok" else load.state


def _regions(stages: Sequence[Stage]) -> Table:
    columns = (f"{stage.name}: {what}" for stage in stages for what in ("clients", "connections"))
    table = _table(("region",), columns)
    for region in sorted({region for stage in stages for region in stage.regions}):
        counts = (count for stage in stages for count in stage.regions.get(region, (0, 0)))
        table.add_row(region, *(f"{count:,}" for count in counts))
    return table


def _tiers(stages: Sequence[Stage]) -> Table:
    table = _table(("tier",), (stage.name for stage in stages))
    for tier, meaning in enumerate(TIER_MEANING):
        table.add_row(f"{tier} {meaning}", *(_share(stage.tiers[tier], stage) for stage in stages))
    for reason in sorted({reason for stage in stages for reason in stage.unserved}):
        table.add_row(f"- no backend: {reason}", *(_share(stage.unserved.get(reason, 0), stage) for stage in stages))
    return table


def _share(count: int, stage: Stage) -> str:
    return f"{100 * count / max(1, stage.clients):.2f} %"


def _overflow(stages: Sequence[Stage]) -> Table:
    table = _table(("country",), (stage.name for stage in stages))
    table.add_row("all", *(f"{sum(stage.overflow.values()):,}" for stage in stages), style="bold")
    countries = list(dict.fromkeys(country for stage in reversed(stages) for country in stage.overflow))
    for country in countries[:_COUNTRIES_SHOWN]:
        table.add_row(country, *(f"{stage.overflow.get(country, 0):,}" for stage in stages))
    if len(countries) > _COUNTRIES_SHOWN:
        table.add_row(f"and {len(countries) - _COUNTRIES_SHOWN} more")
    return table


def _moves(results: Results) -> Table:
    table = _table(("from", "to"), ("clients",))
    for move in results.moves:
        table.add_row(move.source, move.target or "none", f"{move.clients:,}")
    return table
