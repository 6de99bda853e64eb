"""Edges forked from one process that has done what takes each of them a second of processor time.

Run by itself, this file is that process: its children go on as `python -m app serve` does after its imports, and find
the shipped country database validated. Tests of the start itself run `python -m app`.
"""

from __future__ import annotations

import array
import functools
import gc
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent


_turn = threading.Lock()


class Forked:
    """A process of `python -m app …`, with what tests need of subprocess.Popen."""

    def __init__(self, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        ours, theirs = os.pipe()
        self.stderr: IO[bytes] = os.fdopen(ours, "rb")
        self.pid = _request(["fork", [*arguments], environment], theirs)
        os.close(theirs)
        self.returncode: int | None = None
        self._turn = threading.Lock()

    def poll(self) -> int | None:
        with self._turn:
            if self.returncode is None and (status := _request(["poll", self.pid])) >= 0:
                self.returncode = os.waitstatus_to_exitcode(status)
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        until = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if until is not None and time.monotonic() > until:
                raise subprocess.TimeoutExpired("python -m app", timeout or 0.0)
            time.sleep(0.005)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _request(request: list[object], *descriptors: int) -> int:
    """Ask the process that forks; returns its reply: a pid, or a wait status, -1 while the process runs."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    with _turn:
        parent = _parent()
        parent.sendmsg([json.dumps(request).encode()], ancillary)
        return int(parent.recv(100))


@functools.cache
def _parent() -> socket.socket:
    """Start the process that forks. It ends with this one, when its socket closes."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        subprocess.Popen([sys.executable, __file__, str(theirs.fileno())], cwd=ROOT, pass_fds=[theirs.fileno()])
    return ours


def serve_forks(control: socket.socket) -> None:
    """Fork as asked until nobody asks any more; returns in each child, which is to run the command line."""
    fork, waitpid = monkey.get_original("os", ["fork", "waitpid"])  # gevent's would start a hub
    control.setblocking(True)
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 1 << 20, 1)
        if not data:
            os._exit(0)
        match json.loads(data):
            case ["poll", pid]:
                ended, status = waitpid(pid, os.WNOHANG)
                control.send(str(status if ended else -1).encode())
            case ["fork", arguments, environment]:
                pid = fork()
                if not pid:
                    control.close()
                    os.dup2(descriptors[0], 2)
                    os.close(descriptors[0])
                    os.environ.clear()
                    os.environ.update(environment)
                    random.seed()
                    sys.argv[1:] = arguments
                    return
                os.close(descriptors[0])
                control.send(str(pid).encode())


def validate_country_database_once() -> None:
    """Validate the shipped country database for all children."""
    from app.outbound import maxmind_geo

    validate, known = maxmind_geo.validate, dict[bytes, Any]()

    def validate_unknown(content: bytes, metadata: object) -> Any:
        if content not in known:
            known[content] = validate(content, metadata)
        return known[content]

    maxmind_geo.validate = validate_unknown
    maxmind_geo.MaxmindGeo()


if __name__ == "__main__":
    from gevent import events, monkey

    events.notify_and_call_entry_points = events.notify
    monkey.patch_all()
    sys.path.insert(0, str(ROOT))
    from app.cli import main

    for module in ("app.commands.serve", "app.admin.application"):
        importlib.import_module(module)
    validate_country_database_once()
    gc.collect()
    gc.freeze()  # or the full collection of each start would visit all modules

    serve_forks(monkey.get_original("socket", "socket")(fileno=int(sys.argv[1])))
    main(prog_name="python -m app")
