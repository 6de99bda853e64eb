"""What the documentation names exists, and what exists is documented: variables, metrics, commands, fields, links."""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic_core import PydanticUndefined

from app.admin.audit import AuditLine
from app.cli import main
from app.config import PREFIX, ListenAddress, Settings, variable
from app.domain import metric_names
from app.domain.outcome import Affinity, NoLease, Refusal, State
from app.domain.service_settings import ENGINES
from app.inbound.access_log import AccessLine, RequestLine
from app.inbound.status.server import StatusServer
from app.wire.http1_faults import REASONS
from tests.commands import commands_of

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(DOCS.glob("**/*.md"))
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *PAGES]
MANUAL = "\n".join(page.read_text() for page in DOCUMENTS)
"""All that a reader may look for something in."""
EXAMPLES = ("app/outbound/json_backends.py",)
"""Files that a page has its reader write."""
EMPTY = ("", "(empty)", "empty", "–", "-")


def table_rows(page: str, beginning: str) -> dict[str, list[str]]:
    """Return the rows of a reference page's tables whose first cell begins so: first cell -> the other cells."""
    rows: dict[str, list[str]] = {}
    for line in (REFERENCE / page).read_text().splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip().replace("`", "") for cell in line.strip("| ").split(" | ")]
            if first.startswith(beginning):
                assert first not in rows, f"{page} has two rows for {first}"
                rows[first] = others
    return rows


def first_cells(page: str, heading: str) -> set[str]:
    """Return what the first cells of a page's tables below a heading, down to the next one, have as code."""
    _, found, text = (REFERENCE / page).read_text().partition(f"\n{heading}\n")
    assert found, f"{page} has no heading {heading}"
    rows = re.findall(r"^\| (`.*?`) \|", re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0], re.MULTILINE)
    return {word for row in rows for word in re.findall(r"`(.+?)`", row)}


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
    """Return what a cell of the reference says a default is, numbers without their thousands separators."""
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
    server = StatusServer(ListenAddress("127.0.0.1", 0), lambda _frontend: (True, {}), lambda: ("text/plain", b""))
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
    assert set(table_rows("variables.md", PREFIX)) == {variable(field) for field in Settings.model_fields}


@pytest.mark.parametrize("field", Settings.model_fields)
def test_the_default_in_the_reference_is_the_default(field):
    cell = table_rows("variables.md", PREFIX)[variable(field)][0]
    assert read_default(cell) == written_default(field)


def test_the_table_of_metrics_is_what_is_exposed():
    documented = {name: (cells[0], cells[1]) for name, cells in table_rows("metrics.md", "edgeproxy_").items()}
    exposed = {metric.exposed_name: (metric.kind, ", ".join(metric.labels) or "–") for metric in metric_names.ALL}
    assert documented == exposed


def test_every_route_of_the_metrics_listener_is_documented_and_no_other():
    routes = routes_of_the_server()
    assert set(re.findall(r"^\| `(/[a-z]+)`", (REFERENCE / "metrics.md").read_text(), re.MULTILINE)) == routes
    assert set(re.findall(r":9090(/[a-z]+)", MANUAL)) <= routes


def test_every_command_is_documented():
    assert set(commands()) - commands_in(MANUAL) == set()


def test_every_option_is_documented():
    assert set(options()) - set(re.findall(r"--[a-z][a-z-]*", MANUAL)) == set()


def test_the_generated_reference_is_not_stale():
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "generate_reference.py"), "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("## Connections and requests", {*AccessLine.__struct_fields__, *RequestLine.__struct_fields__}),
        ("## Changes through the admin API", set(AuditLine.__struct_fields__)),
        ("## Termination states", {letter for state in State for letter in state}),
        ("### Combinations", set(State)),
        ("## Affinity", set(Affinity)),
        ("### No lease", set(NoLease)),
        ("### Refused connections", set(Refusal)),
        ("### Faulty messages", set(REASONS)),
    ],
)
def test_the_reference_of_the_log_has_every_word(heading, words):
    assert first_cells("log.md", heading) == words


def test_the_reference_of_the_log_has_the_fields_of_each_line():
    rows = re.findall(r"^\| `(\w+)` \| (✓?) *\| (✓?) *\|", (REFERENCE / "log.md").read_text(), re.MULTILINE)
    assert [name for name, mark, _ in rows if mark] == list(AccessLine.__struct_fields__)
    assert [name for name, _, mark in rows if mark] == list(RequestLine.__struct_fields__)


@pytest.mark.parametrize("heading", ["### Failed connections to a backend", "### HTTP requests"])
def test_every_reason_that_is_documented_is_one(heading):
    sources = "".join(path.read_text() for path in (ROOT / "app").rglob("*.py"))
    assert {word for word in first_cells("log.md", heading) if f'"{word}"' not in sources} == set()


def test_the_settings_of_services_are_documented_with_their_defaults():
    text = (REFERENCE / "services.md").read_text()
    documented = {
        (engine, name): default
        for engine, name, default in re.findall(r"^\| [a-z]+ \| (\w+) \| `(\w+)` \| (.+?) \|", text, re.MULTILINE)
    }
    common = first_cells("services.md", "## Settings of every service")
    settings = {
        (engine, name): setting
        for engines in ENGINES.values()
        for engine, known in engines.items()
        for name, setting in known.items()
    }
    assert {name for _, name in settings} >= common
    assert documented == {
        (engine, name): "–" if setting.is_required else "none" if setting.default is None else str(setting.default)
        for (engine, name), setting in settings.items()
        if name not in common
    }


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / ".env.example"], ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_names_nothing_that_does_not_exist(document):
    text = document.read_text()
    variables = {name for name in re.findall(rf"{PREFIX}[A-Z0-9_]+", text) if not name.endswith("_")}
    metrics = set(re.findall(r"\bedgeproxy_[a-z_]*[a-z]\b", text))
    samples = {f"{m.exposed_name}{end}" for m in metric_names.ALL for end in ("", "_bucket", "_sum", "_count")}
    assert variables - {variable(field) for field in Settings.model_fields} == set()
    assert metrics - samples == set()
    assert {name for name in commands_in(text) if name not in {*commands(), *commands_of(main)}} == set()
    assert set(re.findall(r"(?<![\w/])scripts/[\w.]*\w", text)) - set(scripts()) - {"scripts/benchmark"} == set()
    pointed = re.findall(r"`((?:app|actors|tests|docs|scripts)/[\w/.-]+)`", text)
    assert [path for path in pointed if not (ROOT / path).exists() and path not in EXAMPLES] == []


@pytest.mark.parametrize("name", sorted(scripts()))
def test_a_script_is_documented_and_can_be_run(name):
    assert re.search(rf"(?<![\w/]){re.escape(name)}(?![\w.]*\w)", (REFERENCE / "commands.md").read_text())
    assert os.access(scripts()[name], os.X_OK)
    assert scripts()[name].read_bytes().startswith(b"#!")


def test_the_code_points_at_documents_that_exist():
    sources = [path for room in ("app", "actors", "scripts", "tests") for path in (ROOT / room).rglob("*.py")]
    pointed = {path for one in sources for path in re.findall(r"\bdocs/[\w/-]+(?:\.\w+)+", one.read_text())}
    assert pointed
    assert {path for path in pointed if not (ROOT / path).exists()} == set()


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as code hosts and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document):
    """Sphinx sees to those within docs/; a code host shows the other files, too."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", sorted((DOCS / "how-to").glob("*.md")), ids=lambda path: path.name)
def test_the_readme_and_the_menu_of_the_site_lead_to_a_job(page):
    place = f"how-to/{page.stem}"
    assert f"(docs/{place}.md)" in (ROOT / "README.md").read_text()
    assert f"\n{place}\n" in (DOCS / "index.md").read_text()


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_every_picture_is_there_and_every_one_there_is_shown():
    assert set(re.findall(r"images/[\w.-]+", MANUAL)) == {f"images/{path.name}" for path in (DOCS / "images").iterdir()}


def test_the_readers_of_this_test_read_what_they_should():
    assert commands_in("run `python -m app serve` or python -m app backends list --json") == {"serve", "backends list"}
    assert commands_in("`scripts/seed_backends.py load backends.csv`") == {"backends load"}
    assert commands_in("scripts/seed_backends.py conjure x") == {"backends conjure"}
    assert commands_in("python -m app explain 1.2.3.4 and `python -m app fly`") == {"explain", "fly"}
    assert [read_default(cell) for cell in ("1,000,000", "1000000", "3.0", "(empty)", "*:8080")] == [
        "1000000", "1000000", "3", "", "*:8080",
    ]  # fmt: skip
