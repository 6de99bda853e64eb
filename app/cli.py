"""The command line: which commands there are. `python -m app --help` lists them."""

from __future__ import annotations

from importlib import import_module
from typing import Final

import click

from app.commands.env_file import apply_env_file

COMMANDS: Final = {
    "serve": "serve",
    "check": "check",
    "schema": "check",
    "explain": "explain",
    "simulate": "simulate",
    "backends": "backends",
    "endpoints": "endpoints",
    "services": "services",
    "tokens": "tokens",
    "handler": "handlers",
    "register": "register",
    "replicate": "replicate",
    "mesh": "mesh",
}
"""Which module of app.commands has which command."""

_LOGGING: Final = ("serve", "replicate")
"""Commands whose log names the file of variables; standard error may be that log."""


class _Commands(click.Group):
    """Imports the command that was asked for, and no other: the edge's own imports take half a second."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"app.commands.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(found, click.Command)
        return found


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.pass_context
def main(context: click.Context) -> None:
    """A geo-aware, sticky TCP and HTTP proxy. Configured by EDGEPROXY_ variables and a YAML file.

    Every command reads variables from .env in the working directory, as honcho does: they override those of the
    environment. EDGEPROXY_ENV_FILE names another file; if it is empty, no file is read.
    """
    context.obj = apply_env_file(is_logged=context.invoked_subcommand in _LOGGING)
