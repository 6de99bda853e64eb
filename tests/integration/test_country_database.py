"""The country database: the default, custom ones in either schema, none, and replacement while clients connect.

Small databases locate the loopback addresses from which the tests connect.
"""

from __future__ import annotations

import ipaddress
import itertools
import os
import socket
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from app.outbound.maxmind_geo import SHIPPED_DATABASE
from app.wire import proxy_protocol
from tests.commands import command, edgeproxy
from tests.harness import EdgeProcess, eventually, row
from tests.traffic import ask, load, named, who

RELOADS = 'edgeproxy_geo_reloads_total{{result="{}"}}'
BUILT = "edgeproxy_geo_database_build_timestamp_seconds"
_numbers = itertools.count(1)


def maxmind(country: str) -> dict[str, Any]:
    """A record of MaxMind's schema."""
    return {"country": {"iso_code": country, "names": {"en": "somewhere"}}, "continent": {"code": "XX"}}


def flat(country: str) -> dict[str, Any]:
    """A record of the flat schema, which the default database has."""
    return {"country_code": country}


def make_database(path: Path, networks: dict[str, Any], version: int = 4) -> Path:
    """Write a database of these networks and records, and move it into place."""
    writer = MMDBWriter(version, "Test-Country", ipv4_compatible=version == 6)
    for network, record in networks.items():
        writer.insert_network(IPSet([network]), record)
    fresh = path.with_name("fresh.mmdb")
    writer.to_db_file(str(fresh))
    fresh.replace(path)
    return path


def from_network(network: int) -> str:
    """Return an unused address of 127.<network>.0.0/16: a bound client would not be located again."""
    number = next(_numbers)
    return f"127.{network}.{number // 250}.{number % 250 + 1}"


@pytest.fixture
def cities(origin):
    """Return rows of one backend each in Brazil, in Japan and far from both."""
    return [
        row("br", origin(named("br")), country="BR", region="sa"),
        row("jp", origin(named("jp")), country="JP", region="ap"),
        row("za", origin(named("za")), country="ZA", region="af"),
    ]


def line_of(edge: EdgeProcess, client: str) -> dict[str, Any]:
    """Wait for the access line of a client."""
    return dict(eventually(lambda: [line for line in edge.access_lines() if line["client"] == client])[0])


def ask_as(edge: EdgeProcess, client: str) -> str:
    """Return which backend serves a client with another address, sent by PROXY protocol."""
    with edge.connect() as sock:
        sock.sendall(proxy_protocol.encode(2, (client, 1234), ("::1" if ":" in client else "127.0.0.1", 80)))
        return ask(sock)


def test_the_shipped_database_knows_where_clients_are(edge, cities):
    proxy = edge(cities, REGION="af", PROXY_PROTOCOL_FROM="127.0.0.1/32")
    expected = {
        "200.160.2.3": ("br", "BR", "sa", 0),
        "2001:12ff::10": ("br", "BR", "sa", 0),
        "::ffff:200.160.2.3": ("br", "BR", "sa", 0),
        "133.11.0.1": ("jp", "JP", "ap", 0),
        "200.89.70.3": ("br", "CL", "sa", 1),
        "193.51.0.1": ("za", "FR", "eu", 2),
        "192.0.2.1": ("za", None, None, 2),
    }
    for client, (backend, country, region, tier) in expected.items():
        assert ask_as(proxy, client) == backend
        plain = str(ipaddress.ip_address(client).ipv4_mapped or client) if ":" in client else client
        line = line_of(proxy, plain)
        assert (line["country"], line["region"], line["tier"]) == (country, region, tier), client
    geography = proxy.ready()["geography"]
    assert geography["age_days"] >= 0
    assert geography["built_at"].startswith("20")
    assert proxy.metrics()[BUILT] > 1.7e9


def test_geography_off_leaves_everybody_unknown(edge, cities):
    proxy = edge(cities, GEOIP_PATH="off", REGION="ap", PROXY_PROTOCOL_FROM="127.0.0.1/32")
    assert ask_as(proxy, "200.160.2.3") == "jp"
    line = line_of(proxy, "200.160.2.3")
    assert (line["country"], line["region"], line["tier"]) == (None, None, 2)
    assert proxy.ready()["geography"] is None
    assert BUILT not in proxy.metrics()


@pytest.mark.parametrize(("record", "version"), [(maxmind, 6), (flat, 4)])
def test_both_schemas_and_all_forms_of_no_country_are_read(edge, cities, tmp_path, record, version):
    countries = {"1": "BR", "2": "JP", "3": "None", "4": "", "5": "jp"}
    networks = {f"127.{number}.0.0/16": record(country) for number, country in countries.items()}
    path = make_database(tmp_path / "country.mmdb", networks | {"127.6.0.0/16": {}}, version)
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    assert [who(proxy, from_network(number)) for number in range(1, 8)] == ["br", "jp", "za", "za", "jp", "za", "za"]
    located = eventually(lambda: proxy.access_lines()[6:] and proxy.access_lines())
    assert [line["country"] for line in located] == ["BR", "JP", None, None, "JP", None, None]


@pytest.mark.parametrize("content", [None, b"junk" * 1000])
def test_a_path_that_cannot_be_read_at_the_start_is_an_exit_with_2_that_names_it(tmp_path, content):
    path = tmp_path / "country.mmdb"
    if content is not None:
        path.write_bytes(content)
    for done in (
        edgeproxy("serve", GEOIP_PATH=str(path), LISTEN_ADDR="127.0.0.1:0", METRICS_LISTEN_ADDR="127.0.0.1:0"),
        command("check", GEOIP_PATH=str(path)),
        command("explain", "200.160.2.3", GEOIP_PATH=str(path)),
    ):
        assert (done.returncode, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert str(path) in done.stderr


def damaged_copies(good: bytes) -> dict[str, bytes]:
    """Return damaged copies of a database, by kind of damage."""
    middle = len(good) // 2
    return {
        "truncated": good[:middle],
        "truncated by a byte": good[:-1],
        "empty": b"",
        "junk over the middle": good[:middle] + os.urandom(600) + good[middle + 600 :],
        "another thing": b'{"BR": "127.1.0.0/16"}\n' * 100,
    }


def test_a_replaced_database_is_swapped_or_refused_without_an_effect_on_clients(edge, cities, tmp_path, subtests):
    """Many single addresses make a search tree that fills most of the file."""
    many = {f"10.{a}.{b}.7/32": flat("FR") for a in range(40) for b in range(25)}
    path = make_database(tmp_path / "country.mmdb", many | {"127.1.0.0/16": maxmind("BR")})
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    with load(proxy) as clients:
        assert who(proxy, from_network(1)) == "br"
        make_database(path, many | {"127.1.0.0/16": maxmind("JP")})
        eventually(lambda: proxy.metrics().get(RELOADS.format("ok")) == 1, what="the swap")
        assert who(proxy, from_network(1)) == "jp"
        good = path.read_bytes()
        for number, (name, content) in enumerate(damaged_copies(good).items(), start=1):
            with subtests.test(name):
                path.write_bytes(content)
                eventually(lambda n=number: proxy.metrics().get(RELOADS.format("refused"), 0) >= n, what="refused")
                assert who(proxy, from_network(1)) == "jp", "the old one stays"
        path.unlink()
        make_database(path, many | {"127.1.0.0/16": flat("BR")})
        eventually(lambda: proxy.metrics()[RELOADS.format("ok")] == 2, what="the next swap")
        assert who(proxy, from_network(1)) == "br"
    assert clients.responses[""] == 0
    refusals = [line["event"] for line in proxy.log() if line["event"].startswith("country database refused")]
    assert len(refusals) >= len(damaged_copies(good))
    assert all(str(path) in line for line in refusals)
    assert not [line for line in proxy.log() if "traceback" in line]
    assert proxy.stop() == 0
    assert proxy.process.stderr is not None
    assert proxy.process.stderr.read() == b"", "the log has all there is to say"


def test_the_shipped_database_with_a_little_junk_in_its_middle_is_refused(tmp_path):
    """Thousands of look-ups may miss a damaged stretch: the whole tree is checked."""
    import lzma

    content = bytearray(lzma.decompress(SHIPPED_DATABASE.read_bytes()))
    middle = len(content) // 2
    content[middle : middle + 300] = os.urandom(300)
    path = tmp_path / "country.mmdb"
    path.write_bytes(content)
    done = command("check", GEOIP_PATH=str(path))
    assert done.returncode == 2
    assert "damaged" in done.stderr


def test_truncating_the_file_under_a_running_edge_does_not_kill_it(edge, cities, tmp_path):
    """A database mapped from disk would end the process with SIGBUS at the next look-up."""
    many = {f"10.{a}.{b}.7/32": flat("FR") for a in range(40) for b in range(25)}
    path = make_database(tmp_path / "country.mmdb", many | {"127.1.0.0/16": maxmind("BR")})
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    os.truncate(path, 0)
    assert {who(proxy, from_network(1)) for _ in range(20)} == {"br"}
    assert proxy.stop() == 0


def test_an_ipv6_client_is_located_over_an_ipv6_listener(edge, cities, tmp_path):
    path = make_database(tmp_path / "country.mmdb", {"::1/128": flat("JP")}, version=6)
    proxy = edge(cities, listen="[::1]:0", GEOIP_PATH=path, REGION="af")
    with socket.create_connection(proxy.address, 10) as client:
        assert ask(client) == "jp"
    assert line_of(proxy, "::1")["country"] == "JP"


@pytest.mark.parametrize(
    "record",
    [{"autonomous_system_number": 1}, {"country": {"iso_code": "12"}}, {"country_code": "XX"}, {"country": "BR"}],
)
def test_a_database_without_a_country_is_refused_and_the_path_is_named(cities, edge, tmp_path, record):
    path = make_database(tmp_path / "asn.mmdb", {"127.0.0.0/8": record})
    done = command("check", GEOIP_PATH=str(path))
    assert done.returncode == 2
    assert "no record of this Test-Country database has a country" in done.stderr
    make_database(path, {"127.0.0.0/8": maxmind("BR")})
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    make_database(path, {"127.0.0.0/8": record})
    eventually(lambda: proxy.metrics().get(RELOADS.format("refused")) == 1, what="it is refused while running, too")
    assert who(proxy, from_network(1)) == "br"


def test_what_is_no_database_is_named_by_its_path(tmp_path):
    path = tmp_path / "text.mmdb"
    path.write_text("not a database")
    done = command("check", GEOIP_PATH=str(path))
    assert done.returncode == 2
    assert "/proc/self/fd" not in done.stderr
    assert str(path) in done.stderr


def test_a_continent_alone_gives_the_region(cities, edge, tmp_path):
    path = make_database(tmp_path / "continents.mmdb", {"127.0.0.0/8": {"continent": {"code": "SA"}}})
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    assert who(proxy, from_network(2)) == "br"
    (line,) = eventually(proxy.access_lines)
    assert (line["country"], line["region"], line["tier"]) == (None, "sa", 1)


def test_a_fifo_in_its_place_is_refused_and_a_database_there_is_loaded_again(cities, edge, tmp_path):
    path = make_database(tmp_path / "country.mmdb", {"127.0.0.0/8": maxmind("BR")})
    proxy = edge(cities, GEOIP_PATH=path, REGION="af")
    path.unlink()
    os.mkfifo(path)
    eventually(lambda: proxy.metrics().get(RELOADS.format("refused")) == 1, what="nobody waits for its other end")
    line = eventually(lambda: proxy.event("country database refused"), what="the refusal is logged")
    assert "is not a regular file" in line["event"]
    make_database(path, {"127.0.0.0/8": maxmind("JP")})
    eventually(lambda: who(proxy, from_network(1)) == "jp", what="it is loaded again")
