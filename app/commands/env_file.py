"""Reads the file of variables, `.env` in the working directory, as honcho does.

honcho overlays the environment with this file, and so do the commands, so that a command outside honcho has the
configuration of the edge that honcho runs. A process started by honcho reads no file: honcho has already set the
variables, possibly from another file (`honcho -e FILE`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
from honcho.environ import parse
from loguru import logger

from app.commands.output import fail
from app.config import PREFIX, ConfigError, Settings, variable
from app.outbound.honcho_process import is_started_by_honcho

_DEFAULT: Final[Path] = Settings.model_fields["env_file"].default


@dataclass(frozen=True)
class EnvFile:
    """A file of variables. `overridden` names those to which the environment gave another value."""

    path: Path
    variables: Mapping[str, str]
    lines: Mapping[str, int]
    """The line of each variable, from 1."""
    overridden: tuple[str, ...]

    def __str__(self) -> str:
        overriding = f", overriding {', '.join(self.overridden)} of the environment" if self.overridden else ""
        return f"variables from {self.path}{overriding}"

    def locate(self, fault: str) -> str:
        """Prefix a fault of the configuration with the path, if its variable comes from this file."""
        name = re.match(r"\w*", fault)
        return f"{self.path}: {fault}" if name and name[0] in self.variables else fault


def read_env_file(environment: Mapping[str, str]) -> EnvFile | None:
    """Read the file that the environment names, else `.env` if there is one. Raises ConfigError naming every fault.

    A folder named `.env` is ignored, as honcho ignores it.
    """
    name = environment.get(variable("env_file"), "" if is_started_by_honcho(environment) else None)
    if name is not None and not name.strip():
        return None
    path = (_DEFAULT if name is None else Path(name)).absolute()
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        if name is None and isinstance(error, FileNotFoundError | IsADirectoryError):
            return None
        raise ConfigError([f"{path}: {error.strerror}"]) from None
    except UnicodeDecodeError:
        raise ConfigError([f"{path}: is not UTF-8"]) from None
    variables, lines = _variables(text, path)
    overridden = [name for name, value in variables.items() if environment.get(name, value) != value]
    return EnvFile(path, variables, lines, tuple(overridden))


def _variables(text: str, path: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Parse the lines like honcho, which ignores invalid lines. With a variable of ours, such a line is a fault.

    Returns the values and the lines of the variables.
    """
    variables, lines, faults = dict[str, str](), dict[str, int](), list[str]()
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            found = parse(line)
        except ValueError as error:
            faults.append(f"{path}: line {number}: {error}")
            continue
        if "\0" in line:
            faults.append(f"{path}: line {number}: contains a NUL character")
        elif not found and PREFIX in line.partition("#")[0]:
            faults.append(f'{path}: line {number}: is not NAME=value (an empty value is written NAME="")')
        variables |= found
        lines |= dict.fromkeys(found, number)
    if faults:
        raise ConfigError(faults)
    return variables, lines


def apply_env_file(*, is_logged: bool = False) -> EnvFile | None:
    """Overlay the environment with the file, and print its path unless `is_logged`. Exits with 2."""
    try:
        file = read_env_file(os.environ)
    except ConfigError as error:
        fail("edgeproxy", *error.faults)
    if file is not None:
        os.environ.update(file.variables)
        if not is_logged:
            click.echo(f"edgeproxy: {file}", err=True)
    return file


def applied_env_file() -> EnvFile | None:
    """Return the file that this command has applied, or None."""
    return click.get_current_context().find_object(EnvFile)


def log_env_file() -> None:
    """Log which file was applied, if any."""
    file = applied_env_file()
    if file is not None:
        logger.bind(env_file=str(file.path)).info("{}", file)
