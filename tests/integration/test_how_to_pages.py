"""Pages of docs/how-to, done as they say: their commands beside a running edge, their files given to it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.config import PREFIX, load, variable
from tests.admin_client import admin_of, admin_variables
from tests.commands import clean_environment, command
from tests.documents import blocks, typed
from tests.harness import ROOT, EdgeProcess, country_database, eventually, frontend, pool, row
from tests.programs import program
from tests.traffic import named, who

PAGES = [path.stem for path in sorted((ROOT / "docs" / "how-to").glob("*.md"))]


def written(page: str, language: str) -> list[str]:
    """Return the blocks of a page in a language."""
    return [block.text for block in blocks(f"how-to/{page}.md") if block.language == language]


class Reader:
    """A reader of the pages, in the folder of an edge: what is typed there concerns that edge."""

    def __init__(self, folder: Path, edge: EdgeProcess) -> None:
        self.folder, self.edge = folder, edge
        self.admin = "{}:{}".format(*admin_of(edge, folder).address)
        self.places = {
            "localhost:8081": self.admin,
            "localhost:9090": "{}:{}".format(*edge.metrics_address),
            "localhost:8000": "{}:{}".format(*edge.address),
            "logs/edge.jsonl": str(edge.log_path),
            "scripts/": f"{shlex.quote(str(ROOT))}/scripts/",
            "tail -F": "cat",
        }

    def type(self, script: str, **variables: str) -> str:
        """Run commands of a page, all of which must succeed; returns what they print."""
        for there, here in self.places.items():
            script = script.replace(there, here)
        done = subprocess.run(
            typed(self.folder, script),
            env=clean_environment(**variables),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
        return done.stdout

    def follow(self, page: str, **variables: str) -> list[str]:
        """Run every block of commands of a page; returns what each prints."""
        return [self.type(script, **variables) for script in written(page, "sh") if not script.startswith(PREFIX)]

    def asks_api(self) -> dict[str, str]:
        """Return the variable that has commands ask this edge."""
        return {"API_URL": f"http://{self.admin}"}


@pytest.fixture
def reader(edge: Callable[..., EdgeProcess], origin: Callable[..., int], tmp_path: Path) -> Callable[..., Reader]:
    """Start an edge in a folder, with three of the demo's backends, or with a configuration file."""
    program("jq", "jq")
    program("curl", "curl")

    def start(config: dict[str, Any] | None = None) -> Reader:
        rows = [row(name, origin(named(name))) for name in ("gru", "nyc", "jnb")]
        return Reader(tmp_path, edge(rows, config=config, **admin_variables(tmp_path)))

    return start


def test_backends(reader):
    here = reader()
    (printed,) = here.follow("backends")
    assert "10.50.1.1" in printed
    assert "fd00:50:2::1" in printed
    assert "gru-1" not in here.type("python -m app backends list")


def test_drain(reader):
    here = reader()
    drained, timed, asked, by_api = here.follow("drain")
    assert "drain" in drained
    assert timed
    assert json.loads(asked)["items"] == []
    assert by_api == ""
    eventually(lambda: here.edge.ready()["candidates"] == 3, what="all serve again")


def test_reload(reader):
    here = reader({"frontends": [frontend("web", "pool")], "backends": [pool("pool", 8001)]})
    here.places |= {"edge.yaml": str(here.edge.config_path)}
    reloaded, checked = here.follow("reload")
    assert json.loads(reloaded)["file"] == str(here.edge.config_path)
    assert "pool" in checked


def test_frontends(tmp_path):
    (content,) = written("frontends", "yaml")
    (tmp_path / "edge.yaml").write_text(content)
    check, serve = written("frontends", "sh")
    for script in (check, serve.replace(" serve ", " check ")):
        done = subprocess.run(typed(tmp_path, script), env=clean_environment(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_the_files_and_variables_of_a_page_are_valid(page, tmp_path):
    """Part of a file is completed with what it leaves out."""
    for text in written(page, "yaml"):
        content = yaml.safe_load(text)
        if not {"frontends", "backends"} & content.keys():
            continue
        names = [one["name"] for one in content.get("backends", ())]
        content.setdefault("frontends", [frontend(name, name) for name in names])
        file = tmp_path / "edge.yaml"
        file.write_text(yaml.safe_dump(content))
        done = command("check", "--config", file, GEOIP_PATH=str(country_database()))
        assert done.returncode == 0, done.stderr
    for text in written(page, "sh"):
        if text.startswith(PREFIX) and "scripts/" not in text:
            lines = [line.partition("#")[0].strip().partition("=") for line in text.splitlines()]
            for name in (settings := {name: value for name, _, value in lines}):
                if name.endswith(("_CERT", "_KEY", "_FILE")) or "GEOIP" in name:
                    settings[name] = str(tmp_path / settings[name].rpartition("/")[2])
                    Path(settings[name]).write_text("")
            load(settings)


def test_logs(reader):
    here = reader()
    assert who(here.edge) in {"gru", "nyc", "jnb"}
    eventually(here.edge.access_lines)
    connections, requests, events, counted = here.follow("logs")
    assert json.loads(connections)["termination"] == "--"
    assert requests == ""
    assert "INFO listening on" in events
    assert len(counted.splitlines()) == 3


def test_metrics(reader, tmp_path):
    (printed,) = reader().follow("metrics")
    assert "edgeproxy_connections_total" in printed
    assert '"ready"' in printed
    (rules,) = written("metrics", "yaml")
    alerts = [rule["alert"] for group in yaml.safe_load(rules)["groups"] for rule in group["rules"]]
    page = (ROOT / "docs" / "how-to" / "metrics.md").read_text().partition("what to do")[2]
    assert [alert for alert in alerts if alert not in page] == []
    file = tmp_path / "rules.yml"
    file.write_text(rules)
    command = [program("promtool", "prometheus"), "check", "rules", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr


def test_admin_api(reader):
    here = reader()
    asked, made, *_, audit = here.follow("admin-api", **here.asks_api())
    assert '"dashboard"' in asked
    assert "alice" in made
    actions = [json.loads(line)["action"] for line in audit.splitlines()]
    assert actions[:3] == ["drain_backend", "undrain_backend", "create_token"]
    # The log is written a moment after the response: its reader may have been quicker.
    eventually(lambda: [line for line in here.edge.log() if line.get("action") == "revoke_token"])


def test_troubleshoot(reader):
    explained, asked, checked, ready = reader().follow("troubleshoot")
    assert "gru" in explained
    assert "gru" in asked
    assert "EDGEPROXY_DB_PATH" in checked
    assert json.loads(ready)["reasons"] == []


def test_country_database(reader):
    assert "BR" in reader().follow("country-database")[-1]


def test_handlers(reader):
    (config,) = written("handlers", "yaml")
    here = reader(yaml.safe_load(config.replace("*:8000", "127.0.0.1:0")))
    (source,) = written("handlers", "python")
    (here.folder / "hello.py").write_text(source)
    tried, served, replaced, _ = here.follow("handlers", **here.asks_api())
    assert '{"hello":"you"}' in tried
    assert served.endswith('{"hello":"you"}')
    assert "hello 1" in served
    assert replaced


def test_services(reader):
    here = reader({"frontends": [{"name": "web", "listen": "127.0.0.1:0", "protocol": "http", "gateway": "on"}]})
    (source,) = written("services", "python")
    (here.folder / "visits.py").write_text(source)
    create, change = written("services", "sh")
    database = here.folder / "visits.db"
    here.places |= {"visits.db": str(database)}
    assert "main" in here.type(create, **here.asks_api())
    here.type("python -m app endpoints create visits --path /visits", **here.asks_api())
    here.type("python -m app endpoints deploy visits visits.py", **here.asks_api())
    assert json.loads(here.type("curl -s localhost:8000/visits")) == {"visits": 1}
    assert "********" not in here.type(change, **here.asks_api())


def test_embed():
    (source,) = written("embed", "python")
    variables = f'{{"{variable("metrics_listen_addr")}": "127.0.0.1:0", "{variable("admin_listen_addr")}": ""}}'
    source = source.replace("127.0.0.1:8000", "127.0.0.1:0").replace(" {},\n", f" {variables},\n")
    assert variables in source
    done = subprocess.run(
        [sys.executable, "-c", source],
        cwd=ROOT,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_every_page_with_commands_is_followed_by_a_test():
    """Some have a file of their own, because they take machines or servers of their own."""
    elsewhere = {
        "adapters": "test_adapters_page", "anycast": "test_mesh_documents", "dns": "test_dns",
        "many-pops": "test_control_plane_page", "mesh": "test_mesh_documents", "postgresql": "test_routing_postgres",
        "proxy-protocol": "test_proxy_protocol_in", "register": "test_registration_page", "simulate": "test_simulate",
    }  # fmt: skip
    commands = {page for page in PAGES if any(not one.startswith(PREFIX) for one in written(page, "sh"))}
    here = {page for page in PAGES if f"test_{page.replace('-', '_')}" in globals()}
    assert commands - elsewhere.keys() <= here
    assert all((Path(__file__).parent / f"{name}.py").exists() for name in elsewhere.values())
