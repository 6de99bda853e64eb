"""The output of commands: tables for people, JSON for programs, and error messages.

Exit codes: 2 for wrong input (an option, a file, a name, a setting), 1 for other failures.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final, NoReturn

import click
from rich.console import Console
from rich.table import Table

EXIT_FAILED: Final = 1
EXIT_WRONG: Final = 2
WIDTH_WITHOUT_TERMINAL: Final = 220

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """Print JSON, nothing for None. Bytes, which a table may contain, are hexadecimal."""
    if value is not None:
        click.echo(json.dumps(value, indent=2, default=bytes.hex))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table, with one line per row unless the output is a terminal. None is an empty cell."""
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(shown, row))
    console().print(table)


def console() -> Console:
    """Return a console that does not wrap tables unless the output is a terminal."""
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    return Console(width=width, markup=False, emoji=False, highlight=False)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print an object, one field per line."""
    print_table(("field", "value"), fields)


def shown(value: object) -> str:
    """Format a value for people. Escapes control characters, which could manipulate the terminal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    text = f"{value:.15g}" if isinstance(value, float) else str(value)
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode() for one in text
    )


def utc(seconds: float | None) -> str | None:
    """Format a Unix time for people."""
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def report(response: object, as_json: bool, text: str | Callable[[], None]) -> None:
    """Print a response as JSON, or else as text."""
    if as_json:
        print_json(response)
    elif isinstance(text, str):
        click.echo(text)
    else:
        text()


def fail(commands: str, *lines: str, code: int = EXIT_WRONG) -> NoReturn:
    """Print error lines, each preceded by the name of the command, and exit."""
    for line in lines:
        click.echo(f"{commands}: {line}", err=True)
    sys.exit(code)
