"""What the README names exists, and what exists the README names: variables, metrics, routes, commands, scripts."""

from __future__ import annotations

import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic_core import PydanticUndefined

from app.cli import main
from app.config import PREFIX, ListenAddress, Settings, variable
from app.domain import metric_names
from app.inbound.status.server import StatusServer
from tests.commands import commands_of

ROOT = Path(__file__).resolve().parent.parent.parent
README = ROOT / "README.md"
DOCUMENTS = [README, *sorted((ROOT / "docs").glob("**/*.md")), *filter(Path.exists, [ROOT / ".env.example"])]
EMPTY = ("", "(empty)", "empty", "–", "-")


def table_rows(beginning: str) -> dict[str, list[str]]:
    """Return the rows of the README's tables whose first cell begins so: first cell -> the other cells."""
    rows: dict[str, list[str]] = {}
    for line in README.read_text().splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip().replace("`", "") for cell in line.strip("| ").split(" | ")]
            if first.startswith(beginning):
                assert first not in rows, f"the README has two rows for {first}"
                rows[first] = others
    return rows


def written_default(field: str) -> str:
    """Return a field's default as the environment would say it."""
    default = Settings.model_fields[field].get_default(call_default_factory=True)
    assert default is not PydanticUndefined, f"{field} has no default"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, float | int):
        return f"{default:.15g}"
    return "" if default is None or default == () else str(default)


def read_default(cell: str) -> str:
    """Return what a cell of the README says a default is, numbers without their thousands separators."""
    if cell in EMPTY:
        return ""
    number = cell.replace(",", "").replace("_", "")
    return f"{float(number):.15g}" if re.fullmatch(r"\d+(\.\d+)?", number) else cell


def commands(group: click.Group = main, prefix: str = "") -> Iterator[str]:
    """Return every command that does something, subcommands as `group command`."""
    for name, command in commands_of(group).items():
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}"


def options(group: click.Group = main) -> Iterator[str]:
    """Return the long options of every command."""
    for command in commands_of(group).values():
        if isinstance(command, click.Group):
            yield from options(command)
        else:
            yield from (text for one in command.params for text in one.opts if text.startswith("--"))


def commands_in(text: str) -> set[str]:
    """Return the commands that a text names, scripts/seed_backends.py being the same as `python -m app backends`."""
    named = set()
    for program, words in re.findall(r"(python -m app|scripts/seed_backends\.py)((?: +[a-z]+(?![\w./-]))+)", text):
        first, *others = (["backends"] if program.startswith("scripts") else []) + words.split()
        is_group = isinstance(commands_of(main).get(first), click.Group)
        named.add(" ".join([first, *others[:1]] if is_group else [first]))
    return named


def routes_of_the_server() -> set[str]:
    server = StatusServer(ListenAddress("127.0.0.1", 0), lambda: (True, {}), lambda: ("text/plain", b""))
    server.start()
    try:
        connection = http.client.HTTPConnection(server.address.host, server.address.port, timeout=10)
        connection.request("GET", "/no-such-route")
        response = connection.getresponse()
        assert response.status == 404
        routes = set(json.loads(response.read())["routes"])
        connection.close()
        return routes
    finally:
        server.stop()


def scripts() -> dict[str, Path]:
    """Return what a person may run: the files of scripts/, not the packages below it."""
    return {f"scripts/{path.name}": path for path in (ROOT / "scripts").iterdir() if path.is_file()}


def test_the_table_of_variables_is_the_configuration():
    assert set(table_rows(PREFIX)) == {variable(field) for field in Settings.model_fields}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_default_in_the_readme_is_the_default(field):
    cell = table_rows(PREFIX)[variable(field)][0]
    assert read_default(cell) == written_default(field)


def test_the_table_of_metrics_is_what_is_exposed():
    documented = {name: (cells[0], cells[1]) for name, cells in table_rows("edgeproxy_").items()}
    exposed = {metric.exposed_name: (metric.kind, ", ".join(metric.labels) or "–") for metric in metric_names.ALL}
    assert documented == exposed


def test_every_route_of_the_metrics_listener_is_named_in_the_readme_and_no_other():
    text = README.read_text()
    documented = set(re.findall(r"`(?:GET )?(/[a-z]+)`", text)) | set(re.findall(r":9090(/[a-z]+)", text))
    assert documented == routes_of_the_server()


def test_every_command_is_named_in_the_readme():
    assert set(commands()) - commands_in(README.read_text()) == set()


def test_every_option_is_named_in_the_readme():
    assert set(options()) - set(re.findall(r"--[a-z][a-z-]*", README.read_text())) == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_names_nothing_that_does_not_exist(document):
    text = document.read_text()
    variables = {name for name in re.findall(rf"{PREFIX}[A-Z0-9_]+", text) if not name.endswith("_")}
    metrics = set(re.findall(r"\bedgeproxy_[a-z_]*[a-z]\b", text))
    samples = {f"{m.exposed_name}{end}" for m in metric_names.ALL for end in ("", "_bucket", "_sum", "_count")}
    assert variables - {variable(field) for field in Settings.model_fields} == set()
    assert metrics - samples == set()
    assert {name for name in commands_in(text) if name not in {*commands(), *commands_of(main)}} == set()
    assert set(re.findall(r"(?<![\w/])scripts/[\w.]*\w", text)) - set(scripts()) - {"scripts/benchmark"} == set()


@pytest.mark.parametrize("name", sorted(scripts()))
def test_a_script_is_named_in_the_readme_and_can_be_run(name):
    assert re.search(rf"(?<![\w/]){re.escape(name)}(?![\w.]*\w)", README.read_text()), (
        f"the README does not name {name}"
    )
    assert os.access(scripts()[name], os.X_OK)
    assert scripts()[name].read_bytes().startswith(b"#!")


def test_every_file_that_the_readme_points_at_exists():
    pointed = re.findall(r"`((?:app|actors|tests|docs|scripts)/[\w/.-]+)`", README.read_text())
    assert pointed
    assert [path for path in pointed if not (ROOT / path).exists()] == []


def test_every_picture_is_there_and_every_one_there_is_shown():
    shown = set(re.findall(r"docs/images/[\w.-]+", README.read_text()))
    assert shown == {f"docs/images/{path.name}" for path in (ROOT / "docs" / "images").iterdir()}


def test_the_readers_of_this_test_read_what_they_should():
    assert commands_in("run `python -m app serve` or python -m app backends list --json") == {"serve", "backends list"}
    assert commands_in("`scripts/seed_backends.py load backends.csv`") == {"backends load"}
    assert commands_in("scripts/seed_backends.py conjure x") == {"backends conjure"}
    assert commands_in("python -m app explain 1.2.3.4 and `python -m app fly`") == {"explain", "fly"}
    assert [read_default(cell) for cell in ("1,000,000", "1000000", "3.0", "(empty)", "*:8080")] == [
        "1000000", "1000000", "3", "", "*:8080",
    ]  # fmt: skip
