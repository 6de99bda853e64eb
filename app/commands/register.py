"""The command `register`: runs a service and keeps it registered at the edge.

It starts the program, waits until its port accepts connections, registers it and renews the registration. On SIGTERM or
SIGINT it drains the service, ends the program, and deregisters. A program that ends by itself is deregistered at once.
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
"""Time for the program to end after the signal; then it is killed."""
_POLL_SECONDS: Final = 0.05
_CONNECT_SECONDS: Final = 1.0
_ENDING: Final = (signal.SIGTERM, signal.SIGINT)
_FORWARDED: Final = (signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)
_OPTIONS: Final = {"id": "--id", "wg_ip": "--host", "soft_limit": "--soft-limit", "hard_limit": "--hard-limit"}
"""Options of columns with another name."""


def service_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that describe the service. They arrive as keyword arguments of RegistrationClient."""
    for option in (
        click.option("--hard-limit", type=int, help="Largest number of connections [default: no limit]."),
        click.option(
            "--soft-limit", type=int, help="Number of connections at which it counts as fully loaded [default: 100]."
        ),
        click.option("--weight", type=int, help="Relative share of the clients [default: 1]."),
        click.option("--country", help="Country, ISO 3166-1 alpha-2."),
        click.option("--region", help="Region, such as sa, us, eu."),
        click.option("--id", help="Unique id of the service [default: app, host name and port, joined by -]."),
        click.option("--host", default=DEFAULT_HOST, show_default=True, help="Address at which edges reach it."),
        click.option("--port", type=click.IntRange(1, 65535), required=True, help="Port on which it listens."),
        click.option("--app", help="App to which it belongs, by which pools select backends."),
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
    help="Seconds after which the registration expires; it is renewed three times as often.",
)
@click.option(
    "--start-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_START_SECONDS,
    show_default=True,
    help="Time for the port to accept connections.",
)
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=DEFAULT_DRAIN_SECONDS,
    show_default=True,
    help="Time between draining and ending the program.",
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
    """Run COMMAND, register it as a backend at the edge once its port is open, and keep it registered until it ends.

    SIGTERM and SIGINT drain it before it ends; a second signal ends it at once. Exits with its exit code. Without
    COMMAND, register a running service for as long as its port is open.
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
            is_serving=(lambda: True)
            if command
            else (lambda: not isinstance(_connect(address), ConnectionRefusedError)),
            on_refusal=lambda _error: run.stop(),
        )
    except BadBackend as bad:
        caller.fail(*(f"{_OPTIONS.get(f.column, f'--{f.column}')} {f.value!r}: {f.rule}" for f in bad.faults))
    except ValueError as error:
        caller.fail(f"{caller.url!r} is not the URL of an edge: {error}")
    except OSError as error:
        caller.fail(f"{ca_file}: {error.strerror or error}")
    if command:
        try:
            run.child = ChildProcess(command)
        except OSError as error:
            caller.fail(f"{command[0]}: {error.strerror or error}")
    sys.exit(run())


def _connect(address: tuple[str, int]) -> OSError | None:
    """Connect and close. Returns the error, or None."""
    try:
        socket.create_connection(address, _CONNECT_SECONDS).close()
    except OSError as error:
        return error
    return None


class _Run:
    """One run of the command: the registration and, if given, the program."""

    registration: RegistrationClient

    def __init__(self, address: tuple[str, int], start_seconds: float) -> None:
        self._address = address
        self._start_seconds = start_seconds
        self.child: ChildProcess | None = None
        self._child_has_ended = Event()
        self._is_over = Event()
        """Set on a signal, a refusal, or the end of the program."""
        self._signal: int = signal.SIGTERM
        """The signal that ends the program."""
        self._is_ending_child = False

    def __call__(self) -> int:
        """Run until the end. Returns the exit code."""
        for number in _ENDING:
            gevent.signal_handler(number, self._on_signal, number)
        if self.child is not None:
            for number in _FORWARDED:
                gevent.signal_handler(number, self.child.signal, number)
            gevent.spawn(self._await_child, self.child)
        failure = self._serve()
        code = self._end_child()
        self.registration.end()
        return code if failure is None else failure

    def stop(self) -> None:
        """Stop without waiting."""
        self.registration.skip_waiting()
        self._is_over.set()

    def _on_signal(self, number: int) -> None:
        if not self._is_over.is_set():
            self._signal = number
            self._is_over.set()
            return
        self.registration.skip_waiting()
        if self._is_ending_child and self.child is not None:
            self.child.signal(number)

    def _await_child(self, child: ChildProcess) -> None:
        child.wait()
        self._child_has_ended.set()
        self.stop()

    def _serve(self) -> int | None:
        """Register, renew and drain. Returns the exit code if it is not that of the program."""
        if not self._await_port():
            return EXIT_FAILED
        if self._is_over.is_set():
            return None
        self.registration.start()
        self._is_over.wait()
        if self.registration.refusal is not None:
            return exit_code(self.registration.refusal)
        self.registration.drain()  # ends early if the program ends
        return None

    def _await_port(self) -> bool:
        """Wait until the port is open or the run is over. Returns False after `start_seconds`."""
        give_up_at = time.monotonic() + self._start_seconds
        while not self._is_over.is_set():
            error = _connect(self._address)
            if error is None:
                return True
            if time.monotonic() > give_up_at:
                host, port = self._address
                reason = error.strerror or error
                logger.error("port {} of {} is not open after {:g} s: {}", port, host, self._start_seconds, reason)
                return False
            self._is_over.wait(_POLL_SECONDS)
        return True

    def _end_child(self) -> int:
        """End the program if it is running. Returns its exit code."""
        if self.child is None:
            return 0
        self._is_ending_child = True
        self.child.signal(self._signal)
        if not self._child_has_ended.wait(END_SECONDS):
            logger.warning("the program did not end within {:g} s and is killed", END_SECONDS)
            self.child.signal(signal.SIGKILL)
        return self.child.wait()
