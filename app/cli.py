"""The command line: which commands there are. `python -m app --help` lists them."""

from __future__ import annotations

import ast
import platform
from importlib import import_module
from pathlib import Path
from typing import Final

import click

VERSION: Final = "0.1.0"

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
"""Which module of app.commands has which command, as a function of that name."""

_LOGGING: Final = ("serve", "replicate")
"""Commands whose log names the file of variables; standard error may be that log."""


class _Commands(click.Group):
    """Imports the command that was asked for, and no other: all of them together take seconds."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"app.commands.{COMMANDS[cmd_name]}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands as click does, with their docstrings read and nothing imported."""
        width = formatter.width - 6 - max(map(len, COMMANDS))
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, click.Command(name, help=_docstring(name)).get_short_help_str(width)) for name in COMMANDS]
            )


def _docstring(command: str) -> str | None:
    source = Path(__file__).with_name("commands") / f"{COMMANDS[command]}.py"
    functions = [one for one in ast.parse(source.read_bytes()).body if isinstance(one, ast.FunctionDef)]
    return next((ast.get_docstring(one) for one in functions if one.name == command), None)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message=f"edgeproxy %(version)s, Python {platform.python_version()}")
@click.pass_context
def main(context: click.Context) -> None:
    """A geo-aware, sticky TCP and HTTP proxy. Configured by EDGEPROXY_ variables and a YAML file.

    Every command reads variables from .env in the working directory, as honcho does: they override those of the
    environment. EDGEPROXY_ENV_FILE names another file; if it is empty, no file is read.
    """
    # The configuration and what validates it take half a second to import, which --help and --version do not need.
    from app.commands.env_file import apply_env_file  # noqa: PLC0415

    context.obj = apply_env_file(is_logged=context.invoked_subcommand in _LOGGING)
