"""Many frontends in one process, each with the algorithm, pool and limits of the configuration file."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.commands import command, edgeproxy, run
from tests.harness import ROOT, EdgeProcess, eventually, frontend, pool, row, write_backends
from tests.integration.peers import await_idle, lines_of
from tests.traffic import ask, named, serving, who


def weighted(name: str, ports: list[int], *weights: int) -> dict[str, Any]:
    """Return a pool of servers with these weights."""
    listed = zip(ports, weights, strict=True)
    return {"name": name, "servers": [{"address": f"127.0.0.1:{port}", "weight": weight} for port, weight in listed]}


class House:
    """An edge with all frontends of these tests, shared because starting takes a second. The servers are a, b and c."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        abc = self.ports = [stack.enter_context(serving(named(name))) for name in "abc"]
        other = stack.enter_context(serving(named("other")))
        self.six = stack.enter_context(serving(named("six"), "::1"))
        heads = stack.enter_context(serving(_header_then_end))
        database = folder / "routing.db"
        shop = [row("near", abc[0], app="shop"), row("far", abc[1], app="shop", region="eu", country="FR")]
        write_backends(database, [*shop, row("other", other, app="else")])
        config = {
            "frontends": [
                frontend("turns", "weights"),
                frontend("weights", "weights", algorithm="weighted"),
                frontend("turns-too", "weights"),
                frontend("few", "few", algorithm="least_connections"),
                frontend("feeding-few", "few"),
                frontend("hash", "hash", algorithm="ip_hash"),
                frontend("shop", "shop", algorithm="geo"),
                frontend("shop-in-turn", "shop"),
                frontend("every-row", "every-row"),
                frontend("plain", "affinity"),
                frontend("sticky", "affinity", affinity="on"),
                frontend("geo", "affinity", algorithm="geo"),
                frontend("loose-geo", "affinity", algorithm="geo", affinity=False),
                frontend("bound-one", "bound", affinity="on"),
                frontend("bound-two", "bound", affinity="on"),
                frontend("bound-elsewhere", "bound-elsewhere", affinity="on"),
                frontend("two-at-once", "just-a", limits={"max_connections": 2}),
                frontend("one-each", "just-a", limits={"max_connections_per_client": 1}),
                frontend("slow", "just-a", limits={"connection_rate_per_client": 0.001}),
                frontend("free", "just-a"),
                frontend("both", "six") | {"listen": ["127.0.0.1:0", "[::1]:0"]},
                frontend("counted-one", "counted-one"),
                frontend("counted-two", "counted-two"),
                frontend("impatient", "just-a", tcp={"idle_timeout": "300ms"}),
                frontend("behind", "heads", tcp={"send_proxy": "v1"}, proxy_protocol_from=["127.0.11.0/24"]),
            ],
            "backends": [
                weighted("weights", abc, 5, 1, 1),
                weighted("few", abc, 1, 1, 2),
                pool("hash", *abc),
                {"name": "shop", "app": "shop"},
                {"name": "every-row", "app": ""},
                pool("affinity", *abc),
                pool("bound", *abc),
                pool("bound-elsewhere", *abc[::-1]),
                pool("just-a", abc[0]),
                {"name": "six", "servers": [{"address": f"[::1]:{self.six}"}]},
                pool("counted-one", abc[0]),
                pool("counted-two", abc[0]),
                pool("heads", heads),
                pool("idle", abc[0]),
            ],
        }
        variables = {"GEOIP_PATH": "off", "REGION": "sa", "APP": "shop"}
        self.edge = EdgeProcess(folder, database, "", variables, config)
        stack.callback(self.edge.kill)
        eventually(lambda: self.edge.ready()["pools"]["every-row"]["candidates"] == 3)

    def responses(self, frontend: str, count: int, source: str = "") -> str:
        """Return which servers served consecutive connections to a frontend."""
        return "".join(who(self.edge, source, frontend=frontend) for _ in range(count))


def _header_then_end(sock: socket.socket) -> None:
    """Respond with the protocol that the PROXY header names."""
    head = sock.makefile("rb").readline()
    sock.sendall(head.split()[1] + b"\n")


@pytest.fixture(scope="module")
def house(tmp_path_factory):
    with ExitStack() as stack:
        yield House(tmp_path_factory.mktemp("house"), stack)


def lines_at(house: House, frontend: str, at_least: int) -> list[dict[str, Any]]:
    """Return the access lines of a frontend, or none if there are fewer."""
    lines = [line for line in house.edge.access_lines() if line["frontend"] == frontend]
    return lines if len(lines) >= at_least else []


# Algorithms


def test_frontends_on_one_pool_select_by_their_own_algorithms(house):
    assert house.responses("turns", 6) == "abcabc"
    assert house.responses("weights", 14) == "aabacaaaabacaa"
    assert house.responses("turns", 1) == "a", "nobody else's connection takes a turn"
    assert house.responses("turns-too", 4) == "abca"
    assert house.responses("turns", 2) == "bc"


def test_least_connections_counts_the_connections_of_all_frontends_by_weight(house):
    def come(held_then):
        eventually(lambda: house.edge.ready()["connections"] == held_then)
        return who(house.edge, frontend="few")

    await_idle(house.edge)
    with ExitStack() as stack:
        held = [stack.enter_context(house.edge.connect(frontend="feeding-few")) for _ in range(3)]
        assert [ask(sock) for sock in held] == ["a", "b", "c"]
        fourth = stack.enter_context(house.edge.connect(frontend="few"))
        assert ask(fourth) == "c", "1 at weight 2 is less than 1 at weight 1"
        held[0].close()
        assert [come(3) for _ in range(5)] == ["a"] * 5


def test_ip_hash_keeps_a_client_on_its_server_also_after_a_restart(house, edge):
    clients = [f"127.0.7.{number}" for number in range(1, 31)]
    before = {client: who(house.edge, client, frontend="hash") for client in clients}
    assert set(before.values()) == {"a", "b", "c"}
    assert {client: who(house.edge, client, frontend="hash") for client in reversed(clients)} == before
    started_later = edge(
        config={"frontends": [frontend("hash", "hash", algorithm="ip_hash")], "backends": [pool("hash", *house.ports)]}
    )
    assert {client: who(started_later, client) for client in clients} == before


def test_geo_serves_an_app_of_the_routing_database_beside_pools_of_listed_servers(house):
    assert house.responses("shop", 4) == "aaaa"
    assert sorted(house.responses("shop-in-turn", 4)) == ["a", "a", "b", "b"]
    assert {who(house.edge, frontend="every-row") for _ in range(3)} == {"a", "b", "other"}
    pools = house.edge.ready()["pools"]
    assert {name: (pools[name]["backends"], pools[name]["candidates"]) for name in ("shop", "every-row", "bound")} == {
        "shop": (2, 2), "every-row": (3, 3), "bound": (3, 3),
    }  # fmt: skip
    lines = eventually(lambda: lines_at(house, "shop", 1))
    assert (lines[0]["backend"], lines[0]["tier"]) == ("near", 2)


# Affinity


def test_affinity_is_on_for_geo_off_otherwise_or_as_configured(house):
    assert house.responses("plain", 3, "127.0.8.1") == "abc"
    assert len(set(house.responses("sticky", 6, "127.0.8.2"))) == 1
    assert len(set(house.responses("geo", 20, "127.0.8.3"))) == 1
    assert len(set(house.responses("loose-geo", 40, "127.0.8.4"))) > 1
    affinities = Counter((line["frontend"], line["affinity"]) for line in lines_of(house.edge, "127.0.8.2", at_least=6))
    assert affinities == {("sticky", "new"): 1, ("sticky", "hit"): 5}


def test_a_binding_holds_at_every_frontend_of_its_pool_that_binds_and_at_no_other_pool(house):
    def visits(name):
        return "".join(who(house.edge, client, frontend=name) for client in clients)

    clients = [f"127.0.9.{number}" for number in range(1, 7)]
    assert visits("bound-one") == "abcabc"
    assert visits("bound-two") == "abcabc"
    assert visits("bound-elsewhere") == "cbacba"


# Limits, addresses, options, and what is said of each


def test_limits_are_each_frontends_own(house):
    proxy = house.edge
    with ExitStack() as stack:
        for source, name in (("1", "two-at-once"), ("2", "two-at-once"), ("1", "one-each")):
            assert ask(stack.enter_context(proxy.connect(f"127.0.10.{source}", frontend=name))) == "a"
        assert who(proxy, "127.0.10.3", frontend="two-at-once") == ""
        assert who(proxy, "127.0.10.1", frontend="one-each") == ""
        assert who(proxy, "127.0.10.2", frontend="one-each") == "a"
        assert [who(proxy, "127.0.10.1", frontend="slow") for _ in range(3)] == ["a", "", ""]
        assert [who(proxy, "127.0.10.1", frontend="free") for _ in range(3)] == ["a"] * 3
        samples = proxy.metrics()
    refused = 'edgeproxy_connections_refused_total{{reason="{}"}}'
    assert samples[refused.format("max_connections")] == samples[refused.format("client_connections")] == 1
    assert samples[refused.format("client_rate")] == 2
    await_idle(proxy)
    assert who(proxy, "127.0.10.3", frontend="two-at-once") == "a"
    assert who(proxy, "127.0.10.1", frontend="one-each") == "a"


def test_a_frontend_of_several_addresses_and_families_names_its_listener(house):
    texts = []
    for host, port in house.edge.frontends["both"]:
        with socket.create_connection((host, port), 10) as client:
            assert ask(client) == "six"
        texts.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    lines = eventually(lambda: lines_at(house, "both", 2))
    assert [line["listener"] for line in lines] == texts
    assert {line["backend"] for line in lines} == {f"[::1]:{house.six}"}
    assert house.edge.ready()["frontends"]["both"] == texts


def test_metrics_distinguish_frontends_and_pools(house):
    def of(frontend):
        """Return the counters of a frontend and of the only server of its pool, which has the same name."""
        server = f'{{backend="127.0.0.1:{house.ports[0]}",pool="{frontend}"}}'
        names = [f'edgeproxy_connections_{name}{{frontend="{frontend}"}}' for name in ("total", "active")]
        for name in ("connections_total", "connections_active", "bytes_sent_total", "bytes_received_total"):
            names.append(f"edgeproxy_backend_{name}{server}")
        samples = house.edge.metrics()
        return [samples.get(name, 0) for name in names]

    assert house.responses("counted-one", 3) == "aaa"
    with house.edge.connect(frontend="counted-two") as held:
        assert ask(held) == "a"
        eventually(lambda: of("counted-one") == [3, 0, 3, 0, 6, 12])
        eventually(lambda: of("counted-two") == [1, 1, 1, 1, 2, 4])


def test_options_of_a_frontend_are_its_own(house):
    with (
        house.edge.connect(frontend="free") as patient,
        house.edge.connect("127.0.12.1", frontend="impatient") as impatient,
    ):
        assert ask(patient) == ask(impatient) == "a"
        assert lines_of(house.edge, "127.0.12.1")[0]["termination"] == "tD"
        assert ask(patient) == "a"
    with house.edge.connect("127.0.11.1", frontend="behind") as client:
        client.sendall(b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
        assert client.makefile("rb").readline() == b"TCP4\n"
    assert lines_of(house.edge, "192.0.2.7")[0]["frontend"] == "behind"


def test_probable_mistakes_are_logged_as_warnings(house):
    warned = [line["event"] for line in house.edge.log() if line.get("level") == "WARNING"]
    lacking = "algorithm geo needs locations, which listed servers do not have"
    assert warned == [
        "configuration: backend idle is used by no frontend",
        f"configuration: frontend geo: {lacking}",
        f"configuration: frontend loose-geo: {lacking}",
        f"configuration: EDGEPROXY_APP: ignored, because the frontends come from {house.edge.config_path}",
    ]


# Starts that cannot succeed, and looking before


def serve(tmp_path, config, prefix=()):
    """Run `serve` with an invalid configuration."""
    path = tmp_path / "edge.yaml"
    path.write_text(config if isinstance(config, str) else yaml.safe_dump(config))
    where = {"METRICS_LISTEN_ADDR": "127.0.0.1:0", "LOG_PATH": str(tmp_path / "log"), "GEOIP_PATH": "off"}
    return run([*prefix, sys.executable, "-m", "app", "serve", "--config", str(path)], **where)


def test_a_port_that_is_taken_is_one_line_that_names_file_line_frontend_and_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        listeners = [frontend("free", "p"), frontend("clashing", "p") | {"listen": ["127.0.0.1:0", address]}]
        done = serve(tmp_path, {"frontends": listeners, "backends": [pool("p", 1)]})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"edgeproxy: {tmp_path / 'edge.yaml'}:10: frontend clashing: cannot listen on {address}: Address already in use"
    ]


def test_a_metrics_port_that_is_taken_is_named_with_the_line_of_the_file_or_the_variable(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = "{}:{}".format(*taken.getsockname())
        file = tmp_path / "edge.yaml"
        listening = {"frontends": [frontend("web", "p")], "backends": [pool("p", 1)]}
        for process, where, variables in (
            ({"global": {"metrics": {"listen": address}}}, f"{file}:3", {}),
            ({"global": {"log_level": "info"}}, "EDGEPROXY_METRICS_LISTEN_ADDR", {"METRICS_LISTEN_ADDR": address}),
        ):
            file.write_text(yaml.safe_dump({**process, **listening}, sort_keys=False))
            done = edgeproxy("serve", "--config", file, LOG_PATH=str(tmp_path / "log"), GEOIP_PATH="off", **variables)
            assert done.stderr.splitlines() == [
                f"edgeproxy: {where}: cannot listen on {address} (metrics): Address already in use"
            ]


def test_two_frontends_of_the_file_with_one_address_are_a_fault_of_the_file(tmp_path):
    listeners = [frontend("one", "p") | {"listen": "*:7001"}, frontend("two", "p") | {"listen": "127.0.0.1:7001"}]
    done = serve(tmp_path, {"frontends": listeners, "backends": [pool("p", 1)]})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "frontends[1].listen: 127.0.0.1:7001 clashes with 0.0.0.0:7001 of frontends[0].listen" in line


def test_a_port_that_needs_privileges_is_one_line_too(tmp_path):
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if not first_free:
        pytest.skip("no port needs privileges here")
    address = f"127.0.0.1:{first_free - 1}"
    config = {"frontends": [frontend("web", "p") | {"listen": address}], "backends": [pool("p", 1)]}
    unprivileged = ["setpriv", "--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"]
    done = serve(tmp_path, config, prefix=unprivileged if os.geteuid() == 0 else [])
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"edge.yaml:7: frontend web: cannot listen on {address}: Permission denied")


FAULTS = """\
frontends:
  - name: web
    listen: 127.0.0.1:99999
    backend: sevrers
    algoritm: weighted
  - name: web
    listen: 127.0.0.1:0
    backend: servers
    tcp: {idle_timeout: soon}
backends:
  - name: servers
    servers:
      - address: not-an-address
        weight: -1
  - name: empty
"""
EXPECTED = [
    (3, "frontends[0].listen", "99999"),
    (4, "frontends[0].backend='sevrers'", "did you mean servers?"),
    (5, "frontends[0].algoritm", "did you mean algorithm?"),
    (6, "frontends[1].name='web'", "frontends[0] already has this name"),
    (9, "frontends[1].tcp.idle_timeout='soon'", ""),
    (13, "backends[0].servers[0].address='not-an-address'", ""),
    (14, "backends[0].servers[0].weight=-1", ""),
    (15, "backends[1]", "needs either servers or app"),
]


def test_every_fault_of_the_file_is_a_line_with_place_value_and_rule_and_ends_check_and_serve(tmp_path):
    served = serve(tmp_path, FAULTS)
    path = tmp_path / "edge.yaml"
    for done in (served, command("check", "--config", path)):
        assert (done.returncode, done.stdout) == (2, "")
        lines = done.stderr.splitlines()
        assert len(lines) == len(EXPECTED), done.stderr
        for line, (number, where, rule) in zip(lines, EXPECTED, strict=True):
            assert line.startswith(f"edgeproxy: {path}:{number}: {where}")
            assert rule in line


def test_a_file_that_is_not_there_is_one_line(tmp_path):
    absent = tmp_path / "absent.yaml"
    done = edgeproxy("serve", "--config", absent)
    assert (done.returncode, done.stderr) == (2, f"edgeproxy: --config='{absent}': No such file or directory\n")
    done = command("check", CONFIG=str(absent))
    assert (done.returncode, done.stderr) == (2, f"edgeproxy: EDGEPROXY_CONFIG='{absent}': No such file or directory\n")


def test_check_shows_the_frontends_and_warns_of_probable_mistakes(tmp_path):
    path = tmp_path / "edge.yaml"
    listeners = [frontend("web", "p", algorithm="geo") | {"listen": "*:7002"}]
    path.write_text(
        yaml.safe_dump({"frontends": listeners, "backends": [pool("p", 1, 2), {"name": "idle", "app": "x"}]})
    )
    done = command("check", "--config", path, APP="shop")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "edgeproxy: warning: backend idle is used by no frontend",
        "edgeproxy: warning: frontend web: algorithm geo needs locations, which listed servers do not have",
        f"edgeproxy: warning: EDGEPROXY_APP: ignored, because the frontends come from {path}",
    ]
    (line,) = [line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["web"]]
    assert line == ["web", "0.0.0.0:7002,[::]:7002", "tcp", "p", "2", "geo", "on"]


def test_schema_prints_the_json_schema():
    done = command("schema")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads((ROOT / "docs/edgeproxy.schema.json").read_text())


@pytest.mark.parametrize(
    ("option", "variable", "in_file", "level"),
    [
        ("error", "debug", "info", "error"),
        ("", "error", "debug", "error"),
        ("", "", "error", "error"),
        ("", "", "", "info"),
    ],
)
def test_the_command_line_overrides_the_environment_which_overrides_the_file(
    tmp_path, option, variable, in_file, level
):
    path = tmp_path / "edge.yaml"
    content = {"frontends": [frontend("web", "p")], "backends": [pool("p", 1)]}
    path.write_text(yaml.safe_dump(content | ({"global": {"log_level": in_file}} if in_file else {})))
    options = ["--log-level", option] if option else []
    done = command("check", "--config", path, *options, **({"LOG_LEVEL": variable} if variable else {}))
    assert done.returncode == 0, done.stderr
    (line,) = [line.split() for line in done.stdout.splitlines() if line.startswith(" EDGEPROXY_LOG_LEVEL ")]
    assert line[1] == level


def test_the_option_of_serve_sets_the_log_level(edge, house):
    config = {
        "global": {"log_level": "error"},
        "frontends": [frontend("web", "p")],
        "backends": [pool("p", 1, house.ports[0])],
    }
    proxy = edge(config=config, options=("--log-level", "debug"), LOG_LEVEL="warning")
    assert who(proxy) == "a"
    eventually(lambda: [line for line in proxy.log() if line.get("level") == "DEBUG"], what="a failed dial at DEBUG")
