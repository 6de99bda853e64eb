"""Tunnels: a packet from any POP reaches any address of the plan, whatever the topology; what is written of them."""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from app.domain.mesh.plan import InstanceRequest, MeshRequest, Plan, Pop, PopRequest, make_plan
from app.domain.mesh.tunnels import faults_of, hub_of, peers_of
from app.wire.wireguard_conf import wireguard_conf

WHOLE = IPv4Network("10.50.0.0/16")
NAMES = ["gru", "fra", "nrt", "iad", "jnb", "syd"]


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    pops = tuple(
        PopRequest(
            name,
            draw(st.sampled_from(["sa", "eu"])),
            endpoint=draw(st.sampled_from([f"{name}:1", None])),
            is_hub=draw(st.booleans()),
        )
        for name in names
    )
    instances = tuple(InstanceRequest(f"{name}-web", name) for name in names)
    return make_plan(MeshRequest("x", pops, instances, "dual", WHOLE, draw(st.sampled_from(["mesh", "hub"]))))


def hops(plan: Plan, start: Pop, address: object) -> list[str]:
    """Follow a packet by the most specific of each POP's networks, as the kernel does."""
    here, way = start, [start.name]
    while not any(address in network for network in here.networks):
        fits = [(network.prefixlen, peer.pop) for peer in peers_of(plan, here) for network in peer.networks
                if network.version == address.version and address in network]  # fmt: skip
        assert fits, f"{way}: no way to {address}"
        here = max(fits, key=lambda one: one[0])[1]
        assert here.name not in way, f"{way} goes round in a circle"
        way.append(here.name)
    return way


@given(plans())
def test_every_pop_reaches_every_address_by_three_tunnels_at_most(plan):
    assume(not faults_of(plan))
    for start in plan.pops:
        for end in plan.pops:
            for address in (*end.addresses, *end.instances[0].addresses):
                way = hops(plan, start, address)
                assert way[-1] == end.name
                assert len(way) <= (2 if plan.topology == "mesh" else 4)


@given(plans())
def test_of_both_ends_of_a_tunnel_each_knows_the_other_and_one_can_begin(plan):
    assume(not faults_of(plan))
    peers = {pop.name: {peer.pop.name: peer for peer in peers_of(plan, pop)} for pop in plan.pops}
    for name, others in peers.items():
        for other, peer in others.items():
            assert name in peers[other]
            assert peer.pop.endpoint or peers[other][name].pop.endpoint
        networks = [network for peer in others.values() for network in peer.networks]
        assert len(networks) == len(set(networks)), "WireGuard gives a network to one peer"


def plan_of(topology="mesh", **pops):
    """Plan POPs of one region, each given by its endpoint and by whether it is a hub."""
    requests = tuple(
        PopRequest(name, "eu", None, endpoint, f"key of {name}", is_hub) for name, (endpoint, is_hub) in pops.items()
    )
    return make_plan(MeshRequest("x", requests, (InstanceRequest("web", "gru"),), "dual", WHOLE, topology))


@pytest.mark.parametrize(
    ("plan", "fault"),
    [
        (plan_of("hub", gru=("a:1", False)), "topology hub: no pop has hub: on"),
        (plan_of("hub", gru=(None, True)), "pop gru: is a hub and needs an endpoint"),
        (
            plan_of(gru=(None, False), fra=(None, False)),
            "pops fra and gru: neither has an endpoint, so neither can reach the other; "
            "give one an endpoint, or use topology hub",
        ),
    ],
)
def test_what_keeps_pops_apart_is_named(plan, fault):
    assert faults_of(plan) == [fault]


def test_a_spoke_belongs_to_the_hub_of_its_region():
    pops = (
        PopRequest("a", "sa", endpoint="a:1", is_hub=True),
        PopRequest("b", "eu", endpoint="b:1", is_hub=True),
        PopRequest("c", "eu"),
        PopRequest("d", "ap"),
    )
    plan = make_plan(MeshRequest("x", pops, topology="hub"))
    assert [hub_of(plan, plan.pops[number]).name for number in (2, 3)] == ["b", "a"]


def test_the_configuration_of_a_pop_is_what_wg_quick_reads():
    plan = plan_of(gru=("192.0.2.1:51820", False), fra=("fra.example.net:51820", False), nrt=(None, False))
    fra, gru, nrt = plan.pops
    assert (
        wireguard_conf(plan, gru)
        == f"""\
# gru (eu) in x. Made by `python -m app mesh plan`: do not edit.
[Interface]
Address = {gru.ipv6}/128
Address = {gru.ipv4}/32
Address = {gru.instances[0].ipv6}/128
Address = {gru.instances[0].ipv4}/32
ListenPort = 51820
MTU = 1420
PostUp = wg set %i private-key /etc/wireguard/%i.key
PostUp = wg set %i peer key of fra persistent-keepalive 25
PostUp = ip -6 route replace unreachable {gru.ipv6_network}
PostDown = ip -6 route del unreachable {gru.ipv6_network} || true
PostUp = ip -4 route replace unreachable {gru.ipv4_network}
PostDown = ip -4 route del unreachable {gru.ipv4_network} || true

# fra (eu)
[Peer]
PublicKey = key of fra
AllowedIPs = {fra.ipv6_network}, {fra.ipv4_network}
Endpoint = fra.example.net:51820

# nrt (eu)
[Peer]
PublicKey = key of nrt
AllowedIPs = {nrt.ipv6_network}, {nrt.ipv4_network}
"""
    )


def test_a_hub_forwards_and_a_spoke_sends_it_everything():
    plan = plan_of("hub", gru=("192.0.2.1:51820", True), nrt=(None, False))
    gru, nrt = plan.pops
    hub, spoke = wireguard_conf(plan, gru), wireguard_conf(plan, nrt)
    assert "net.ipv6.conf.all.forwarding=1" in hub
    assert "net.ipv4.ip_forward=1" in hub
    assert "forward" not in spoke
    (line,) = [line for line in spoke.splitlines() if line.startswith("AllowedIPs")]
    assert {ip_network(text) for text in line.removeprefix("AllowedIPs = ").split(", ")} == set(plan.networks)
