"""How a command gets to an edge: the options that say where it is and who asks, and the words for what went wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NoReturn, TextIO, TypeVar

import click

from app.commands.output import EXIT_FAILED, EXIT_WRONG, fail
from app.config import Settings, variable
from app.outbound.admin_api import DEFAULT_URL, AdminApi, ApiError, is_token

F = TypeVar("F", bound=Callable[..., Any])

_WRONG_STATUSES: Final = (400, 404, 413, 415, 422)
"""What was given is wrong, and will be wrong the next time too."""


def api_options(command: F) -> F:
    """Add the options that say which edge to ask and as whom."""
    for option in (
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            envvar=variable("api_ca_file"),
            help=f"PEM of who certified the edge [{variable('api_ca_file')}, else the system's]",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
            help="Holds the token, - is standard input "
            f"[else {variable('api_token')} is the token, else {variable('admin_token_file')}, admin.token]",
        ),
        click.option(
            "--api", "url", metavar="URL", envvar=variable("api_url"), help=f"The edge [{variable('api_url')}]"
        ),
    ):
        command = option(command)
    return command


class Caller:
    """A way to an edge that says what goes wrong under the name of the commands, and exits."""

    def __init__(self, commands: str, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
        self._commands = commands
        self.url = url or DEFAULT_URL
        self._token_file = token_file
        self.ca_file = ca_file

    @cached_property
    def api(self) -> AdminApi:
        """The API; made when it is needed, because `--help` needs no token. Exits with 2."""
        try:
            return AdminApi(self.url, self._token(), self.ca_file)
        except ValueError as error:
            self.fail(f"{self.url!r} is no URL of an edge: {error}")
        except OSError as error:
            self.fail(f"{self.ca_file}: {error.strerror or error}")

    def call(self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None) -> Any:
        """Carry out a request; returns its JSON, None where it has none. Exits when the edge does not do it."""
        try:
            return self.api.call(method, path, body, query)
        except ApiError as error:
            fail_with(self._commands, error)

    def read(self, file: TextIO) -> str:
        """Return what a file that was given holds. Exits with 2."""
        try:
            return file.read()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"the file cannot be read: {error}")

    def fail(self, *lines: str) -> NoReturn:
        """Say what is wrong with what was given, and exit with 2."""
        fail(self._commands, *lines)

    def token_or_file(self) -> str | Path:
        """Return the token, or the file that holds it for as long as it does. Exits with 2.

        The edge's own file need not be there yet: the first start of an edge writes it.
        """
        file = self._file_of_token()
        if file is None or str(file) == "-":
            return self._token()
        if self._token_file is not None or file.exists():
            self._token()
        return file

    def _token(self) -> str:
        """Return the token that was given, the option before the environment. Exits with 2."""
        file = self._file_of_token()
        if file is None:
            source, text = variable("api_token"), os.environ[variable("api_token")]
        else:
            source, text = self._read_token(file)
        token = text.strip()
        if not is_token(token):
            self.fail(f"{source} holds no token")
        return token

    def _file_of_token(self) -> Path | None:
        """Return the file that was given, else the edge's own; None: the environment has a token itself."""
        if self._token_file is not None:
            return self._token_file
        if os.environ.get(variable("api_token")):
            return None
        default = os.environ.get(variable("admin_token_file")) or Settings.model_fields["admin_token_file"].default
        return Path(default)

    def _read_token(self, file: Path) -> tuple[str, str]:
        try:
            return str(file), sys.stdin.read() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is no text"
            self.fail(f"no token: {file}: {reason} (--token-file, or {variable('api_token')})")


def fail_with(commands: str, error: ApiError) -> NoReturn:
    """Say why an edge did not do it, every fault a line, and exit."""
    number = f" ({error.status})" if error.status is not None else ""
    if "\n" in error.detail:  # a traceback: its last line is among the faults
        click.echo(error.detail.rstrip("\n"), err=True)
        lines = []
    else:
        lines = [f"{error.detail}{number}"]
    lines += [f"{where}: {rule}" for where, rule in error.faults]
    fail(commands, *lines, code=exit_code(error))


def exit_code(error: ApiError) -> int:
    """Return what a command exits with that an edge refused."""
    return EXIT_WRONG if error.status in _WRONG_STATUSES else EXIT_FAILED
