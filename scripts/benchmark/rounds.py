"""The rounds of a run, interleaved (A B C A B C …): each measurement has a new proxy."""

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from scripts.benchmark.machine import ROOT, Cores
from scripts.benchmark.peers import Peer, serving
from scripts.benchmark.processes import MeasurementError
from scripts.benchmark.rows import Row
from scripts.benchmark.upstreams import upstream

MICRO = "micro"
MICRO_NEEDS = ("redis-server",)
"""Programs without which some figures are left out."""
MICRO_SECONDS = 300.0
MICRO_CALL = "import json; from scripts.benchmark import micro; print(json.dumps(micro.figures()))"


@dataclass(frozen=True)
class Sample:
    """The result of one measurement: `figures` by key, or the error."""

    round: int
    row: str
    peer: str
    figures: dict[str, float]
    error: str = ""

    def as_json(self) -> dict[str, object]:
        """Return the sample as plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """A run: every row on those of its peers that are in `peers`, `seconds` per measurement."""

    rows: Sequence[Row]
    peers: Collection[Peer]
    with_micro: bool
    rounds: int
    seconds: int
    cores: Cores


def run(plan: Plan, folder: Path, samples: list[Sample]) -> None:
    """Measure everything, appending to `samples`, so that an interrupted run keeps its results."""
    with ExitStack() as stack:
        ports = {
            kind: stack.enter_context(upstream(kind, folder / f"upstream-{kind}"))
            for kind in sorted({row.upstream for row in plan.rows})
        }
        for number in range(1, plan.rounds + 1):
            for row in plan.rows:
                for peer in (peer for peer in row.peers if peer in plan.peers):
                    place = folder / f"{number}-{row.key}-{peer.name}"
                    samples.append(measure(plan, number, row, peer, place, ports[row.upstream]))
                    report_progress(plan, samples[-1])
            if plan.with_micro:
                samples.append(measure_micro(plan, number))
                report_progress(plan, samples[-1])


def measure(plan: Plan, number: int, row: Row, peer: Peer, place: Path, upstream_port: int) -> Sample:
    """Start a peer, apply the load of a row, stop it. A failure becomes the error of the sample."""
    try:
        with serving(peer, place, upstream_port, plan.cores.proxy) as proxy:
            return Sample(number, row.key, peer.name, row.measure(proxy, plan.seconds))
    except (MeasurementError, OSError) as error:
        return Sample(number, row.key, peer.name, {}, str(error) or repr(error))


def measure_micro(plan: Plan, number: int) -> Sample:
    """Call `micro.figures()` in the edge's interpreter, on the proxy's core."""
    python = str(ROOT / ".venv/bin/python")
    argv = ["taskset", "--cpu-list", str(plan.cores.proxy), python, "-c", MICRO_CALL]
    try:
        done = subprocess.run(argv, cwd=ROOT, check=False, capture_output=True, text=True, timeout=MICRO_SECONDS)
    except subprocess.TimeoutExpired:
        return Sample(number, MICRO, "edge", {}, f"not done in {MICRO_SECONDS:.0f} s")
    if done.returncode:
        return Sample(number, MICRO, "edge", {}, done.stderr.strip()[-2000:])
    return Sample(number, MICRO, "edge", json.loads(done.stdout.splitlines()[-1]))


def report_progress(plan: Plan, sample: Sample) -> None:
    """Print the progress of the run to stderr."""
    figures = "  ".join(f"{key} {value:.6g}" for key, value in sample.figures.items())
    head = f"round {sample.round}/{plan.rounds}  {sample.row}  {sample.peer}:"
    print(head, figures or f"FAILED: {sample.error}", file=sys.stderr, flush=True)
