"""Network namespaces for tests: machines of their own on a wire of their own, gone with the test that made them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.commands import clean_environment
from tests.harness import ROOT

Done = subprocess.CompletedProcess[str]

_HOLD = """
set -e
for folder in /run/wireguard /etc/wireguard; do mkdir -p $folder; mount -t tmpfs -o mode=700 tmpfs $folder; done
ip link set lo up
echo ready
exec sleep infinity
"""
"""A namespace lives as long as some process in it. Sockets and keys of WireGuard are each machine's own."""


def require_namespaces() -> None:
    """Skip the test, with the reason, where there are no network namespaces for us."""
    if os.geteuid() != 0:
        pytest.skip("NOT RUN: needs root, for network namespaces")
    missing = [program for program in ("unshare", "nsenter", "ip") if shutil.which(program) is None]
    if missing:
        pytest.skip(f"NOT RUN: needs {', '.join(missing)} (Debian: util-linux, iproute2)")
    if not Path("/dev/net/tun").exists():
        pytest.skip("NOT RUN: needs /dev/net/tun")
    done = subprocess.run(["unshare", "--mount", "--net", "true"], check=False, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"NOT RUN: no network namespaces here: {done.stderr.strip()}")


class Machine:
    """A network and mount namespace in which commands run as on a machine of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _HOLD], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"ready\n", f"no namespace for {name}"
        self._namespace = os.readlink(f"/proc/{self._holder.pid}/ns/net")

    @property
    def pid(self) -> int:
        return self._holder.pid

    def command(self, *arguments: object) -> list[str]:
        """Return the command that runs another one here."""
        return ["nsenter", "--mount", "--net", "--target", str(self.pid), f"--wd={ROOT}", *map(str, arguments)]

    def run(self, *arguments: object, stdin: str = "", timeout: float = 30, **variables: str) -> Done:
        """Run a command to its end; `variables` go into its environment with the prefix of the edge's."""
        return subprocess.run(
            self.command(*arguments),
            check=False,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env=clean_environment(**variables),
        )

    def do(self, *arguments: object, **more: str) -> str:
        """Run a command that must succeed; returns what it printed."""
        done = self.run(*arguments, **more)
        assert done.returncode == 0, f"{self.name}: {arguments}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, *arguments: object, log: Path, **variables: str) -> subprocess.Popen[bytes]:
        """Start a process here, which the end of the machine ends; what it prints goes to a file."""
        with log.open("ab") as output:
            return subprocess.Popen(
                self.command(*arguments),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=clean_environment(**variables),
            )

    def pids(self) -> list[int]:
        """Return the processes that run here."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and os.readlink(entry / "ns" / "net") == self._namespace:
                    found.append(int(entry.name))
        return found

    def remove(self) -> None:
        """End every process here, and with them the namespace."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


class Wire:
    """Machines on one switch. Each has 192.0.2.N and 2001:db8::N on its interface eth0, N from 1."""

    def __init__(self, *names: str) -> None:
        self._switch = Machine("switch")
        self.machines = {name: Machine(name) for name in names}
        self._switch.do("ip", "link", "add", "br0", "up", "type", "bridge")
        for number, machine in enumerate(self.machines.values(), start=1):
            port = f"port{number}"
            self._switch.do("ip", "link", "add", port, "type", "veth", "peer", "eth0", "netns", machine.pid)
            self._switch.do("ip", "link", "set", port, "up", "master", "br0")
            machine.do("ip", "address", "add", f"192.0.2.{number}/24", "dev", "eth0")
            machine.do("ip", "address", "add", f"2001:db8::{number}/64", "dev", "eth0", "nodad")
            machine.do("ip", "link", "set", "eth0", "up")

    def __getitem__(self, name: str) -> Machine:
        return self.machines[name]

    def remove(self) -> None:
        for machine in (*self.machines.values(), self._switch):
            machine.remove()


@contextmanager
def wire(*names: str) -> Iterator[Wire]:
    """Give machines on a wire for the block."""
    require_namespaces()
    one = Wire(*names)
    try:
        yield one
    finally:
        one.remove()
