"""Backends by host name: the effect on clients of changes and failures of a real name server."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from dnslib import RCODE
from gevent.server import StreamServer

from app.domain import host_names
from app.outbound import name_lookup, name_watcher
from app.outbound.name_lookup import HOSTS_SECONDS, MAX_ADDRESSES, NameLookup, NameNotFound
from tests.admin_client import admin_of, admin_variables
from tests.commands import command
from tests.edge_in_process import EdgeInside, edge_in_process
from tests.harness import eventually, frontend, pool, row, write_backends
from tests.name_server import NameServer, name_server
from tests.traffic import ask, named, serving, who

NAME = "app.example"


@pytest.fixture
def server() -> Iterator[NameServer]:
    with name_server() as one:
        yield one


# Looking up


def test_both_families_are_found_and_the_shortest_ttl_applies(server: NameServer, tmp_path: Path) -> None:
    server.names = {NAME: (["real.example"], 7), "real.example": (["127.0.0.1", "::1"], 300)}
    found = server.lookup(tmp_path).find(NAME)
    assert (set(found.addresses), found.seconds) == ({"127.0.0.1", "::1"}, 7)


def test_ipv6_comes_first_and_the_rest_as_it_came(server: NameServer, tmp_path: Path) -> None:
    server.names = {NAME: (["127.0.0.2", "127.0.0.1", "::1"], 30)}
    assert server.lookup(tmp_path).find(NAME).addresses == ("::1", "127.0.0.2", "127.0.0.1")


def test_of_thousands_of_addresses_a_few_are_enough(server: NameServer, tmp_path: Path) -> None:
    server.names = {NAME: ([f"127.0.{number >> 8}.{number & 255}" for number in range(2000)], 30)}
    assert len(server.lookup(tmp_path).find(NAME).addresses) == MAX_ADDRESSES


def test_the_hosts_file_overrides_the_name_server(server: NameServer, tmp_path: Path) -> None:
    lookup = server.lookup(
        tmp_path, "# comment\nnonsense app.example\n127.0.0.9 other APP.example # us\n::1 app.example\n"
    )
    found = lookup.find(NAME)
    assert (set(found.addresses), found.seconds) == ({"127.0.0.9", "::1"}, HOSTS_SECONDS)
    assert server.asked == []


@pytest.mark.parametrize(
    ("rcode", "names", "reason"),
    [
        (0, {}, "the name does not exist"),
        (0, {NAME: ([], 30)}, "the name has no address"),
        (RCODE.SERVFAIL, {}, "SERVFAIL"),
    ],
)
def test_why_a_name_is_not_found(
    server: NameServer, tmp_path: Path, rcode: int, names: dict[str, Any], reason: str
) -> None:
    server.rcode, server.names = rcode, names
    with pytest.raises(NameNotFound, match=reason):
        server.lookup(tmp_path).find(NAME)


def test_a_silent_name_server_is_given_up(server: NameServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(name_lookup, "DEADLINE_SECONDS", 0.2)
    server.is_silent = True
    with pytest.raises(NameNotFound, match="no name server responds"):
        server.lookup(tmp_path).find(NAME)


def test_a_machine_without_resolver_configuration_finds_nothing(tmp_path: Path) -> None:
    with pytest.raises(NameNotFound, match=r"resolv\.conf"):
        NameLookup(tmp_path / "hosts", tmp_path / "resolv.conf").find(NAME)


# Serving


@pytest.fixture
def inside(server: NameServer, tmp_path: Path) -> Iterator[Callable[..., EdgeInside]]:
    """Return a function that runs an edge with the given rows and the test's name server."""
    with edge_in_process(tmp_path, []) as edge:
        edge.parts.pools.names.lookup = server.lookup(tmp_path)

        def use(*rows: dict[str, Any]) -> EdgeInside:
            write_backends(tmp_path / "inside.db", list(rows))
            eventually(lambda: len(edge.parts.watcher.current.backends) == len(rows))
            return edge

        yield use


@pytest.fixture
def twin_port(origin: Callable[..., int]) -> int:
    """A port on which every loopback address serves and returns which one it is."""

    def say(sock: socket.socket) -> None:
        named(sock.getsockname()[0])(sock)

    return origin(say, host="0.0.0.0")


def reach(edge: EdgeInside) -> str:
    try:
        with edge.connect() as sock:
            return ask(sock)
    except ConnectionError:
        return ""


def test_a_change_of_address_is_followed_and_open_connections_run_on(
    server: NameServer, inside: Callable[..., EdgeInside], twin_port: int
) -> None:
    server.names = {NAME: (["127.0.0.1"], 1)}
    edge = inside(row("a", twin_port, wg_ip=NAME))
    eventually(lambda: reach(edge) == "127.0.0.1")
    with edge.connect() as held:
        assert ask(held) == "127.0.0.1"
        server.names = {NAME: (["127.0.0.2"], 1)}
        eventually(lambda: reach(edge) == "127.0.0.2")
        assert ask(held) == "127.0.0.1"
        assert edge.leases() == 1


def test_of_several_addresses_one_that_takes_connections_serves_until_it_does_not(
    server: NameServer, inside: Callable[..., EdgeInside], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(name_watcher, "SEVERAL_SECONDS", 0.1)
    server.names = {NAME: (["::1", "127.0.0.9", "127.0.0.2"], 300)}
    with serving(named("second"), "127.0.0.2") as port:
        edge = inside(row("a", port, wg_ip=NAME))
        eventually(lambda: reach(edge) == "second")
        first = StreamServer(("127.0.0.9", port), lambda sock, _address: named("first")(sock))
        first.start()
        asked = len(server.asked)
        eventually(lambda: len(server.asked) >= asked + 4)
        assert reach(edge) == "second", "it still serves"
    eventually(lambda: reach(edge) == "first")
    first.stop(timeout=0.1)


def test_a_name_server_that_fails_takes_no_backend_away(
    server: NameServer, inside: Callable[..., EdgeInside], twin_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_names, "RETRY_SECONDS", 0.2)
    server.names = {NAME: (["127.0.0.2"], 1)}
    edge = inside(row("a", twin_port, wg_ip=NAME))
    eventually(lambda: reach(edge) == "127.0.0.2")
    server.rcode = RCODE.SERVFAIL
    stale = 'edgeproxy_host_names{state="stale"}'
    eventually(lambda: edge.metrics()[stale] == 1)
    assert reach(edge) == "127.0.0.2"
    (told,) = [line["event"] for line in edge.logged() if "it keeps 127.0.0.2" in line["event"]]
    assert told.startswith(f"host name {NAME} cannot be resolved: ")
    server.rcode = 0
    eventually(lambda: edge.metrics()[stale] == 0)


def test_a_backend_with_an_unknown_name_gets_no_clients_and_others_serve(
    server: NameServer, inside: Callable[..., EdgeInside], twin_port: int
) -> None:
    edge = inside(row("lost", twin_port, wg_ip=NAME), row("found", twin_port, wg_ip="127.0.0.2"))
    eventually(lambda: any("its backends get no connections" in line["event"] for line in edge.logged()))
    assert {reach(edge) for _ in range(10)} == {"127.0.0.2"}
    metrics = edge.metrics()
    assert metrics['edgeproxy_host_names{state="unresolved"}'] == 1
    assert metrics['edgeproxy_backend_available{backend="lost",pool="default"}'] == 0


def test_a_silent_name_server_delays_no_client(
    server: NameServer, inside: Callable[..., EdgeInside], twin_port: int
) -> None:
    server.is_silent = True
    edge = inside(row("lost", twin_port, wg_ip=NAME), row("found", twin_port, wg_ip="127.0.0.1"))
    eventually(lambda: server.asked)
    assert reach(edge) == "127.0.0.1"


def test_the_systems_hosts_file_names_localhost(edge: Any, origin: Callable[..., int], tmp_path: Path) -> None:
    port = origin(named("here"))
    proxy = edge([row("a", port, wg_ip="LocalHost")], **admin_variables(tmp_path))
    assert who(proxy) == "here", "it was known when the doors opened"
    (member,) = admin_of(proxy, tmp_path).get("/api/pools/default/backends")["items"]
    assert (member["host_name"], member["address"]) == ("localhost", f"127.0.0.1:{port}")


def test_a_server_of_a_configuration_file_may_have_a_name(edge: Any, origin: Callable[..., int]) -> None:
    config = {"frontends": [frontend("web", "web")], "backends": [pool("web")]}
    config["backends"][0]["servers"] = [{"address": f"localhost:{origin(named('here'))}"}]
    proxy = edge(config=config)
    assert who(proxy) == "here"
    config["backends"][0]["servers"] = [{"address": f"localhost:{origin(named('there'))}"}]
    proxy.reload(config)
    eventually(lambda: who(proxy) == "there")


def test_explain_looks_names_up_once(routing_db: Path) -> None:
    write_backends(routing_db, [row("here", 80, wg_ip="localhost"), row("lost", 80, wg_ip="nobody.invalid")])
    done = command("explain", "200.160.2.3", "--json", DB_PATH=str(routing_db))
    found = {one["id"]: one for one in json.loads(done.stdout)["items"]}
    assert found["here"]["host"] in ("127.0.0.1", "::1")
    assert found["here"]["is_candidate"]
    assert found["lost"]["why"] == "out: host name nobody.invalid is not resolved"
    assert "nobody.invalid:80" in command("explain", "200.160.2.3", DB_PATH=str(routing_db)).stdout


def test_rows_keep_the_name_they_were_given(tmp_path: Path) -> None:
    database = tmp_path / "named.db"
    load = ["backends", "--db", database, "load", "-"]
    assert command(*load, stdin="id,wg_ip,port\na,App.Example,80\n").returncode == 0
    (one,) = json.loads(command("backends", "--db", database, "list", "--json").stdout)
    assert one["wg_ip"] == "app.example"
    assert " serving" in command("backends", "--db", database, "list").stdout
