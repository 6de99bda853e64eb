"""Writes a POP's WireGuard configuration for wg-quick(8). It has no secrets: the private key is in a separate file."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from app.domain.mesh.plan import Plan, Pop
from app.domain.mesh.tunnels import Peer, peers_of

INTERFACE: Final = "edge0"
KEY_FILE: Final = "/etc/wireguard/%i.key"
"""The file with the POP's private key; wg-quick replaces %i by the interface."""


def wireguard_conf(plan: Plan, pop: Pop) -> str:
    """Return the configuration of one POP. The plan must have no faults, and every public key must be known."""
    sections = ["\n".join(_interface(plan, pop))]
    sections += ["\n".join(_peer(peer)) for peer in peers_of(plan, pop)]
    return "\n\n".join(sections) + "\n"


def _interface(plan: Plan, pop: Pop) -> Iterator[str]:
    yield f"# {pop.name} ({pop.region}) in {plan.network}. Made by `python -m app mesh plan`: do not edit."
    yield "[Interface]"
    for address in pop.addresses:
        yield f"Address = {address}/{address.max_prefixlen}"
    for instance in pop.instances:
        for address in instance.addresses:
            yield f"Address = {address}/{address.max_prefixlen}"
    yield f"ListenPort = {plan.port}"
    yield f"MTU = {plan.mtu}"
    yield f"PostUp = wg set %i private-key {KEY_FILE}"
    if plan.keepalive_seconds:
        # Set only after the key: with PersistentKeepalive in the peer's section the first packet would be sent before
        # there is a key, the peer would drop it, and the next would follow REKEY_TIMEOUT (5 s) later.
        for peer in peers_of(plan, pop):
            if peer.pop.endpoint is not None:
                yield f"PostUp = wg set %i peer {peer.pop.public_key} persistent-keepalive {plan.keepalive_seconds}"
    for network in pop.networks:
        # Without this route, packets to unassigned addresses would leave by the default route or loop through the hub.
        family = "-6" if isinstance(network, IPv6Network) else "-4"
        yield f"PostUp = ip {family} route replace unreachable {network}"
        yield f"PostDown = ip {family} route del unreachable {network} || true"  # a new network has no route
    if plan.topology == "hub" and pop.is_hub:
        for address in pop.addresses:
            is_ipv6 = isinstance(address, IPv6Address)
            yield f"PostUp = sysctl -qw {'net.ipv6.conf.all.forwarding' if is_ipv6 else 'net.ipv4.ip_forward'}=1"


def _peer(peer: Peer) -> Iterator[str]:
    yield f"# {peer.pop.name} ({peer.pop.region})"
    yield "[Peer]"
    yield f"PublicKey = {peer.pop.public_key}"
    yield f"AllowedIPs = {', '.join(map(str, peer.networks))}"
    if peer.pop.endpoint is not None:
        yield f"Endpoint = {peer.pop.endpoint}"
