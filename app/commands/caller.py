"""Calls of commands to the admin API of an edge: options for URL, token and CA, and error messages."""

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
"""Statuses for wrong arguments: the same call will fail again."""


def api_options(command: F) -> F:
    """Add the options for the URL, the token and the CA of the edge."""
    for option in (
        click.option(
            "--ca-file",
            type=click.Path(path_type=Path, dir_okay=False, exists=True),
            envvar=variable("api_ca_file"),
            help=f"CA certificates to trust, PEM [default: {variable('api_ca_file')}, else those of the system].",
        ),
        click.option(
            "--token-file",
            type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
            help="File with the token, - is standard input "
            f"[default: {variable('api_token')}, else the file {variable('admin_token_file')}, else admin.token].",
        ),
        click.option(
            "--api",
            "url",
            metavar="URL",
            envvar=variable("api_url"),
            help=f"URL of the edge [default: {variable('api_url')}, else {DEFAULT_URL}].",
        ),
    ):
        command = option(command)
    return command


def admin_token_file() -> Path:
    """Return the file to which an edge writes its first token."""
    return Path(os.environ.get(variable("admin_token_file")) or Settings.model_fields["admin_token_file"].default)


class Caller:
    """Calls an edge. On errors, prints a message that begins with the name of the command, and exits."""

    def __init__(self, commands: str, url: str | None, token_file: Path | None, ca_file: Path | None) -> None:
        self._commands = commands
        self.url = url or DEFAULT_URL
        self._token_file = token_file
        self.ca_file = ca_file

    @cached_property
    def api(self) -> AdminApi:
        """The API, created on first use, because `--help` needs no token. Exits with 2."""
        try:
            return AdminApi(self.url, self._token(), self.ca_file)
        except ValueError as error:
            self.fail(f"{self.url!r} is not the URL of an edge: {error}")
        except OSError as error:
            self.fail(f"{self.ca_file}: {error.strerror or error}")

    def call(self, method: str, path: str, body: object = None, query: Mapping[str, object] | None = None) -> Any:
        """Send a request. Returns the JSON of the response, None without a body. Exits if the edge refuses or fails."""
        try:
            return self.api.call(method, path, body, query)
        except ApiError as error:
            fail_with(self._commands, error)

    def read(self, file: TextIO) -> str:
        """Return the content of a file argument. Exits with 2."""
        try:
            return file.read()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"the file cannot be read: {error}")

    def fail(self, *lines: str) -> NoReturn:
        """Print what is wrong with the arguments, and exit with 2."""
        fail(self._commands, *lines)

    def token_or_file(self) -> str | Path:
        """Return the token or, so that it can be read again, its file. Exits with 2.

        The default file may be absent, because the first start of an edge writes it.
        """
        file = self._token_path()
        if file is None or str(file) == "-":
            return self._token()
        if self._token_file is not None or file.exists():
            self._token()
        return file

    def _token(self) -> str:
        """Return the token; --token-file overrides the environment. Exits with 2."""
        file = self._token_path()
        if file is None:
            source, text = variable("api_token"), os.environ[variable("api_token")]
        else:
            source, text = self._read_token(file)
        token = text.strip()
        if not is_token(token):
            self.fail(f"{source} does not contain a token")
        return token

    def _token_path(self) -> Path | None:
        """Return the file of the token: the option, else None if the environment has a token, else the edge's file."""
        if self._token_file is not None:
            return self._token_file
        if os.environ.get(variable("api_token")):
            return None
        return admin_token_file()

    def _read_token(self, file: Path) -> tuple[str, str]:
        try:
            return str(file), sys.stdin.read() if str(file) == "-" else file.read_text()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            self.fail(f"cannot read the token: {file}: {reason}; set --token-file or {variable('api_token')}")


def fail_with(commands: str, error: ApiError) -> NoReturn:
    """Print the error of a call, one line per fault, and exit."""
    number = f" ({error.status})" if error.status is not None else ""
    if "\n" in error.detail:  # a traceback: its last line is among the faults
        click.echo(error.detail.rstrip("\n"), err=True)
        lines = []
    else:
        lines = [f"{error.detail}{number}"]
    lines += [f"{where}: {rule}" for where, rule in error.faults]
    fail(commands, *lines, code=exit_code(error))


def exit_code(error: ApiError) -> int:
    """Return the exit code for an error of the API."""
    return EXIT_WRONG if error.status in _WRONG_STATUSES else EXIT_FAILED
