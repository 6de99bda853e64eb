#!/usr/bin/env python3
"""Write what docs/reference has from the code: variables, keys, commands, metrics, routes, faults of HTTP.

Only the text between `<!-- generated: NAME -->` and `<!-- end -->` is replaced. Run it after a change of any of them;
`--check` writes nothing and exits with 1 when a page is stale. It starts an edge on ports that the kernel chooses, to
ask it for the description of its admin API, and needs the development environment (scripts/setup dev).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV_PYTHON = ROOT / ".venv" / "bin" / "python"
if VENV_PYTHON.exists() and Path(sys.prefix) != ROOT / ".venv":
    os.execv(VENV_PYTHON, [str(VENV_PYTHON), __file__, *sys.argv[1:]])
sys.path.insert(0, str(ROOT))

from gevent import monkey

monkey.patch_all()

import inspect
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, Final

import annotated_types
import click
from pydantic.fields import FieldInfo

from app.cli import main
from app.config import Settings, json_schema, variable
from app.domain import metric_names
from app.wire import http1_faults
from tests.admin_client import admin_of, admin_variables
from tests.commands import commands_of
from tests.harness import EdgeProcess, write_backends

PAGES: Final = ROOT / "docs" / "reference"
REGION: Final = re.compile(r"(?<=<!-- generated: )([a-z-]+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
HELP_WIDTH: Final = 110


def table(columns: str, rows: Iterable[Iterable[object]]) -> str:
    """Return a table; `columns` are its headings, separated by ` | `."""
    rule = "|".join("---" for _ in columns.split(" | "))
    lines = [" | ".join(str(cell).replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join([f"| {columns} |", f"|{rule}|", *(f"| {line} |" for line in lines)]) + "\n"


def code(text: object) -> str:
    return f"`{text}`" if str(text) else ""


# Variables


def variables() -> str:
    rows = [
        (code(variable(name)), code(_default(field)) or "(empty)", _bounds(field), field.description)
        for name, field in Settings.model_fields.items()
    ]
    return table("variable | default | range | meaning", rows)


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in (None, ()) else str(default)


def _bounds(field: FieldInfo) -> str:
    limits = [one for one in field.metadata if isinstance(one, annotated_types.Ge | annotated_types.Le)]
    lowest = next((one.ge for one in limits if isinstance(one, annotated_types.Ge)), None)
    highest = next((one.le for one in limits if isinstance(one, annotated_types.Le)), None)
    return _range(lowest, highest)


def _range(lowest: Any, highest: Any) -> str:
    if lowest is None:
        return ""
    return f"{lowest:,} or more" if highest is None else f"{lowest:,} to {highest:,.15g}"


# The configuration file


def configuration() -> str:
    schema = json_schema()
    return "\n".join(_section("", schema, schema["$defs"]))


def _section(path: str, described: dict[str, Any], definitions: dict[str, Any]) -> Iterator[str]:
    """Yield the table of a mapping's keys, then those of the mappings below it."""
    below, rows = [], []
    for key, value in described["properties"].items():
        items, kind = value.get("items", value), _kind(value)
        default = "(required)" if key in described.get("required", ()) else _written(value.get("default", ""), kind)
        rows.append((code(key), kind, default, value["description"]))
        if "$ref" in items:
            child = f"{path}.{key}".lstrip(".") + ("[]" if items is not value else "")
            below.append((child, definitions[items["$ref"].rpartition("/")[2]]))
    yield f"### {code(path) or 'Top level'}\n\n{described['description']}\n"
    yield table("key | value | default | meaning", rows)
    for child, definition in below:
        yield from _section(child, definition, definitions)


def _written(default: object, kind: str) -> str:
    """Return a default as the file would say it."""
    if default in ("", [], {}):
        return ""
    if isinstance(default, bool):
        words = ("off", "on") if "`on`" in kind else ("false", "true")
        return code(words[default])
    return code(f"{default}s" if kind == "duration" else default)


def _kind(value: dict[str, Any]) -> str:
    """Return what a key takes, in words."""
    pattern = value.get("pattern", "")
    if pattern.endswith("ms)?$"):
        return "duration"
    if pattern.startswith("^[1-5]"):
        return "range such as `200-299`"
    if "enum" in value:
        return ", ".join(code(one) for one in value["enum"] if one is not False)
    if "anyOf" in value:
        kinds = list(dict.fromkeys(map(_kind, value["anyOf"])))
        return next((one for one in kinds if one in ("duration", "`on`, `off`")), " or ".join(kinds))
    if "items" in value:
        return f"list of {_kind(value['items'])}s" if value["items"].get("type") == "string" else "list"
    if "$ref" in value or value["type"] == "object":
        return "mapping"
    numbers = _range(value.get("minimum"), value.get("maximum"))
    name = "`true`, `false`" if value["type"] == "boolean" else str(value["type"])
    return f"{name}, {numbers}" if numbers else name


# Commands


def command_list() -> str:
    rows = [(f"[`{name}`](#{_anchor(name)})", one.get_short_help_str(200)) for name, one, _ in _commands(main)]
    return table("command | what it does", rows)


def commands() -> str:
    return "\n".join(f"### {name}\n\n```text\n{one.get_help(context)}\n```\n" for name, one, context in _commands(main))


def _anchor(name: str) -> str:
    return name.replace(" ", "-")


def _commands(group: click.Command, parent: click.Context | None = None) -> Iterator[tuple[str, click.Command, Any]]:
    """Yield name, command and context of each command, a group before its commands."""
    name = "python -m app" if parent is None else group.name
    context = click.Context(group, parent, name, max_content_width=HELP_WIDTH, terminal_width=HELP_WIDTH)
    if parent is not None:
        yield context.command_path.removeprefix("python -m app "), group, context
    for command in commands_of(group).values():
        yield from _commands(command, context)


# The rest


def metrics() -> str:
    rows = [(code(m.exposed_name), m.kind, ", ".join(m.labels) or "–", m.help) for m in metric_names.ALL]
    return table("metric | kind | labels | meaning", rows)


def http_faults() -> str:
    """Take each fault's rule from the comment behind it."""
    source = inspect.getsource(http1_faults)
    rules = dict(re.findall(r'^    "(\w+)": \d+,  # (.+)$', source, re.MULTILINE))
    return table(
        "reason | status | rule", ((code(word), status, rules[word]) for word, status in http1_faults.REASONS.items())
    )


def routes() -> str:
    """Ask a running edge for the description of its admin API."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_backends(folder / "routing.db", [])
        texts = {key: str(value) for key, value in admin_variables(folder).items()}
        edge = EdgeProcess(folder, folder / "routing.db", "127.0.0.1:0", texts)
        try:
            described = admin_of(edge, folder).get("/openapi.json")
        finally:
            edge.kill()
    operations = [
        (one["tags"][0], f"{method.upper()} {path}", one)
        for path, methods in described["paths"].items()
        for method, one in methods.items()
    ]
    parts = []
    for tag, found in groupby(sorted(operations, key=lambda operation: operation[0]), lambda operation: operation[0]):
        rows = [(code(place), one["security"][0]["bearer"][0], _query(one), one["summary"]) for _, place, one in found]
        parts.append(f"### {tag.capitalize()}\n\n{table('route | scope | query | what it does', rows)}")
    return "\n".join(parts)


def _query(operation: dict[str, Any]) -> str:
    return ", ".join(code(one["name"]) for one in operation.get("parameters", ()) if one["in"] == "query")


PARTS: Final[dict[str, Callable[[], str]]] = {
    "variables": variables,
    "configuration": configuration,
    "command-list": command_list,
    "commands": commands,
    "metrics": metrics,
    "http-faults": http_faults,
    "routes": routes,
}


def generate(is_check: bool) -> int:
    stale = []
    for page in sorted(PAGES.glob("*.md")):
        written = page.read_text()
        fresh = REGION.sub(lambda found: f"{found[1]}{found[2]}\n{PARTS[found[1]]()}\n", written)
        if fresh != written:
            stale.append(page)
            if not is_check:
                page.write_text(fresh)
    for page in stale:
        print(f"{page.relative_to(ROOT)}: {'is stale: run scripts/generate_reference.py' if is_check else 'written'}")
    return 1 if stale and is_check else 0


if __name__ == "__main__":
    sys.exit(generate(is_check="--check" in sys.argv[1:]))
