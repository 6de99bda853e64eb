"""The processes of a run: started on given cores, waited for, measured, and always stopped by pid."""

import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 20.0
STOP_SECONDS = 5.0
LISTEN_STATE = "0A"  # TCP_LISTEN in /proc/net/tcp

_ports_taken: set[int] = set()


class MeasurementError(Exception):
    """A process did not start or a tool gave no figure. The text is the reason."""


@dataclass(frozen=True)
class Child:
    """A process of this run; `output` is the file with its stdout and stderr."""

    name: str
    process: subprocess.Popen[bytes]
    output: Path

    def last_output(self) -> str:
        """Return the end of the output of the process, and of its log, if there is one (edge.jsonl)."""
        files = [file for file in (self.output, self.output.with_name("edge.jsonl")) if file.exists()]
        return "\n".join(file.read_text(errors="replace")[-4000:].strip() for file in files) or "(nothing)"


def free_port() -> int:
    """Return a free loopback TCP port below 32768 (ephemeral ports start there), never the same twice."""
    while True:
        port = random.randrange(10_000, 32_768)
        if port in _ports_taken:
            continue
        _ports_taken.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def running(
    name: str,
    argv: Sequence[str | Path],
    folder: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Child]:
    """Run `argv` in `folder` until the block ends. Enters the block once `ready()` is true.

    The process leads its own group, so that Ctrl-C reaches only us and its remaining children can be ended.
    """
    output = folder / "output.txt"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            argv,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            process_group=0,
        )
    child = Child(name, process, output)
    try:
        wait_until_ready(child, ready)
        try:
            yield child
        except (MeasurementError, OSError) as error:
            status = process.poll()
            if status is None:
                raise
            raise MeasurementError(f"{error}; {name} had ended with status {status}:\n{child.last_output()}") from error
    finally:
        stop(process)


def wait_until_ready(child: Child, ready: Callable[[], bool]) -> None:
    """Poll `ready()`. Raises MeasurementError with the child's output if it ends or takes more than 20 s."""
    deadline = time.monotonic() + START_SECONDS
    while not ready():
        status = child.process.poll()
        if status is not None:
            raise MeasurementError(f"{child.name} ended with status {status} at start:\n{child.last_output()}")
        if time.monotonic() > deadline:
            raise MeasurementError(f"{child.name} was not ready in {START_SECONDS:.0f} s:\n{child.last_output()}")
        time.sleep(0.02)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Terminate the process; after 5 s kill its whole group."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except BaseException as error:  # also on a second Ctrl-C: no process may be left running
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if not isinstance(error, subprocess.TimeoutExpired):
            raise


def is_listening(port: int) -> bool:
    """Return whether an IPv4 port is open, without connecting (iperf3 would take that for a test)."""
    with Path("/proc/net/tcp").open() as table:
        next(table)
        for line in table:
            _, local, _, state, *_ = line.split()
            if state != LISTEN_STATE:  # listeners come first; thousands in TIME_WAIT may follow
                return False
            if local.endswith(f":{port:04X}"):
                return True
    return False


def rss_kib(pid: int) -> int:
    """Return the resident memory of a process and all its descendants in KiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Rss:"))
    return own + sum(rss_kib(child) for child in children_of(pid))


def processor_seconds(pid: int) -> float:
    """Return the CPU seconds, user and kernel, of a process and all its descendants."""
    stat = Path(f"/proc/{pid}/stat").read_text()
    user, kernel = stat.rpartition(")")[2].split()[11:13]  # the name before may contain spaces
    own = (int(user) + int(kernel)) / os.sysconf("SC_CLK_TCK")
    return own + sum(processor_seconds(child) for child in children_of(pid))


def children_of(pid: int) -> list[int]:
    """Return the pids of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def output_of(argv: Sequence[str], seconds: float) -> str:
    """Run a load generator to its end and return its stdout. Time limit: `seconds` + 30 s."""
    try:
        done = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=seconds + 30)
    except subprocess.TimeoutExpired:
        raise MeasurementError(f"{argv[0]} did not end in time") from None
    if done.returncode:
        raise MeasurementError(f"{argv[0]} failed: {(done.stderr or done.stdout).strip()[-1000:]}")
    return done.stdout
