"""docs/how-to/adapters.md, done as it says: the adapter is put into a copy of the tree, which then serves."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest

from tests import harness
from tests.harness import ROOT, EdgeProcess, eventually, row
from tests.traffic import named, who

PAGE = (ROOT / "docs" / "how-to" / "adapters.md").read_text()
SMALL, _, WORKED = PAGE.partition("## PostgreSQL, the worked example")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def change(path: Path, difference: str) -> None:
    """Apply a difference of one line, which must be there once."""
    old, new = difference.splitlines()
    assert (old[0], new[0]) == ("-", "+")
    text = path.read_text()
    assert text.count(old[1:] + "\n") == 1, old
    path.write_text(text.replace(old[1:] + "\n", new[1:] + "\n"))


def write(path: Path, rows: list[dict[str, object]]) -> None:
    """Replace the file of backends in one step."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(rows))
    fresh.replace(path)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the tree with the page's adapter."""
    tree = tmp_path / "tree"
    for package in ("app", "actors"):
        shutil.copytree(ROOT / package, tree / package, ignore=shutil.ignore_patterns("__pycache__"))
    (code,) = blocks(SMALL, "python")
    (place,) = re.findall(r"\*\*The file\*\* is `(app/outbound/\w+\.py)`", SMALL)
    (tree / place).write_text(code)
    differences = blocks(SMALL, "diff")
    assert len(differences) == 2
    (composition,) = re.findall(r"\*\*The line in `(app/[\w/]+\.py)`\*\*", SMALL)
    for difference in differences:
        change(tree / composition, difference)
    return tree


def test_the_adapter_of_the_page_serves_follows_and_survives_its_file(tree, origin, tmp_path, monkeypatch):
    monkeypatch.setattr(harness, "ROOT", tree)
    a, b, file = origin(named("a")), origin(named("b")), tmp_path / "backends.json"
    write(file, [row("a", a), row("bad", 0)])
    proxy = EdgeProcess(tmp_path, file, "127.0.0.1:0", {"GEOIP_PATH": "off"})
    try:
        assert Path(os.readlink(f"/proc/{proxy.process.pid}/cwd")) == tree
        assert who(proxy) == "a"
        assert eventually(lambda: proxy.event("row refused"))["columns"] == ["port"]
        write(file, [row("a", b)])
        eventually(lambda: who(proxy, "127.0.0.9") == "b", what="the change is seen")
        file.write_text("[{")
        eventually(lambda: "Expecting" in (proxy.ready()["routing"]["stale"] or ""), what="the fault")
        assert who(proxy, "127.0.0.10") == "b"
        file.unlink()
        eventually(lambda: "No such file" in (proxy.ready()["routing"]["stale"] or ""), what="the loss")
        write(file, [row("a", a)])
        eventually(lambda: who(proxy, "127.0.0.11") == "a", what="it is back")
        assert proxy.stop() == 0
    finally:
        proxy.kill()


def test_what_the_page_quotes_of_postgresql_stands_in_its_files():
    quoted = blocks(WORKED, "(?:python|text)")
    assert len(quoted) == 3
    sources = [
        (ROOT / "app" / "outbound" / f"{name}.py").read_text() for name in ("postgres_backends", "routing_database")
    ]
    for block in quoted:
        assert any(block in source for source in sources), block


def test_every_adapter_and_file_that_the_page_names_is_there():
    named_files = re.findall(r"`((?:app|tests|docs)/[\w/]+\.(?:py|md))`", PAGE)
    assert len(named_files) > 8
    assert [path for path in named_files if not (ROOT / path).exists()] == ["app/outbound/json_backends.py"]
