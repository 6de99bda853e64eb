"""Which room may import which. Walks every import of app/ and actors/; a wrong arrow or a circle fails.

What the table does not name is forbidden. A file of a room that has a row of its own goes by that row alone.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
OURS = ("app", "actors")

# Pure data modules: no input or output, no clock, no process. random is for the type of a generator handed in.
PURE_STDLIB = frozenset(
    "__future__ base64 bisect collections dataclasses enum functools hashlib heapq hmac ipaddress itertools math "
    "operator random re struct typing".split()
)  # fmt: skip

LOOSE = {"__init__", "__main__", "cli", "ports", "proxy_service"}
"""The only files directly in app/; every other one lies in a room."""

MAY_IMPORT: dict[str, str] = {
    # room: what it may import, ours by room and foreign by package; the standard library is free but for the domain
    "app": "",
    "app.__main__": "app.cli gevent",
    "app.cli": "app.commands click",
    "app.domain": "app.domain",
    "app.ports": "app.domain",
    "app.wire": "app.domain app.wire dnslib httptools",
    "app.config": "app.domain app.config pydantic pydantic_core yaml",
    "app.outbound": "app.ports app.domain app.wire app.config app.outbound gevent loguru "
    "Crypto dns msgspec peewee playhouse maxminddb prometheus_client minio psycopg pymemcache pymysql redis urllib3",
    "actors": "app.domain app.ports actors gevent loguru",
    "actors.runtime": "pykka gevent greenlet loguru msgspec",
    "actors.messages": "app.domain actors.runtime.Message actors.runtime.Request",
    "actors.handler_messages": "app.domain actors.runtime.Request",
    "actors.registration_messages": "app.domain actors.runtime.Request",
    "app.proxy_service": "actors.messages actors.runtime app.ports app.domain",
    "app.inbound": "app.proxy_service app.wire app.ports app.domain app.config app.inbound "
    "actors.messages actors.runtime gevent greenlet loguru msgspec",
    "app.inbound.http": "app.proxy_service app.wire app.ports app.domain app.config app.inbound app.gateway "
    "actors.messages actors.runtime gevent greenlet loguru msgspec werkzeug",
    "app.gateway": "app.domain app.gateway actors.handler_messages actors.services actors.runtime "
    "gevent greenlet loguru msgspec werkzeug",
    "app.registration": "app.ports app.domain actors.registration_messages actors.runtime gevent loguru",
    "app.registration.client": "app.domain app.outbound.admin_api loguru",
    "app.admin": "app.admin app.config app.domain app.edge.metrics app.edge.parts app.edge.readiness app.edge.reload "
    "app.gateway app.inbound app.outbound app.ports app.proxy_service "
    "actors.messages actors.runtime actors.supervisor flask flask_openapi gevent loguru msgspec pydantic werkzeug",
    "app.cluster": "app.ports app.domain app.cluster gevent loguru msgspec urllib3",
    "app.cluster.process": "app.admin app.cluster app.config app.domain app.inbound app.outbound app.ports "
    "loguru msgspec",
    "app.anycast": "app.config app.outbound click gevent",
    "app.simulation": "app.domain app.simulation rich",
    "app.edge": "app.admin app.config app.domain app.edge app.gateway app.inbound app.outbound app.ports "
    "app.proxy_service app.registration app.wire actors gevent greenlet loguru",
    "app.edge.plans": "app.config app.domain",
    "app.commands": "app.anycast app.cluster app.commands app.config app.domain app.edge app.gateway app.inbound "
    "app.outbound app.ports app.registration app.simulation app.wire click gevent honcho loguru pydantic rich werkzeug",
}

ALLOWED_ANYTHING_BUT: dict[str, frozenset[str]] = {"pykka": frozenset({"actors.runtime"})}
"""Packages that only these modules import, whatever else they may."""


@dataclass(frozen=True)
class Import:
    """One imported name. `target` is a module, or module.name for `from module import name`."""

    importer: str
    target: str
    line: int
    is_hidden: bool
    """For the type checker alone."""

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.target}"


def modules_of(root: Path) -> dict[str, Path]:
    """Return every module of ours under a root, by dotted name."""
    found = {}
    for top in OURS:
        for path in sorted((root / top).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(module: str, path: Path) -> Iterator[Import]:
    """Walk the imports of a module, those in functions and those for the type checker alone included."""
    tree = ast.parse(path.read_text(), str(path))
    hidden: set[ast.AST] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            hidden.update(inner for statement in node.body for inner in ast.walk(statement))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno, node in hidden)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                yield Import(module, f"{base}.{alias.name}", node.lineno, node in hidden)


def room_of(name: str) -> str | None:
    """Return the room of a module or of a name in one: the longest row of the table that it lies in."""
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        room = ".".join(parts[:length])
        if room in MAY_IMPORT and (room != "app" or length == len(parts)):
            return room
    return None


def is_within(name: str, allowed: str) -> bool:
    return name == allowed or name.startswith(f"{allowed}.")


def fault_of(one: Import) -> str | None:
    """Say what is wrong with an import, if anything is."""
    room = room_of(one.importer)
    if room is None:
        return f"{one}, and {one.importer} is in no room of the table"
    package = one.target.split(".")[0]
    if one.importer not in ALLOWED_ANYTHING_BUT.get(package, frozenset({one.importer})):
        return f"{one}, which only {', '.join(ALLOWED_ANYTHING_BUT[package])} may"
    if package in sys.stdlib_module_names:
        if room == "app.domain" and package not in PURE_STDLIB:
            return f"{one}: the domain is pure"
        return None
    if not any(is_within(one.target, allowed) for allowed in MAY_IMPORT[room].split()):
        return f"{one}, which {room} may not"
    return None


def circles_among(root: Path) -> list[list[str]]:
    """Return the circles of imports, each as the way round."""
    modules = modules_of(root)
    arrows: dict[str, set[str]] = {}
    for module, path in modules.items():
        arrows[module] = set()
        for one in imports_of(module, path):
            target = one.target if one.target in modules else one.target.rpartition(".")[0]
            if target in modules and target != module:
                arrows[module].add(target)
    circles: list[list[str]] = []
    finished: set[str] = set()

    def walk(module: str, way: list[str]) -> None:
        if module in way:
            circles.append([*way[way.index(module) :], module])
        elif module not in finished:
            for target in sorted(arrows[module]):
                walk(target, [*way, module])
            finished.add(module)

    for module in modules:
        walk(module, [])
    return circles


def test_every_import_is_one_that_the_house_allows():
    faults = [fault_of(one) for module, path in modules_of(ROOT).items() for one in imports_of(module, path)]
    assert [fault for fault in faults if fault] == []


def test_nothing_imports_in_a_circle():
    assert [" -> ".join(circle) for circle in circles_among(ROOT)] == []


def test_no_module_of_ours_is_imported_for_the_type_checker_alone():
    """It would hide a circle from run time."""
    hidden = [one for module, path in modules_of(ROOT).items() for one in imports_of(module, path) if one.is_hidden]
    assert [str(one) for one in hidden if one.target.split(".")[0] in OURS] == []


def test_no_file_lies_beside_the_rooms():
    assert {path.stem for path in (ROOT / "app").glob("*.py")} == LOOSE


def test_every_room_of_the_table_is_inhabited_and_every_permission_names_something():
    modules = modules_of(ROOT)
    assert [room for room in MAY_IMPORT if not any(room_of(module) == room for module in modules)] == []
    ours = {allowed for row in MAY_IMPORT.values() for allowed in row.split() if allowed.split(".")[0] in OURS}
    assert [name for name in ours if room_of(name) is None] == []


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").rglob("*.py")), ids=lambda path: path.name)
def test_scripts_do_not_know_pykka(script):
    assert "pykka" not in {one.target.split(".")[0] for one in imports_of("script", script)}


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("app/domain/pool.py", "import time", "the domain is pure"),
        ("app/domain/pool.py", "def f():\n    import socket", "the domain is pure"),
        ("app/domain/pool.py", "from app import ports", "app.domain may not"),
        ("app/domain/pool.py", "from ..outbound import json_log", "app.domain may not"),
        ("app/domain/pool.py", "import gevent", "app.domain may not"),
        ("app/domain/selection/geo.py", "import socket", "the domain is pure"),
        ("app/domain/selection/geo.py", "from app.edge.plans import plan_pools", "app.domain may not"),
        ("app/wire/http1.py", "from app.config import Config", "app.wire may not"),
        ("app/wire/http1.py", "import gevent", "app.wire may not"),
        ("app/config/model.py", "from app.inbound.listener import BindError", "app.config may not"),
        ("app/config/model.py", "import httptools", "app.config may not"),
        ("app/edge/plans.py", "from actors.messages import ReplacePools", "app.edge.plans may not"),
        ("app/edge/reload.py", "from app.commands.serve import serve", "app.edge may not"),
        ("app/inbound/listeners.py", "from app.edge.reload import Reloader", "app.inbound may not"),
        ("app/inbound/http/server.py", "import httptools", "app.inbound.http may not"),
        ("app/inbound/tcp/relay.py", "from app.outbound.json_log import JsonLog", "app.inbound may not"),
        ("app/inbound/tcp/relay.py", "from actors.registry import RegistryActor", "app.inbound may not"),
        ("app/inbound/tcp/relay.py", "from app.edge.edge import Edge", "app.inbound may not"),
        ("app/inbound/listener.py", "from app.gateway.dispatch import Dispatch", "app.inbound may not"),
        ("app/registration/client.py", "import gevent", "app.registration.client may not"),
        ("app/admin/pools.py", "from app.edge.build import build", "app.admin may not"),
        ("app/commands/serve.py", "from actors.registry import RegistryActor", "app.commands may not"),
        ("app/outbound/probes.py", "from actors.runtime import tell", "app.outbound may not"),
        ("app/outbound/probes.py", "import app.inbound.dialer", "app.outbound may not"),
        ("app/proxy_service.py", "from app.inbound.connections import Connections", "app.proxy_service may not"),
        ("app/proxy_service.py", "import gevent", "app.proxy_service may not"),
        ("actors/registry.py", "from app.proxy_service import Actors", "actors may not"),
        ("actors/registry.py", "import pykka", "which only actors.runtime may"),
        ("actors/registry.py", "from app.edge.plans import backends_of", "actors may not"),
        ("actors/health.py", "from app.outbound.probes import probe", "actors may not"),
        ("app/edge/edge.py", "from pykka import ActorRegistry", "which only actors.runtime may"),
        ("actors/messages.py", "from actors.runtime import ask", "actors.messages may not"),
        ("app/newcomer.py", "import loguru", "in no room of the table"),
    ],
)
def test_a_wrong_arrow_would_be_found(tmp_path, path, source, fault):
    file = tmp_path / path
    file.parent.mkdir(parents=True)
    file.write_text(source)
    [(module, found)] = modules_of(tmp_path).items()
    assert fault in str([fault_of(one) for one in imports_of(module, found)])


@pytest.mark.parametrize(
    ("one", "other", "is_circle"),
    [
        ("from app.two import f", "import app.one", True),
        ("from app import two", "def f():\n    from . import one", True),
        ("from app.two import f", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import app.one", True),
        ("from app.two import f", "import gevent", False),
    ],
)
def test_a_circle_would_be_found(tmp_path, one, other, is_circle):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/one.py").write_text(one)
    (tmp_path / "app/two.py").write_text(other)
    assert bool(circles_among(tmp_path)) == is_circle
