"""The process that announces: runs exabgp beside the edge and again when it ends; without a configuration it idles.

honcho ends everything five seconds after the first process of the Procfile has ended, so this one ends last: when told
to it ends exabgp, which withdraws everything, and goes on until the edge's metrics listener (closed last) is gone.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import gevent
from gevent.event import Event

from app.config import Config, variable

WITHDRAWN_SECONDS: Final = 3.0
"""After so long a prefix is gone from the routers; see app/wire/exabgp_conf.py."""
_MARGIN_SECONDS: Final = 5.0
_SHORTEST_PAUSE_SECONDS: Final = 1.0
_LONGEST_PAUSE_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 60.0
"""Of an exabgp that has run for so long, the next end is the first again."""


class Announcer:
    """Runs exabgp by the configuration's say, for the edge that has the same configuration."""

    def __init__(self, config: Config) -> None:
        self._exabgp_config = config.bgp_config
        self._edge = config.metrics_listen_addr
        self._withdraw_seconds = config.drain_withdraw_secs
        self._drain_seconds = config.drain_withdraw_secs + config.drain_timeout_secs
        self._told = Event()
        self._told_again = Event()

    def run(self) -> None:
        """Return when told to end, by SIGTERM or SIGINT, and the edge has ended; a second signal ends at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._tell)
        if self._exabgp_config is None:
            _say(f"idle: {variable('bgp_config')} is not set (python -m app mesh bgp prints a configuration)")
            while not self._told.wait(_LONGEST_PAUSE_SECONDS):
                pass  # gevent ends a program that waits for a signal and nothing else: LoopExit
        else:
            if self._withdraw_seconds < WITHDRAWN_SECONDS:
                name = variable("drain_withdraw_secs")
                _say(f"{name} is below {WITHDRAWN_SECONDS:g}: doors may close while routes still lead to them")
            self._keep_running(self._exabgp_config.absolute())
        self._outlive_the_edge()

    def _tell(self) -> None:
        (self._told_again if self._told.is_set() else self._told).set()

    def _keep_running(self, config: Path) -> None:
        pause = _SHORTEST_PAUSE_SECONDS
        while not self._told.is_set():
            exabgp = _start(config)
            ended = gevent.spawn(exabgp.wait)
            with gevent.Timeout(_STEADY_SECONDS, False):
                gevent.wait([self._told, ended], count=1)
            if not self._told.is_set() and not ended.ready():
                pause = _SHORTEST_PAUSE_SECONDS
                gevent.wait([self._told, ended], count=1)
            if self._told.is_set():
                _end(exabgp)
                return
            _say(f"exabgp ended with {exabgp.returncode}; starting it again in {pause:g} s")
            self._told.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)

    def _outlive_the_edge(self) -> None:
        with gevent.Timeout(self._drain_seconds + _MARGIN_SECONDS, False):
            while self._edge_is_up() and not self._told_again.wait(0.1):
                pass

    def _edge_is_up(self) -> bool:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._edge.host, self._edge.host)
        try:
            socket.create_connection((host, self._edge.port), timeout=1).close()
        except TimeoutError:
            return True
        except OSError:
            return False
        return True


def _start(config: Path) -> subprocess.Popen[bytes]:
    """Start exabgp, this interpreter's own: its healthcheck finds it by PATH.

    Without its named pipes for a command line, which would turn the healthcheck into that.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.Popen(
        [sys.executable, "-m", "exabgp", "server", str(config)],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PATH": path, "exabgp_api_cli": "false", "exabgp_log_statistics": "false"},
    )


def _end(exabgp: subprocess.Popen[bytes]) -> None:
    """End exabgp, which may have got the signal itself."""
    exabgp.terminate()
    try:
        exabgp.wait(timeout=3)
    except subprocess.TimeoutExpired:
        exabgp.kill()
        exabgp.wait()


def _say(message: str) -> None:
    click.echo(message)  # honcho puts the time and the process's name before it
    sys.stdout.flush()
