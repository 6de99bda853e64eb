"""The command line and the scripts: as processes, as a user runs them, or in this process, which takes no second."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from app.cli import main
from app.domain.model import parse_backend
from app.outbound.peewee_backends import SqliteBackendStore
from tests.harness import ROOT

DEFAULTS = {"ENV_FILE": "", "ADMIN_LISTEN_ADDR": ""}
Done = subprocess.CompletedProcess[str]


def commands_of(group: click.Command) -> dict[str, click.Command]:
    """Return a group's commands by name."""
    if not isinstance(group, click.Group):
        return {}
    context = click.Context(group)
    found = {name: group.get_command(context, name) for name in group.list_commands(context)}
    return {name: command for name, command in found.items() if command is not None}


def clean_environment(**variables: str) -> dict[str, str]:
    """Return this process's environment with these EDGEPROXY_ variables alone, no `.env`, no admin API."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("EDGEPROXY_")}
    return kept | {f"EDGEPROXY_{name}": text for name, text in {**DEFAULTS, **variables}.items()}


def run(command: list[str], stdin: str = "", cwd: Path = ROOT, **variables: str) -> Done:
    """Run a command to its end; `variables` go into its environment with the prefix."""
    return subprocess.run(
        command,
        check=False,
        input=stdin,
        cwd=cwd,
        env=clean_environment(**variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def edgeproxy(*arguments: object, stdin: str = "", **variables: str) -> Done:
    """Run `python -m app …`."""
    return run([sys.executable, "-m", "app", *map(str, arguments)], stdin, **variables)


def command(*arguments: object, stdin: str = "", **variables: str) -> Done:
    """Do what `edgeproxy` does for a command that ends by itself, in this process."""
    runner = CliRunner(env={f"EDGEPROXY_{name}": text for name, text in {"ENV_FILE": "", **variables}.items()})
    texts = [str(argument) for argument in arguments]
    environment = dict(os.environ)
    try:
        result = runner.invoke(main, texts, input=stdin.encode())
    finally:  # without the variables of an .env file, which a command adds
        os.environ.clear()
        os.environ.update(environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Done(texts, result.exit_code, result.stdout, result.stderr)


def backends(database: Path, *arguments: object, stdin: str = "") -> Done:
    """Run `python -m app backends …` on a database, in this process."""
    return command("backends", "--db", database, *arguments, stdin=stdin)


def save(database: Path, rows: list[dict[str, Any]]) -> None:
    """Make the database hold exactly these rows, as the seeding script does it."""
    with SqliteBackendStore(database) as store:
        store.save(map(parse_backend, rows), replaces_all=True)
