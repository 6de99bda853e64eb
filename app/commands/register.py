"""The command that registers a service: it runs it, waits until it answers, and says so until it ends.

In this order: the program is started, its port answers, it is registered, and renewed; then, told to end, it is
drained, ended, and deregistered. A program that ends by itself is deregistered at once.
"""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import click
import gevent
from gevent.event import Event
from loguru import logger

from app.commands.caller import Caller, api_options, exit_code
from app.commands.output import EXIT_FAILED
from app.domain.model import BadBackend
from app.domain.registration import DEFAULT_TTL_SECONDS, MAX_TTL_SECONDS, MIN_TTL_SECONDS
from app.outbound.child_process import ChildProcess
from app.registration.client import DEFAULT_DRAIN_SECONDS, DEFAULT_HOST, RegistrationClient

COMMAND: Final = "register"
DEFAULT_START_SECONDS: Final = 60.0
END_SECONDS: Final = 10.0
"""For the program to end after it was told to; then it is killed."""
_LOOK_SECONDS: Final = 0.05
_CONNECT_SECONDS: Final = 1.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_FORWARDED: Final = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_OPTIONS: Final = {"id": "--id", "wg_ip": "--host", "soft_limit": "--soft-limit", "hard_limit": "--hard-limit"}
"""What columns are called here, where it is not their name."""


def service_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe the service; they arrive as keyword arguments of Registration."""
    for option in (
        click.option("--hard-limit", type=int, help="Most connections [default: no limit]"),
        click.option("--soft-limit", type=int, help="Comfortable number of connections [default: 100]"),
        click.option("--weight", type=int, help="Share of the clients [default: 1]"),
        click.option("--country", help="ISO 3166-1 alpha-2."),
        click.option("--region", help="Such as sa, us, eu."),
        click.option("--id", help="Names it, this service alone [default: app, host name and port, with - between]"),
        click.option("--host", default=DEFAULT_HOST, show_default=True, help="Its address, as the edges reach it."),
        click.option("--port", type=click.IntRange(1, 65535), required=True, help="Where it listens."),
        click.option("--app", help="Pools take the backends of one app."),
    ):
        command = option(command)
    return command


@click.command(context_settings={"allow_interspersed_args": False})
@service_options
@click.option(
    "--ttl",
    "ttl_seconds",
    type=click.IntRange(MIN_TTL_SECONDS, MAX_TTL_SECONDS),
    default=DEFAULT_TTL_SECONDS,
    show_default=True,
    help="Seconds until the edge gives up one that says nothing; three times in that it is told.",
)
@click.option(
    "--start-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_START_SECONDS,
    show_default=True,
    help="For the port to answer.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_DRAIN_SECONDS,
    show_default=True,
    help="Between the last new connection and the end.",
)
@api_options
@click.argument("command", nargs=-1, type=click.UNPROCESSED, metavar="[-- COMMAND...]")
def register(
    command: tuple[str, ...],
    start_seconds: float,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
    **service: Any,
) -> None:
    """Run COMMAND, register it as a backend at the edge once it answers, and keep it registered until it ends.

    SIGTERM and SIGINT drain it first; a second one ends it at once. Its exit code is ours. Without COMMAND what runs
    already is registered, for as long as it answers.
    """
    caller = Caller(COMMAND, url, token_file, ca_file)
    address = service["host"], service["port"]
    logger.remove()
    logger.add(sys.stderr, format=f"{COMMAND}: {{message}}", backtrace=False, diagnose=False)
    run = _Run(address, start_seconds)
    try:
        token = caller.token_or_file()
        run.registration = RegistrationClient(
            **service,
            url=caller.url,
            token=token,
            ca_file=ca_file,
            is_there=(lambda: True) if command else (lambda: not isinstance(_connect(address), ConnectionRefusedError)),
            on_refusal=lambda _error: run.end_soon(),
        )
    except BadBackend as bad:
        caller.fail(*(f"{_OPTIONS.get(f.column, f'--{f.column}')} {f.value!r}: {f.rule}" for f in bad.faults))
    except ValueError as error:
        caller.fail(f"{caller.url!r} is no URL of an edge: {error}")
    except OSError as error:
        caller.fail(f"{ca_file}: {error.strerror or error}")
    if command:
        try:
            run.child = ChildProcess(command)
        except OSError as error:
            caller.fail(f"{command[0]}: {error.strerror or error}")
    sys.exit(run())


def _connect(address: tuple[str, int]) -> OSError | None:
    """Connect and close; returns what went wrong."""
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


class _Run:
    """One run of the command: the program, if there is one, and its registration."""

    registration: RegistrationClient

    def __init__(self, address: tuple[str, int], start_seconds: float) -> None:
        self._address = address
        self._start_seconds = start_seconds
        self.child: ChildProcess | None = None
        self._child_has_ended = Event()
        self._is_over = Event()
        """We were told to end, or cannot go on."""
        self._signal: int = signal.SIGTERM
        """What the program is ended with."""
        self._is_ending_child = False

    def __call__(self) -> int:
        """Do it all; returns the exit code."""
        for number in _ENDING:
            gevent.signal_handler(number, self._told_to_end, number)
        if self.child is not None:
            for number in _FORWARDED:
                gevent.signal_handler(number, self.child.signal, number)
            gevent.spawn(self._await_child, self.child)
        failure = self._serve()
        code = self._end_child()
        self.registration.end()
        return code if failure is None else failure

    def end_soon(self) -> None:
        """Wait for nothing any more."""
        self.registration.hurry()
        self._is_over.set()

    def _told_to_end(self, number: int) -> None:
        if not self._is_over.is_set():
            self._signal = number
            self._is_over.set()
            return
        self.registration.hurry()
        if self._is_ending_child and self.child is not None:
            self.child.signal(number)

    def _await_child(self, child: ChildProcess) -> None:
        child.wait()
        self._child_has_ended.set()
        self.end_soon()

    def _serve(self) -> int | None:
        """Register, renew and drain; returns the exit code where the program's own does not count."""
        if not self._await_port():
            return EXIT_FAILED
        if self._is_over.is_set():
            return None
        self.registration.start()
        self._is_over.wait()
        if self.registration.refusal is not None:
            return exit_code(self.registration.refusal)
        self.registration.drain()  # the end of the program cuts it short
        return None

    def _await_port(self) -> bool:
        """Wait until the service answers, or it is over; False when it took too long."""
        give_up_at = time.monotonic() + self._start_seconds
        while not self._is_over.is_set():
            error = _connect(self._address)
            if error is None:
                return True
            if time.monotonic() > give_up_at:
                host, port = self._address
                reason = error.strerror or error
                logger.error("port {} of {} does not answer after {:g} s: {}", port, host, self._start_seconds, reason)
                return False
            self._is_over.wait(_LOOK_SECONDS)
        return True

    def _end_child(self) -> int:
        """End the program, if it has not done so; returns its exit code."""
        if self.child is None:
            return 0
        self._is_ending_child = True
        self.child.signal(self._signal)
        if not self._child_has_ended.wait(END_SECONDS):
            logger.warning("the program did not end in {:g} s and is killed", END_SECONDS)
            self.child.signal(signal.SIGKILL)
        return self.child.wait()
