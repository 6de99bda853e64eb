"""Commands for backends: load, list, drain, undrain, remove; in a routing database or at an edge."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

import click
from click.core import ParameterSource

from app.commands.caller import Caller, api_options, fail_with
from app.commands.output import fail, json_option, print_table, report, utc
from app.config import DatabaseUrl, database_url, durations, variable
from app.domain.model import BACKEND_COLUMNS, DRAIN_DEADLINE, Backend, BadBackend, parse_backend
from app.domain.words import counted
from app.outbound.admin_api import ApiError
from app.outbound.api_backends import ApiBackendStore
from app.outbound.routing_database import open_store
from app.ports import BackendStore, RepositoryError

DEMO_FILE = Path(__file__).parent.parent / "data" / "demo_backends.csv"
DEFAULT_DATABASE = "routing.db"
COMMANDS = "backends"
MANY = 1000
"""A load of more than this into an edge says so before it begins."""

_WHOLE_NUMBER = re.compile(r"-?\d+", re.ASCII)
_NUMBER_COLUMNS = ("port", "healthy", "weight", "soft_limit", "hard_limit", "deleted")
_PLAIN_SECONDS = re.compile(r"\d{1,12}(?:\.\d{1,9})?", re.ASCII)
_MAX_DEADLINE_SECONDS = 365 * 86_400


def _fail(*lines: str) -> NoReturn:
    fail(COMMANDS, *lines)


@dataclass(frozen=True)
class _Table:
    """The location of the backends: a routing database, or an edge."""

    database: Path | DatabaseUrl
    edge: Caller | None

    def __str__(self) -> str:
        return str(self.database) if self.edge is None else self.edge.url

    @contextmanager
    def store(self) -> Iterator[BackendStore]:
        """Open the store of the backends. Its errors are printed and end the command."""
        try:
            with open_store(self.database) if self.edge is None else ApiBackendStore(self.edge.api) as store:
                yield store
        except KeyError as missing:
            file = os.environ.get(variable("config"))
            of_file = f" (servers of {file} are drained there: weight: 0, and a reload)" if file else ""
            _fail(f"no such backend: {missing.args[0]}{of_file}; nothing was changed")
        except RepositoryError as error:
            _fail(str(error))
        except ApiError as error:
            fail_with(COMMANDS, error)


def _location(_context: click.Context, _parameter: click.Parameter, given: str | None) -> Path | DatabaseUrl:
    """Parse --db, or its default from the environment."""
    text = given or os.environ.get(variable("db_url")) or os.environ.get(variable("db_path")) or DEFAULT_DATABASE
    if "://" not in text:
        return Path(text)
    try:
        return cast("DatabaseUrl", database_url(text))
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.group()
@click.option(
    "--db",
    "database",
    metavar="FILE|URL",
    callback=_location,
    help=f"Routing database [default: {variable('db_url')}, else {variable('db_path')}, else {DEFAULT_DATABASE}].",
)
@api_options
@click.pass_context
def backends(
    context: click.Context,
    database: Path | DatabaseUrl,
    url: str | None,
    token_file: Path | None,
    ca_file: Path | None,
) -> None:
    """Load, list, drain, undrain and remove backends in the routing database. A running edge applies changes at once.

    With --api, change the backends of the edge at that URL.
    """
    is_given = context.get_parameter_source("database") is ParameterSource.COMMANDLINE
    if is_given and context.get_parameter_source("url") is ParameterSource.COMMANDLINE:
        raise click.UsageError("give either --db or --api")
    is_remote = url is not None and not is_given
    context.obj = _Table(database, Caller(COMMANDS, url, token_file, ca_file) if is_remote else None)


def _change(table: _Table, change: Callable[[BackendStore], object], done: str) -> None:
    with table.store() as store:
        change(store)
    click.echo(done)


@backends.command("load")
@click.argument("file", type=click.File("r", encoding="utf-8-sig"), required=False)
@click.option("--demo", is_flag=True, help="Load the demo backends in five cities.")
@click.option("--replace", is_flag=True, help="Remove all backends that are not in the file.")
@click.pass_obj
def load(table: _Table, file: TextIO | None, demo: bool, replace: bool) -> None:
    """Insert or replace the backends in a CSV or JSON FILE (- is standard input), all or none.

    The first line of a CSV file names the columns. JSON is a list of objects, or one object per line.
    """
    if demo == (file is not None):
        raise click.UsageError("give either a FILE or --demo")
    try:
        text = DEMO_FILE.read_text(encoding="utf-8") if file is None else file.read()
    except UnicodeDecodeError as error:
        _fail(f"not UTF-8: {error}")
    parsed = _parse(text)
    if table.edge is not None and len(parsed) > MANY:
        click.echo(f"loading {counted(len(parsed), 'backend')} into {table}, which may take some seconds", err=True)
    _change(
        table,
        lambda store: store.save(parsed, replaces_all=replace),
        f"{counted(len(parsed), 'backend')} loaded into {table}",
    )


def _parse(text: str) -> list[Backend]:
    """Validate every row as the edge does. On faults, exit naming row and column of each."""
    try:
        rows = list(_json_rows(text) if text.lstrip()[:1] in ("[", "{") else _csv_rows(text))
    except (ValueError, csv.Error) as error:
        _fail(str(error))
    parsed, faults, seen = [], [], dict[str, str]()
    for place, row in rows:
        try:
            backend = parse_backend(row)
        except BadBackend as bad:
            faults += [f"{place}, column {fault.column}: {fault.value!r} {fault.rule}" for fault in bad.faults]
            continue
        if backend.id in seen:
            faults.append(f"{place}, column id: {backend.id!r} is a duplicate of {seen[backend.id]}")
        seen[backend.id] = place
        parsed.append(backend)
    if not rows:
        faults.append("the file has no rows")
    if faults:
        _fail(*faults, "nothing was changed")
    return parsed


def _csv_rows(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    reader = csv.DictReader(text.splitlines(), strict=True)
    _require_columns(reader.fieldnames or (), "line 1")
    for row in reader:
        place = f"line {reader.line_num}"
        if None in row or None in row.values():
            raise ValueError(f"{place}: the number of fields differs from that of the columns in line 1")
        yield place, {column: _cell(column, value) for column, value in row.items()}


def _cell(column: str, value: str) -> object:
    """Return the value of a CSV cell: NULL if empty, a number for digits in a number column."""
    text = value.strip()
    if not text:
        return None
    if column == DRAIN_DEADLINE:
        try:
            return float(text)
        except ValueError:
            return text
    return int(text) if column in _NUMBER_COLUMNS and _WHOLE_NUMBER.fullmatch(text) else text


def _json_rows(text: str) -> Iterator[tuple[str, dict[str, object]]]:
    try:
        value: Any = json.loads(text)
    except json.JSONDecodeError:
        if text.lstrip().startswith("["):
            raise
        value = [_json_line(number, line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    for number, row in enumerate([value] if isinstance(value, dict) else value, start=1):
        if not isinstance(row, dict):
            raise ValueError(f"row {number}: must be an object")
        _require_columns(row, f"row {number}")
        yield f"row {number}", row


def _json_line(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {number}: {error.msg} at column {error.colno}") from None


def _require_columns(names: Any, place: str) -> None:
    unknown = [name for name in names if name not in (*BACKEND_COLUMNS, DRAIN_DEADLINE)]
    if unknown:
        raise ValueError(
            f"{place}: unknown column: {', '.join(map(str, unknown))}; known: {', '.join(BACKEND_COLUMNS)}"
        )
    if "id" not in names:
        raise ValueError(f"{place}: the column id is missing")


@backends.command("list")
@json_option
@click.pass_obj
def list_(table: _Table, as_json: bool) -> None:
    """Print every row, and the faults of rows that the edge refuses."""
    if table.edge is None and isinstance(table.database, Path) and not table.database.exists():
        _fail(f"{table} does not exist")
    with table.store() as store:
        rows = store.rows()
    shown = [[*(_shown(column, value) for column, value in row.items()), _state(row)] for row in rows]
    report(rows, as_json, lambda: print_table((*BACKEND_COLUMNS, DRAIN_DEADLINE, "state"), shown))


def _shown(column: str, value: object) -> object:
    """Format a value of the table for people: deadlines as UTC times."""
    return utc(value) if column == DRAIN_DEADLINE and isinstance(value, int | float) else value


def _state(row: dict[str, object]) -> str:
    try:
        backend = parse_backend(row)
    except BadBackend as bad:
        return "refused: " + "; ".join(map(str, bad.faults))
    if backend.is_deleted:
        return "drained"
    return "serving" if backend.is_healthy else "unhealthy"


def _duration(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    if value is None:
        return None
    seconds = float(value) if _PLAIN_SECONDS.fullmatch(value) else durations.seconds_of(value)
    if seconds is None:
        raise click.BadParameter(durations.RULE)
    if seconds > _MAX_DEADLINE_SECONDS:
        raise click.BadParameter("must not be longer than a year")
    return seconds


@backends.command("drain")
@click.argument("ids", nargs=-1, required=True)
@click.option(
    "--deadline", callback=_duration, help="Close connections that are still open after this time, such as 60s."
)
@click.pass_obj
def drain(table: _Table, ids: tuple[str, ...], deadline: float | None) -> None:
    """Send no new connections to backends. Bound clients move to others, open connections continue."""
    _change(table, lambda store: store.drain(ids, deadline), f"draining: {', '.join(ids)}")


@backends.command("undrain")
@click.argument("ids", nargs=-1, required=True)
@click.pass_obj
def undrain(table: _Table, ids: tuple[str, ...]) -> None:
    """Return drained backends to service."""
    _change(table, lambda store: store.undrain(ids), f"serving: {', '.join(ids)}")


@backends.command("remove")
@click.argument("ids", nargs=-1, required=True)
@click.pass_obj
def remove(table: _Table, ids: tuple[str, ...]) -> None:
    """Delete the rows of backends."""
    _change(table, lambda store: store.remove(ids), f"removed: {', '.join(ids)}")
