"""The command `scripts/bench`: options, one run, the Markdown report on stdout, progress on stderr."""

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from scripts.benchmark.handler_rows import HANDLER_ROWS
from scripts.benchmark.http_rows import HTTP_ROWS
from scripts.benchmark.machine import Bystanders, Cores, describe, divide_cores, missing_after_install
from scripts.benchmark.peers import MODES, NAMES, why_absent
from scripts.benchmark.processes import MeasurementError
from scripts.benchmark.report import markdown
from scripts.benchmark.rounds import MICRO, MICRO_NEEDS, Plan, Sample, run
from scripts.benchmark.tcp_rows import TCP_ROWS

ROWS = {row.key: row for row in (*TCP_ROWS, *HTTP_ROWS, *HANDLER_ROWS)}


def main() -> int:
    """Run the benchmark. Returns 0 if everything requested was measured, 1 if not, 130 if interrupted."""
    options = parse_options()
    signal.signal(signal.SIGTERM, interrupt)
    cores = divide_cores()
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))
    plan, absent = make_plan(options, cores)
    machine = describe(cores)
    os.sched_setaffinity(0, cores.load)  # inherited by all processes except the proxies
    machine |= {
        "method": f"{plan.rounds} interleaved rounds, {plan.seconds} s per measurement, each on a new proxy; "
        "median (min–max); ratios are computed by round"
    }
    machine |= {f"NOT MEASURED: {name}": why for name, why in absent.items()}
    samples: list[Sample] = []
    status = 1 if absent else 0
    bystanders = Bystanders()
    try:
        with tempfile.TemporaryDirectory(prefix="edge-bench-") as folder:
            run(plan, Path(folder), samples)
    except KeyboardInterrupt:
        machine["INTERRUPTED"] = "the figures are those measured until then"
        status = 130
    except MeasurementError as error:
        machine["GIVEN UP"] = str(error)
        status = 1
    machine["bystanders"] = bystanders.report()
    print(markdown(machine, plan.rows, plan.peers, samples))
    if options.json:
        raw = {"machine": machine, "samples": [sample.as_json() for sample in samples]}
        options.json.write_text(json.dumps(raw, indent=1, ensure_ascii=False) + "\n")
    return status or int(any(sample.error for sample in samples))


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    rows, peers = [*ROWS, MICRO], list(NAMES)
    of_mode = {mode: [row.key for row in ROWS.values() if row.mode == mode] for mode in MODES}
    only = "For the rows of one mode: --only tcp, http or handler. By default all rows are measured."
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__, epilog=only)
    parser.add_argument("--rounds", type=positive, default=5, metavar="N", help="default 5")
    parser.add_argument("--seconds", type=positive, default=4, metavar="S", help="length of one measurement; default 4")
    parser.add_argument(
        "--only",
        type=Subset(rows, of_mode),
        default=rows,
        metavar="ROW,…",
        help=f"{', '.join(MODES)}, or of {','.join(rows)}",
    )
    parser.add_argument(
        "--peers", type=Subset(peers, {}), default=peers, metavar="PEER,…", help=f"of {','.join(peers)}"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write raw figures and facts of the machine to FILE")
    return parser.parse_args()


def positive(text: str) -> int:
    """Parse a whole number above 0."""
    number = int(text)
    if number < 1:
        raise ValueError
    return number


class Subset:
    """Parse a comma-separated choice of known names, or of groups of them, in their known order."""

    def __init__(self, known: list[str], groups: Mapping[str, list[str]]) -> None:
        self.known = known
        self.groups = groups

    def __call__(self, text: str) -> list[str]:
        chosen = {name for word in text.split(",") for name in self.groups.get(word, [word])}
        unknown = chosen - set(self.known)
        if unknown:
            names = ", ".join([*self.groups, *self.known])
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: unknown, choose from {names}")
        return [name for name in self.known if name in chosen]


def make_plan(options: argparse.Namespace, cores: Cores) -> tuple[Plan, dict[str, str]]:
    """Choose what can be measured on this machine. Also returns what cannot, with the reason."""
    rows = [ROWS[name] for name in options.only if name != MICRO]
    rows = [row for row in rows if any(peer.name in options.peers for peer in row.peers)]
    peers = dict.fromkeys(peer for row in rows for peer in row.peers if peer.name in options.peers)
    needed = [program for row in rows for program in row.needs]
    needed += [program for peer in peers for program in peer.needs]
    needed += MICRO_NEEDS if MICRO in options.only else ()
    missing = missing_after_install(dict.fromkeys(["taskset", *needed]))
    if "taskset" in missing:
        sys.exit("taskset (Debian package util-linux) is needed for everything and missing")
    reasons = {peer: reason for peer in peers if (reason := why_absent(peer, missing))}
    absent = {f"{peer.name} ({peer.mode})": reason for peer, reason in reasons.items()}
    for row in rows:
        lacking = [program for program in row.needs if program in missing]
        if lacking:
            absent[f"row {row.key}"] = f"{' and '.join(lacking)} not installed"
    wants_micro = MICRO in options.only and "edge" in options.peers
    for program in MICRO_NEEDS:
        if wants_micro and program in missing:
            absent[f"in process, with {program}"] = "not installed"
    return (
        Plan(
            rows=[row for row in rows if f"row {row.key}" not in absent],
            peers=[peer for peer in peers if peer not in reasons],
            with_micro=wants_micro,
            rounds=options.rounds,
            seconds=options.seconds,
            cores=cores,
        ),
        absent,
    )


def interrupt(number: int, frame: FrameType | None) -> None:
    """Make SIGTERM end the run like Ctrl-C."""
    raise KeyboardInterrupt
