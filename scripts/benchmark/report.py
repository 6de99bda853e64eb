"""The report of a run as Markdown: medians with min–max, and ratios between peers."""

from collections.abc import Collection, Mapping, Sequence
from statistics import median

from scripts.benchmark.peers import MODES, NAMES, Peer
from scripts.benchmark.rounds import MICRO, Sample
from scripts.benchmark.rows import Row

REFERENCE = "haproxy"
OURS = "edge"
ARROWS = {"more": "↑", "less": "↓"}

Series = Mapping[int, float]
"""The values of a figure for one peer, by round."""


def markdown(
    machine: Mapping[str, str], rows: Sequence[Row], peers: Collection[Peer], samples: Sequence[Sample]
) -> str:
    """Return the whole report: the machine, a table for each mode, the in-process figures, and the failures."""
    parts = ["\n".join(f"- {name}: {text}" for name, text in machine.items())]
    for mode in MODES:
        chosen = [row for row in rows if row.mode == mode]
        measured = {peer.name for row in chosen for peer in row.peers if peer in peers}
        names = [name for name in NAMES if name in measured]
        parts += ["\n".join(comparison(chosen, names, samples))] if names else []
    parts += ["\n".join(micro_table(samples))] if any(sample.row == MICRO for sample in samples) else []
    faults = [f"- round {s.round}, {s.row}, {s.peer}: {s.error}" for s in samples if s.error]
    parts += ["Measurements that FAILED:\n\n" + "\n".join(faults)] if faults else []
    return "\n\n".join(parts)


def comparison(rows: Sequence[Row], peers: Sequence[str], samples: Sequence[Sample]) -> list[str]:
    """Return a line per figure: every peer's median, then the ratios."""
    compared = pairs(rows[0].mode, peers)
    heads = [rows[0].mode.upper(), *peers, *(f"{of} / {to}" for of, to in compared)]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    for row in rows:
        for figure in row.figures:
            by_peer = {peer: series(samples, row.key, peer, figure.key) for peer in peers}
            cells = [f"{figure.label}, {figure.unit} {ARROWS[figure.better]}"]
            cells += [spread(list(by_peer[peer].values()), figure.digits) for peer in peers]
            cells += [spread(ratios(by_peer[of], by_peer[to]), 2) for of, to in compared]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def pairs(mode: str, peers: Sequence[str]) -> list[tuple[str, str]]:
    """Return the pairs of peers to compare: each proxy with HAProxy; for handlers, the edge with each peer."""
    if mode == "handler":
        return [(OURS, peer) for peer in peers if peer != OURS] if OURS in peers else []
    return [(peer, REFERENCE) for peer in peers if peer != REFERENCE] if REFERENCE in peers else []


def micro_table(samples: Sequence[Sample]) -> list[str]:
    """Return a line per in-process figure, whose name contains the unit."""
    names = dict.fromkeys(name for sample in samples if sample.row == MICRO for name in sample.figures)
    lines = ["| in process | edge |", "|---|---:|"]
    for name in names:
        lines.append(f"| {name} | {spread(list(series(samples, MICRO, 'edge', name).values()), 2)} |")
    return lines


def series(samples: Sequence[Sample], row: str, peer: str, figure: str) -> Series:
    """Return the values of a figure for one peer, by round."""
    return {s.round: s.figures[figure] for s in samples if (s.row, s.peer) == (row, peer) and figure in s.figures}


def ratios(of: Series, to: Series) -> list[float]:
    """Return the ratios by round, which the drift of the machine affects least."""
    return [of[number] / to[number] for number in of if to.get(number)]


def spread(values: Sequence[float], digits: int) -> str:
    """Return 'median (min–max)'."""
    if not values:
        return "–"
    middle, low, high = (f"{value:,.{digits}f}" for value in (median(values), min(values), max(values)))
    return f"**{middle}** ({low}–{high})" if len(values) > 1 else f"**{middle}**"
