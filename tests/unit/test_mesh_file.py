"""The file of the private network: valid contents, and all faults at once with line, path, value and rule."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, ip_network

import pytest
import yaml

from app.config import ConfigError
from app.config.mesh import Mesh, read_mesh, read_plan
from app.domain.mesh.plan import InstanceRequest, PopRequest
from app.wire.exabgp_conf import exabgp_conf

KEY = "8K+1JB0cwk3CbsgirDy7ctzXikCzos7Lwu1RVIv59Xs="
POP = {"name": "gru", "region": "sa"}
BGP = {
    "router_id": "192.0.2.1",
    "neighbours": [{"address": "192.0.2.9", "as": 64500, "local_address": "192.0.2.1"}],
}


def read(**keys: object) -> Mesh:
    content = {"network": "x", "pops": [POP], **keys}
    return read_mesh(yaml.safe_dump(content, sort_keys=False).encode(), "mesh.yaml")


def fault(pop: dict[str, object] | None = None, **keys: object) -> str:
    """Return the only fault of the minimal file with additional keys, without file and line."""
    with pytest.raises(ConfigError) as caught:
        read(**({"pops": [{**POP, **pop}]} if pop else {}), **keys)
    (one,) = caught.value.faults
    return one.split(": ", 1)[1]


def test_the_least_file_has_defaults():
    request = read().request()
    assert request.pops == (PopRequest("gru", "sa"),)
    assert (request.families, request.topology) == ("ipv6", "mesh")
    assert (request.port, request.mtu, request.keepalive_seconds) == (51820, 1420, 25)


def test_a_file_defines_the_whole_request():
    mesh = read(
        families="dual",
        ipv4="10.50.0.0/16",
        topology="hub",
        port=4500,
        mtu=1380,
        keepalive=0,
        pops=[{**POP, "country": "BR", "endpoint": "gru.example.net", "public_key": KEY, "hub": True,
               "ipv4": "10.50.1.0/24"}, {"name": "fra", "region": "eu"}],
        apps=[{"name": "web", "port": 80, "instances": {"gru": 2}}],
    )  # fmt: skip
    request = mesh.request((InstanceRequest("more", "fra"),))
    assert request.pops[0] == PopRequest(
        "gru", "sa", "BR", "gru.example.net:4500", KEY, True, IPv4Network("10.50.1.0/24")
    )
    assert [(one.id, one.pop) for one in request.instances] == [
        ("gru-web-1", "gru"), ("gru-web-2", "gru"), ("more", "fra"),
    ]  # fmt: skip
    assert (request.families, request.ipv4, request.topology) == ("dual", IPv4Network("10.50.0.0/16"), "hub")
    assert (request.port, request.mtu, request.keepalive_seconds) == (4500, 1380, 0)
    assert next(mesh.instances()) == (
        "gru-web-1", "gru", {"app": "web", "region": "sa", "country": "BR", "port": 80},
    )  # fmt: skip


def test_every_fault_is_named_at_once_with_its_line():
    text = b"""\
network: x
topologie: mesh
mtu: 900
pops:
  - {name: GRU, region: sa}
  - {name: fra, region: eu, endpoint: "fra:99999"}
  - {name: fra, region: eu, ipv4: 10.0.0.0/16}
apps:
  - {name: web, port: 80, instances: {frra: 1}}
"""
    with pytest.raises(ConfigError) as caught:
        read_mesh(text, "mesh.yaml")
    lines = [line.split(": ", 1) for line in caught.value.faults]
    assert [where for where, _ in lines] == [f"mesh.yaml:{line}" for line in (2, 3, 5, 6, 7, 7, 9)]
    found = [what for _, what in lines]
    assert found[0] == "topologie: no such key, did you mean topology?"
    assert found[1].startswith("mtu=900: ")
    assert found[2].startswith("pops[0].name='GRU': ")
    assert found[3].startswith("pops[1].endpoint='fra:99999': needs a host and optionally a port")
    assert {what.split(":", 1)[0] for what in found[4:6]} == {"pops[2].ipv4='10.0.0.0/16'", "pops[2].name='fra'"}
    assert found[6] == "apps[0].instances.frra: there is no POP 'frra', did you mean fra?"


@pytest.mark.parametrize(
    ("pop", "keys", "expected"),
    [
        ({}, {"pops": []}, "pops"),
        ({}, {"families": "dual"}, "ipv4: is required by families: dual, as in 10.50.0.0/16"),
        ({}, {"ipv4": "10.50.0.0/16"}, "works with families: dual or ipv4 only"),
        ({}, {"families": "ipv4", "ipv4": "10.50.0.0/24"}, "needs a network from /8 to /23"),
        ({}, {"families": "ipv4", "ipv4": "10.50.0.1/16"}, "without host bits"),
        ({}, {"keepalive": "25"}, "keepalive='25'"),
        ({}, {"port": 0}, "port=0"),
        ({"public_key": "short"}, {}, "public_key='short'"),
        ({"endpoint": "2001:db8::1"}, {}, "needs a host and optionally a port"),
        ({"endpoint": "[192.0.2.1]:80"}, {}, "needs an IPv6 address in brackets"),
        ({"endpoint": "192.0.2.256"}, {}, "'192.0.2.256' is neither an IP address nor a host name"),
        ({"endpoint": "a b"}, {}, "'a b' is neither an IP address nor a host name"),
        ({"country": "br"}, {}, "country='br': needs a country code of two capital letters"),
        ({"region": "s a"}, {}, "region='s a': needs 1 to 63 characters of a-z, 0-9 and hyphen"),
        ({}, {"network": "a b"}, "network='a b': needs a name"),
        ({"bgp": {**BGP, "router_id": "::1"}}, {}, "needs an IPv4 address"),
        ({"bgp": {**BGP, "neighbours": [{**BGP["neighbours"][0], "address": "x"}]}}, {}, "='x': needs an IP address"),
        ({"bgp": {**BGP, "neighbours": []}}, {}, "neighbours"),
        ({"bgp": {**BGP, "neighbours": [{**BGP["neighbours"][0], "local_address": "::1"}]}}, {},
         "needs an IPv4 address, like the neighbour's"),
        ({}, {"anycast": {"as": 0, "prefixes": ["198.51.100.0/24"]}}, "anycast.as=0"),
        ({}, {"anycast": {"as": 1, "prefixes": ["198.51.100.1/24"]}}, "without host bits"),
    ],
)  # fmt: skip
def test_a_fault_is_named(pop, keys, expected):
    assert expected in fault(pop or None, **keys)


@pytest.mark.parametrize("endpoint", ["[2001:db8::1]", "[2001:db8::1]:1", "192.0.2.1:65535", "a.example", "localhost"])
def test_endpoints_are_hosts_with_or_without_a_port(endpoint):
    (pop,) = read(pops=[{**POP, "endpoint": endpoint}]).request().pops
    assert pop.endpoint == (endpoint if (endpoint[-1].isdigit() and "]:" in endpoint) or endpoint.endswith("65535")
                            else f"{endpoint}:51820")  # fmt: skip


def test_an_empty_file_is_a_fault_that_names_the_required_keys():
    with pytest.raises(ConfigError) as caught:
        read_mesh(b"", "mesh.yaml")
    assert caught.value.faults == ["mesh.yaml:1: is empty: needs network and pops"]


def test_a_plan_that_is_none_is_refused():
    with pytest.raises(ConfigError) as caught:
        read_plan(b'{"network": 1}', "plan.json")
    assert caught.value.faults[0].startswith("plan.json: is not a plan: network: ")


# What is announced

BOTH = ["198.51.100.0/24", "2001:db8:100::/48"]


def test_an_announcement_is_that_of_the_pop_in_the_file():
    mesh = read(pops=[{**POP, "bgp": BGP}], anycast={"as": 64512, "prefixes": BOTH})
    announcement = mesh.announcement("gru")
    assert (announcement.as_number, announcement.router_id) == (64512, IPv4Address("192.0.2.1"))
    assert announcement.prefixes == tuple(map(ip_network, BOTH))
    text = exabgp_conf(announcement, "http://127.0.0.1:9090/ready")
    assert "198.51.100.0/24" in text
    assert "2001:db8:100::/48" not in text, "no neighbour has an IPv6 address"
    for line in ("router-id 192.0.2.1;", "local-as 64512;", "peer-as 64500;", "local-address 192.0.2.1;"):
        assert line in text


@pytest.mark.parametrize(
    ("pop", "keys", "expected"),
    [
        ("gro", {"anycast": {"as": 1, "prefixes": BOTH}}, "'gro': there is no such POP, did you mean gru?"),
        ("gru", {"pops": [{**POP, "bgp": BGP}]}, "anycast: is required to announce"),
        ("gru", {"anycast": {"as": 1, "prefixes": BOTH}}, "bgp of pop gru: is required to announce"),
    ],
)
def test_a_pop_without_bgp_cannot_announce(pop, keys, expected):
    with pytest.raises(ConfigError) as caught:
        read(**keys).announcement(pop)
    assert caught.value.faults == [expected]
