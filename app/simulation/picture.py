"""Draws the results of a simulation in SVG: a world map with clients and backends, and bars below it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final

from app.domain.words import counted
from app.simulation.boxes import Box, freest
from app.simulation.results import BackendLoad, Results, Stage

_WORLD: Final = Path(__file__).parent.parent / "admin" / "page"
"""The folder of the map of the admin page: the land, and positions of countries and regions."""
_WIDTH: Final = 1000
_MAP_TOP: Final = 64
_MAP_HEIGHT: Final = 440
_MARGIN: Final = 24
_ROW: Final = 26
_ROWS: Final = 24
"""Backends shown with a bar below the map: those with the most connections."""
_TALLEST: Final = 70
_LARGEST_DOT: Final = 26
_BAR: Final = 10
_OUT_HEIGHT: Final = 4
"""Of the bar of a backend without connections."""
_LETTER: Final = 7.0
"""Width of a letter of a name on the map, and its height below."""
_LINE: Final = 12.0

# One colour has one meaning, so none of clients is one of backends, and none is faded into another.
_TIER_COLOURS: Final = ("#2a9d8f", "#4f7cd6", "#8b5cc7", "#c2549d")
_UNSERVED_COLOUR: Final = "#1f2933"
_LEGEND: Final = ("same country", "same region", "this edge's region", "elsewhere", "no backend")
_STATE_COLOURS: Final = {"ok": "#7a9a1f", "over soft": "#e0860a", "full": "#b91c1c", "out": "#9ca3af"}
_STYLE: Final = """
text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #1f2933 }
.title { font-size: 20px; font-weight: 600 } .quiet { fill: #64748b; font-size: 12px }
.name { font-size: 12px; font-weight: 600 } .figure { font-size: 12px; text-anchor: end }
.mark { font-size: 11px; font-weight: 600; text-anchor: middle; paint-order: stroke; stroke: #fff; stroke-width: 3px }
"""


def draw(results: Results, pop_region: str | None) -> str:
    """Return the SVG."""
    shown = sorted(results.stages[-1].loads, key=lambda load: -_most(results, load.backend.id))[:_ROWS]
    table_top = _MAP_TOP + _MAP_HEIGHT + 78
    tiers_top = table_top + len(shown) * _ROW + 46
    height = tiers_top + len(results.stages) * _ROW + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}">',
        f'<style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>',
        *_heading(results, pop_region),
        *_map(results),
        *_backends(results, shown, table_top),
        *_tiers(results.stages, tiers_top),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _most(results: Results, backend_id: str) -> int:
    return max(load.connections for stage in results.stages for load in stage.loads if load.backend.id == backend_id)


def _highest(results: Results) -> int:
    return max((load.connections for stage in results.stages for load in stage.loads), default=0) or 1


def _text(x: float, y: float, style: str, words: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{style}">{escape(words)}</text>'


def _rectangle(x: float, y: float, width: float, height: float, colour: str, more: str = "") -> str:
    return f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}" fill="{colour}" {more}/>'


def _heading(results: Results, pop_region: str | None) -> Iterator[str]:
    last = results.stages[-1]
    yield _text(_MARGIN, 34, "title", f"{counted(last.clients, 'client', ',')}, an edge in {pop_region or 'no region'}")
    facts = [f"{last.served:,} served"]
    if last.overflow:
        facts.append(f"{sum(last.overflow.values()):,} beyond their nearest backends, which are full")
    if results.failed:
        failed = ", ".join(results.failed[:6]) + (" …" if len(results.failed) > 6 else "")
        facts.append(f"{counted(results.broken_bindings, 'binding', ',')} broken by the failure of {failed}")
    yield _text(_MARGIN, 54, "quiet", " · ".join(facts))


# The map


def _map(results: Results) -> Iterator[str]:
    places: dict[str, Any] = json.loads((_WORLD / "places.json").read_text(encoding="utf-8"))
    land = (_WORLD / "land.path").read_text(encoding="utf-8").strip()
    yield f'<g transform="translate(0 {_MAP_TOP})"><path transform="scale(.1)" d="{land}" fill="#e8ecef"/>'
    yield from _dots(results.stages[-1], places)
    yield from _towers(results, places)
    yield "</g>"
    y = _MAP_TOP + _MAP_HEIGHT + 14
    yield from _legend(y, "clients served from", zip((*_TIER_COLOURS, _UNSERVED_COLOUR), _LEGEND, strict=True))
    yield from _legend(y + 20, "backends", ((colour, state) for state, colour in _STATE_COLOURS.items()))
    yield _text(_MARGIN + 440, y + 20, "quiet", f"dashed outline: connections when {results.stages[0].name}")


def _legend(y: float, subject: str, marks: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield _text(_MARGIN, y, "quiet", subject)
    x = _MARGIN + 144.0
    for colour, words in marks:
        yield f'<circle cx="{x:.0f}" cy="{y - 4}" r="5" fill="{colour}" fill-opacity=".85"/>'
        yield _text(x + 9, y, "quiet", words)
        x += 30 + 6.6 * len(words)


def _dots(stage: Stage, places: Mapping[str, Any]) -> Iterator[str]:
    """Yield a dot per country: its area shows the number of clients, its colour the most frequent outcome."""
    outcomes: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for flow, count in stage.flows.items():
        if flow.country is not None and flow.country in places:
            outcomes[flow.country][_UNSERVED_COLOUR if flow.tier is None else _TIER_COLOURS[flow.tier]] += count
    largest = max((outcome.total() for outcome in outcomes.values()), default=1)
    for country, outcome in sorted(outcomes.items(), key=lambda item: -item[1].total()):
        x, y = places[country]
        radius = max(1.2, _LARGEST_DOT * (outcome.total() / largest) ** 0.5)
        colour = outcome.most_common(1)[0][0]
        title = f"<title>{country}: {counted(outcome.total(), 'client', ',')}</title>"
        yield f'<circle cx="{x}" cy="{y}" r="{radius:.1f}" fill="{colour}" fill-opacity=".6">{title}</circle>'


def _towers(results: Results, places: Mapping[str, Any]) -> Iterator[str]:
    """Yield a bar at each backend's position, in front of an outline that shows the first stage, and the names."""
    first, last = results.stages[0], results.stages[-1]
    before = {load.backend.id: load.connections for load in first.loads}
    scale = _TALLEST / _highest(results)
    bars: list[Box] = []
    loads = [load for load in last.loads if _position(load, places) is not None]
    for load in loads:
        height, outline = max(_OUT_HEIGHT, scale * load.connections), scale * before[load.backend.id]
        x, y = _position(load, places) or (0, 0)
        box = Box(x - _BAR / 2, y - max(height, outline), x + _BAR / 2, y)
        bars.append(freest((box.moved(step * (_BAR + 1), 0) for step in (0, 1, -1, 2, -2, 3, -3, 4, -4)), bars))
        left = bars[-1].left
        dashed = 'fill-opacity=".6" stroke="#64748b" stroke-dasharray="2"'
        yield _rectangle(left, y - outline, _BAR, outline, "#fff", dashed)
        yield _rectangle(left, y - height, _BAR, height, _STATE_COLOURS[load.state])
    if len(loads) <= _ROWS:
        yield from _names([load.backend.id for load in loads], bars)


def _position(load: BackendLoad, places: Mapping[str, Any]) -> tuple[float, float] | None:
    found = places.get(load.backend.country or "") or places.get(load.backend.region or "")
    return None if found is None else (float(found[0]), float(found[1]))


def _names(names: Sequence[str], bars: Sequence[Box]) -> Iterator[str]:
    """Yield the name of each bar, where it covers neither a bar nor another name."""
    taken = list(bars)
    for name, bar in zip(names, bars, strict=True):
        taken.append(freest(_around(bar, _LETTER * len(name)), taken))
        box = taken[-1]
        yield _text((box.left + box.right) / 2, box.bottom - 2, "mark", name)


def _around(bar: Box, width: float) -> Iterator[Box]:
    """Yield positions of a name that is on the map: above its bar, beside it, below it, and farther away."""
    middle = (bar.left + bar.right) / 2
    above = Box(middle - width / 2, bar.top - _LINE - 2, middle + width / 2, bar.top - 2)
    beside = (_BAR + width) / 2 + 2
    below = bar.bottom - bar.top + _LINE + 4
    for far in range(6):
        for x in (0.0, beside, -beside):
            for y in (-far * _LINE, far * _LINE + _LINE, below + far * _LINE):
                box = above.moved(x, y)
                if box.left >= 0 and box.right <= _WIDTH and box.top >= 0 and box.bottom <= _MAP_HEIGHT:
                    yield box
    yield above


# The bars


def _backends(results: Results, shown: Sequence[BackendLoad], top: float) -> Iterator[str]:
    left, right = 170.0, 715.0
    longest = _highest(results)
    yield _text(_MARGIN, top - 6, "name", "Connections by backend")
    stages = ", ".join(stage.name for stage in results.stages)
    yield _text(left + 24, top - 6, "quiet", stages + (", from top to bottom" if len(results.stages) > 1 else ""))
    for number, load in enumerate(shown):
        y = top + number * _ROW + 4
        where = "/".join(filter(None, (load.backend.region, load.backend.country)))
        yield _text(_MARGIN, y + 13, "name", f"{load.backend.id}"[:16])
        yield _text(_MARGIN + 96, y + 13, "quiet", where)
        row = [next(one for one in stage.loads if one.backend.id == load.backend.id) for stage in results.stages]
        for step, one in enumerate(row):
            length = (right - left) * one.connections / longest
            thick = _ROW - 8 - 4 * step if one is row[-1] else 3
            yield _rectangle(left, y + 4 * step, length, thick, _STATE_COLOURS[one.state])
        figures = " → ".join(f"{one.connections:,}" for one in row)
        state = "" if load.state == "ok" else f", {load.state}"
        yield _text(_WIDTH - _MARGIN, y + 13, "figure", figures + state)
    if len(shown) < len(results.stages[-1].loads):
        rest = len(results.stages[-1].loads) - len(shown)
        yield _text(
            _MARGIN,
            top + len(shown) * _ROW + 14,
            "quiet",
            f"and {counted(rest, 'more backend')} with fewer connections",
        )


def _tiers(stages: Sequence[Stage], top: float) -> Iterator[str]:
    left, right = 170.0, float(_WIDTH - _MARGIN)
    yield _text(_MARGIN, top - 6, "name", "Share by tier")
    for number, stage in enumerate(stages):
        y, x = top + number * _ROW + 4, left
        yield _text(_MARGIN, y + 13, "name", stage.name)
        unserved = sum(stage.unserved.values())
        for colour, count in zip((*_TIER_COLOURS, _UNSERVED_COLOUR), (*stage.tiers.values(), unserved), strict=True):
            share = count / max(1, stage.clients)
            width = (right - left) * share
            yield _rectangle(x, y, width, _ROW - 9, colour, 'fill-opacity=".85"')
            if width > 44:
                white = 'style="fill:#fff;text-anchor:middle"'
                yield f'<text x="{x + width / 2:.1f}" y="{y + 13:.1f}" class="quiet" {white}>{100 * share:.1f} %</text>'
            x += width
