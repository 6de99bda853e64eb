"""Runs exabgp beside the edge and restarts it when it ends. Without a configuration it idles.

honcho ends all processes when the first one of the Procfile has ended, so this one must end last: on SIGTERM it stops
exabgp, which withdraws the prefixes, and waits until the edge has drained.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import click
import gevent
from gevent.event import Event

from app.config import Config, variable
from app.outbound.honcho_process import is_started_by_honcho
from app.outbound.unix_drain_notice import wait_for_drain

WITHDRAWN_SECONDS: Final = 3.0
"""Time until routers have removed a withdrawn prefix; see app/wire/exabgp_conf.py."""
_MIN_PAUSE_SECONDS: Final = 1.0
_MAX_PAUSE_SECONDS: Final = 60.0
_STEADY_SECONDS: Final = 60.0
"""After a run of this length, the pause before a restart is reset."""


class Announcer:
    """Runs exabgp for the edge with the same configuration."""

    def __init__(self, config: Config) -> None:
        self._exabgp_config = config.bgp_config
        self._metrics_port = config.metrics_listen_addr.port
        self._withdraw_seconds = config.drain_withdraw_secs
        self._stopping = Event()
        self._stop_now = Event()

    def run(self) -> None:
        """Run until SIGTERM or SIGINT and then until the edge has ended. A second signal ends at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            gevent.signal_handler(number, self._on_signal)
        if self._exabgp_config is None:
            if not is_started_by_honcho(os.environ):  # the Procfile starts it on every machine
                _report(f"idle: {variable('bgp_config')} is not set (`python -m app mesh bgp` prints a configuration)")
            while not self._stopping.wait(_MAX_PAUSE_SECONDS):
                pass  # with only a signal to wait for, gevent raises LoopExit
        else:
            if self._withdraw_seconds < WITHDRAWN_SECONDS:
                name = variable("drain_withdraw_secs")
                _report(f"{name} is below {WITHDRAWN_SECONDS:g}: listeners may close while routes still lead to them")
            self._keep_running(self._exabgp_config.absolute())
        wait_for_drain(self._metrics_port, self._stop_now.wait)

    def _on_signal(self) -> None:
        (self._stop_now if self._stopping.is_set() else self._stopping).set()

    def _keep_running(self, config: Path) -> None:
        pause = _MIN_PAUSE_SECONDS
        while not self._stopping.is_set():
            exabgp = _start(config)
            ended = gevent.spawn(exabgp.wait)
            with gevent.Timeout(_STEADY_SECONDS, False):
                gevent.wait([self._stopping, ended], count=1)
            if not self._stopping.is_set() and not ended.ready():
                pause = _MIN_PAUSE_SECONDS
                gevent.wait([self._stopping, ended], count=1)
            if self._stopping.is_set():
                _end(exabgp)
                return
            _report(f"exabgp ended with exit code {exabgp.returncode}; restarting it in {pause:g} s")
            self._stopping.wait(pause)
            pause = min(pause * 2, _MAX_PAUSE_SECONDS)


def _start(config: Path) -> subprocess.Popen[bytes]:
    """Start the exabgp of this interpreter, with PATH set so that its healthcheck finds it.

    The named pipes of its command line are off, because with them the healthcheck would act as a command line.
    """
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    return subprocess.Popen(
        [sys.executable, "-m", "exabgp", "server", str(config)],
        stdin=subprocess.DEVNULL,
        env=os.environ | {"PATH": path, "exabgp_api_cli": "false", "exabgp_log_statistics": "false"},
    )


def _end(exabgp: subprocess.Popen[bytes]) -> None:
    """End exabgp, which may have received the signal already."""
    exabgp.terminate()
    try:
        exabgp.wait(timeout=3)
    except subprocess.TimeoutExpired:
        exabgp.kill()
        exabgp.wait()


def _report(message: str) -> None:
    click.echo(message)  # honcho prepends the time and the name of the process
    sys.stdout.flush()
