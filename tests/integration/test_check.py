"""`check` and `serve` agree: each faulty configuration is refused by both, with the same lines."""

from __future__ import annotations

import os
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import clean_environment, command, run
from tests.forked import Forked
from tests.harness import frontend, pool, row, write_backends
from tests.traffic import free_ports

FIRST_FREE_PORT = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """An empty working directory with what faulty configurations refer to."""
    monkeypatch.chdir(tmp_path)
    Path("text").write_text("neither a database nor a certificate")
    Path("folder").mkdir()
    os.mkfifo("fifo")
    with closing(sqlite3.connect("other.db")) as database:
        database.execute("CREATE TABLE tokens (other TEXT)")
    return tmp_path


def variables(place: Path, changes: dict[str, str]) -> dict[str, str]:
    """Return variables of an edge in a folder of its own, on ports the kernel chooses."""
    listeners = ("METRICS_LISTEN_ADDR", "ADMIN_LISTEN_ADDR", *([] if "CONFIG" in changes else ["LISTEN_ADDR"]))
    addresses = dict.fromkeys(listeners, "127.0.0.1:0")
    files = {"DB_PATH": "routing.db", "GATEWAY_DB_PATH": "gateway.db", "ADMIN_TOKEN_FILE": "token"}
    return {**addresses, **{name: str(place / file) for name, file in files.items()}, "GEOIP_PATH": "off", **changes}


def served(settings: dict[str, str]) -> tuple[int, list[str]]:
    """Return the exit code and the lines of `serve` for a configuration that it refuses."""
    process = Forked(("serve",), clean_environment(**settings))
    try:
        with process.stderr as said:
            code, lines = process.wait(20), said.read().decode().splitlines()
        return code, [line for line in lines if not line.startswith("{")]  # the log
    finally:
        process.kill()


def refused(place: Path, changes: dict[str, str]) -> list[str]:
    """Return the lines with which `check` and `serve` refuse a configuration: the same, and no file is created."""
    settings = variables(place, changes)
    before = sorted(place.rglob("*"))
    done = command("check", **settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert sorted(place.rglob("*")) == before
    lines = done.stderr.splitlines()
    assert served(settings) == (2, lines)
    return [line.removeprefix("edgeproxy: ") for line in lines]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"LISTEN_ADDR": "192.0.2.1:0"},
         "EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on 192.0.2.1:0: Cannot assign requested"),
        ({"METRICS_LISTEN_ADDR": "192.0.2.1:0"},
         "EDGEPROXY_METRICS_LISTEN_ADDR: cannot listen on 192.0.2.1:0 (metrics): Cannot assign requested"),
        ({"DNS_LISTEN_ADDR": "192.0.2.1:0"}, "EDGEPROXY_DNS_LISTEN_ADDR: cannot listen on 192.0.2.1:0: Cannot assign"),
        ({"ADMIN_TLS_CERT": "{}/no.pem"},
         "EDGEPROXY_ADMIN_TLS_CERT: cannot load the admin API's TLS certificate from {}/no.pem: No such file"),
        ({"ADMIN_TLS_CERT": "{}/text"},
         "EDGEPROXY_ADMIN_TLS_CERT: cannot load the admin API's TLS certificate from {}/text: needs a"),
        ({"ADMIN_TLS_CERT": "{}/fifo"},
         "EDGEPROXY_ADMIN_TLS_CERT: cannot load the admin API's TLS certificate from {}/fifo: is not a regular file"),
        ({"ADMIN_TLS_CERT": "{}/text", "ADMIN_TLS_KEY": "{}/fifo"},
         "EDGEPROXY_ADMIN_TLS_CERT: cannot load the admin API's TLS certificate from {}/text with {}/fifo: is not a"),
        ({"DB_PATH": "{}/no/routing.db"}, "EDGEPROXY_DB_PATH='{}/no/routing.db': its directory does not exist"),
        ({"DB_PATH": "{}/text/routing.db"}, "EDGEPROXY_DB_PATH='{}/text/routing.db': its directory does not exist"),
        ({"GATEWAY_DB_PATH": "{}/no/a.db"}, "EDGEPROXY_GATEWAY_DB_PATH='{}/no/a.db': its directory does not exist"),
        ({"GATEWAY_DB_PATH": "{}/text"}, "{}/text: file is not a database"),
        ({"GATEWAY_DB_PATH": "{}/other.db"}, "{}/other.db: no such column: t1.name"),
        ({"BINDING_SNAPSHOT": "{}/no/snapshot"}, "EDGEPROXY_BINDING_SNAPSHOT='{}/no/snapshot': its directory does not"),
        ({"BINDING_SNAPSHOT": "{}/folder"}, "EDGEPROXY_BINDING_SNAPSHOT='{}/folder': is a directory"),
        ({"ADMIN_TOKEN_FILE": "{}/no/token"}, "the first token cannot be written to {}/no/token: No such file or"),
        ({"LOG_PATH": "{}/text/log"}, "EDGEPROXY_LOG_PATH='{}/text/log': Not a directory"),
        ({"GEOIP_PATH": "{}/text"}, "EDGEPROXY_GEOIP_PATH='{}/text': {}/text: is not a usable country database"),
        ({"GEOIP_PATH": "{}/no"}, "EDGEPROXY_GEOIP_PATH='{}/no': {}/no: "),
        ({"LISTEN_ADDR": "127.0.0.1:1", "ADMIN_LISTEN_ADDR": "127.0.0.1:1"},
         "EDGEPROXY_LISTEN_ADDR, EDGEPROXY_ADMIN_LISTEN_ADDR: 127.0.0.1:1 is given twice"),
        ({"region": "eu"}, "EDGEPROXY_region: no such variable, did you mean EDGEPROXY_REGION?"),
        ({"CONFIG": "{}/no.yaml"}, "EDGEPROXY_CONFIG='{}/no.yaml': No such file or directory"),
        ({"CONFIG": "{}/text"}, "{}/text:1: needs keys and values"),
    ],
)  # fmt: skip
def test_what_a_start_needs(place: Path, changes: dict[str, str], expected: str) -> None:
    there = str(place)
    line, *others = refused(place, {name: text.replace("{}", there) for name, text in changes.items()})
    assert others == [line.replace(":0:", ":0 (DNS over UDP):")] * ("DNS_LISTEN_ADDR" in changes)
    assert line.startswith(expected.replace("{}", there))


def written(place: Path, **keys: Any) -> dict[str, str]:
    content = {"frontends": [frontend("web", "web")], "backends": [pool("web", 1)], **keys}
    (place / "edge.yaml").write_text(yaml.safe_dump(content))
    return {"CONFIG": str(place / "edge.yaml")}


def test_every_fault_at_once(place: Path) -> None:
    changes = written(place, frontends=[frontend("web", "web") | {"listen": ["192.0.2.1:0", "127.0.0.1:0"]}])
    changes |= {"LOG_PATH": f"{place}/text/log", "METRICS_LISTEN_ADDR": "192.0.2.1:0"}
    assert refused(place, changes) == [
        "EDGEPROXY_METRICS_LISTEN_ADDR: cannot listen on 192.0.2.1:0 (metrics): Cannot assign requested address",
        f"{place}/edge.yaml:7: frontend web: cannot listen on 192.0.2.1:0: Cannot assign requested address",
        f"EDGEPROXY_LOG_PATH='{place}/text/log': Not a directory",
    ]


def test_a_frontend_that_dials_itself(place: Path) -> None:
    changes = written(place, frontends=[frontend("web", "web") | {"listen": "*:7009"}], backends=[pool("web", 7009)])
    (line,) = refused(place, changes)
    assert line == (
        f"{place}/edge.yaml:4: backends[0].servers[0].address='127.0.0.1:7009': frontend web would connect to itself: "
        "this is its own address"
    )


def test_a_frontend_on_every_address_that_dials_one_of_this_machine(place: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # connecting sends nothing
        sock.connect(("192.0.2.1", 9))
        host = sock.getsockname()[0]
    (port,) = free_ports(1)
    servers = [{"address": f"{host}:{port}"}]
    listening = frontend("web", "web") | {"listen": f"0.0.0.0:{port}"}
    changes = written(place, frontends=[listening], backends=[{"name": "web", "servers": servers}])
    assert refused(place, changes) == [
        f"backend web: {host}:{port}: frontend web would connect to itself: this is its own address"
    ]


def test_an_address_in_use_is_a_fault_to_serve_and_a_warning_to_check_since_it_may_be_this_edge(place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        addresses = ["{}:{}".format(*one.getsockname()) for one in (taken, other)]
        settings = variables(place, {"LISTEN_ADDR": addresses[0], "METRICS_LISTEN_ADDR": addresses[1]})
        lines = [
            f"EDGEPROXY_METRICS_LISTEN_ADDR: cannot listen on {addresses[1]} (metrics): Address already in use",
            f"EDGEPROXY_LISTEN_ADDR: frontend edge: cannot listen on {addresses[0]}: Address already in use",
        ]
        assert served(settings) == (2, [f"edgeproxy: {line}" for line in lines])
        done = command("check", **settings)
    assert done.returncode == 0
    unless = "if not by the running edge or its socket unit, a start will fail"
    assert done.stderr.splitlines() == [f"edgeproxy: warning: {line} ({unless})" for line in lines]


def test_files_that_only_other_processes_read_are_warnings(place: Path) -> None:
    done = command("check", **variables(place, {"API_CA_FILE": f"{place}/no.pem", "BGP_CONFIG": f"{place}/text"}))
    assert done.returncode == 0
    assert done.stderr == f"edgeproxy: warning: EDGEPROXY_API_CA_FILE='{place}/no.pem': does not exist\n"


def test_what_this_user_may_not_do(place: Path) -> None:
    """Without the capabilities of root: no port below 1024, no writing where nobody may write."""
    Path("folder").chmod(0o555)
    changes = {"BINDING_SNAPSHOT": f"{place}/folder/snapshot", "LOG_PATH": f"{place}/folder/log"}
    expected = [
        f"edgeproxy: EDGEPROXY_BINDING_SNAPSHOT='{place}/folder/snapshot': its directory cannot be written to",
        f"edgeproxy: EDGEPROXY_LOG_PATH='{place}/folder/log': Permission denied",
    ]
    if FIRST_FREE_PORT:
        changes["LISTEN_ADDR"] = address = f"127.0.0.1:{FIRST_FREE_PORT - 1}"
        told = f"frontend edge: cannot listen on {address}: Permission denied"
        expected.insert(0, f"edgeproxy: EDGEPROXY_LISTEN_ADDR: {told}")
    unprivileged = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    for name in ("check", "serve"):
        done = run([*unprivileged, sys.executable, "-m", "app", name], **variables(place, changes))
        assert (done.returncode, done.stderr.splitlines()) == (2, expected)


def warned(place: Path, changes: dict[str, str]) -> list[str]:
    """Return the warnings of `check --db`, which exits with 0."""
    done = command("check", "--db", **variables(place, changes))
    assert done.returncode == 0
    return [line.removeprefix("edgeproxy: warning: ") for line in done.stderr.splitlines()]


def test_frontends_without_a_backend_in_the_database_are_warnings(place: Path) -> None:
    (port,) = free_ports(1)
    write_backends(
        place / "routing.db",
        [
            row("lisbon", 1, app="game"),
            row("weightless", 2, app="shop", weight=0),
            row("ill", 3, app="shop", healthy=0),
            *(row(f"gone-{number}", 4, app="old", deleted=1) for number in range(5)),
            row("same", port, app="loop"),
            row("bad", 0),
        ],
    )
    names = {"good": "game", "misspelt": "gmae", "shop": "shop", "old": "old", "loop": "loop"}
    changes = written(
        place,
        frontends=[
            frontend(name, name) | ({"listen": f"*:{port}"} if name == "loop" else {}) for name in [*names, "listed"]
        ],
        backends=[*({"name": name, "app": app} for name, app in names.items()), pool("listed", 1)],
    )
    assert warned(place, changes) == [
        "routing database: 1 row refused; `backends list` names them",
        "frontend misspelt: the routing database has no backend of app 'gmae', did you mean game?",
        "frontend shop: no backend of app 'shop' takes new clients (weightless: weight 0: bound clients "
        "only; ill: unhealthy in the database)",
        "frontend old: no backend of app 'old' takes new clients (gone-0: drained (deleted); gone-1: drained "
        "(deleted); gone-2: drained (deleted); and 2 more)",
        "routing database: backend same: frontend loop would connect to itself: this is its own address",
    ]


def test_a_database_that_is_not_there_is_a_warning_since_the_edge_waits_for_it(place: Path) -> None:
    (line,) = warned(place, {})
    assert line.startswith(f"routing database: {place}/routing.db does not exist; create it with")
    write_backends(place / "routing.db", [])
    assert warned(place, {}) == ["frontend edge: the routing database has no backend"]
    assert warned(place, written(place)) == []


def test_what_differs_from_the_defaults_comes_first_with_its_source(place: Path) -> None:
    Path("edge.yaml").write_text("""\
global: {log_level: warning, metrics: {listen: "127.0.0.1:0"}}
frontends:
  - name: web
    listen: "127.0.0.1:0"
    backend: web
    protocol: http
    algorithm: round_robin  # the default
    http:
      response_headers: {set: {X-A: 1.10}, remove: [Server]}
backends:
  - name: web
    servers: [{address: 10.0.0.1:80, weight: 5}]
""")
    Path("variables").write_text("# ours\nEDGEPROXY_REGION=eu\nEDGEPROXY_APP=shop\nEDGEPROXY_DNS_TTL_SECS=5\n")
    environment = {"ENV_FILE": "variables", "DRAIN_TIMEOUT_SECS": "1m", "ADMIN_LISTEN_ADDR": "", "GEOIP_PATH": "off"}
    done = command("check", "--config", "edge.yaml", "--log-format", "text", **environment)
    assert done.returncode == 0
    words = [line.split() for line in done.stdout.splitlines()]
    assert "EDGEPROXY_APP" not in {first for first, *_ in words}
    first = [line[:3] for line in words[: words.index(["key", "value", "source"])]]
    assert first == [
        ["variable", "value", "source"],
        ["EDGEPROXY_CONFIG", "edge.yaml", "--config"],
        ["EDGEPROXY_ENV_FILE", "variables", "environment"],
        ["EDGEPROXY_REGION", "eu", f"{place}/variables:2"],
        ["EDGEPROXY_GEOIP_PATH", "off", "environment"],
        ["EDGEPROXY_DRAIN_TIMEOUT_SECS", "60", "environment"],
        ["EDGEPROXY_METRICS_LISTEN_ADDR", "127.0.0.1:0", "edge.yaml:1"],
        ["EDGEPROXY_ADMIN_LISTEN_ADDR", "environment", "Address"],
        ["EDGEPROXY_LOG_LEVEL", "warning", "edge.yaml:1"],
        ["EDGEPROXY_LOG_FORMAT", "text", "--log-format"],
    ]
    keys = words[words.index(["key", "value", "source"]) + 1 : [line[0] for line in words].index("frontend")]
    assert keys == [
        ["global.log_level", "warning", "edge.yaml:1"],
        ["global.metrics.listen", "127.0.0.1:0", "edge.yaml:1"],
        ["frontends[0].name", "web", "edge.yaml:3"],
        ["frontends[0].listen", "127.0.0.1:0", "edge.yaml:4"],
        ["frontends[0].backend", "web", "edge.yaml:5"],
        ["frontends[0].protocol", "http", "edge.yaml:6"],
        ["frontends[0].http.response_headers.set", "X-A:", "1.10", "edge.yaml:9"],
        ["frontends[0].http.response_headers.remove", "Server", "edge.yaml:9"],
        ["backends[0].name", "web", "edge.yaml:11"],
        ["backends[0].servers[0].address", "10.0.0.1:80", "edge.yaml:12"],
        ["backends[0].servers[0].weight", "5", "edge.yaml:12"],
    ]
    same = {line[0]: line[2] for line in words[len(first) + len(keys) :] if len(line) > 3}
    assert (same["EDGEPROXY_DNS_TTL_SECS"], same["EDGEPROXY_DB_PATH"]) == (f"{place}/variables:4", "default")
