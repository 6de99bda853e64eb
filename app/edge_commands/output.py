"""Prints what commands found: tables for people, JSON for programs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable
from typing import Final

import click
from rich.console import Console
from rich.table import Table

WIDTH_WITHOUT_TERMINAL: Final = 220

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def print_json(value: object) -> None:
    """Print JSON; nothing for None. Bytes, which a table may hold, are hexadecimal."""
    if value is not None:
        click.echo(json.dumps(value, indent=2, default=bytes.hex))


def print_table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Print a table, one line a row where the output is no terminal. None is an empty cell."""
    table = Table(*columns, box=None, header_style="bold")
    for row in rows:
        table.add_row(*map(shown, row))
    width = None if sys.stdout.isatty() else WIDTH_WITHOUT_TERMINAL
    Console(width=width, markup=False, emoji=False, highlight=False).print(table)


def print_fields(fields: Iterable[tuple[str, object]]) -> None:
    """Print a thing, one field a line."""
    print_table(("field", "value"), fields)


def shown(value: object) -> str:
    """Return a value for people. What others wrote must not steer the terminal."""
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
    """Return a time, Unix seconds, for people."""
    return None if seconds is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def tell(answer: object, as_json: bool, text: str | Callable[[], None]) -> None:
    """Print an answer as JSON, or say it in words."""
    if as_json:
        print_json(answer)
    elif isinstance(text, str):
        click.echo(text)
    else:
        text()
