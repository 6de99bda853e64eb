"""Listeners and backends of both families: several listeners, `*` for both families, any client to any backend."""

import socket

import pytest

from tests.harness import eventually, row
from tests.integration.peers import named


def name_at(address):
    with socket.create_connection(address, 10) as client:
        return client.recv(100).decode().strip()


def test_a_star_listens_on_both_families_and_both_reach_backends_of_both(edge, origin):
    rows = [row("four", origin(named("four"))), row("six", origin(named("six"), "::1"), wg_ip="::1")]
    proxy = edge(rows, listen="*:0", BINDING_MAX=0)
    (_, port4), (_, port6) = proxy.addresses
    assert [host for host, _ in proxy.addresses] == ["0.0.0.0", "::"]
    for address in (("127.0.0.1", port4), ("::1", port6)):
        heard = set()
        assert eventually(lambda: heard.add(name_at(address)) or heard == {"four", "six"})  # noqa: B023
    lines = eventually(lambda: [x for x in proxy.access_lines() if x["client"] == "::1"])
    assert (lines[0]["frontend"], lines[0]["listener"]) == ("edge", f"[::]:{port6}")


def test_a_listener_of_one_family_does_not_accept_the_other(edge, origin):
    proxy = edge([row("a", origin(named("a")))], listen="[::]:0")
    port = proxy.addresses[0][1]
    assert name_at(("::1", port)) == "a"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 10)


def test_each_address_of_a_list_serves_and_is_named_in_the_log(edge, origin):
    proxy = edge([row("a", origin(named("a")))], listen="127.0.0.1:0, 127.0.0.1:0, [::1]:0")
    assert len(set(proxy.addresses)) == 3
    assert [name_at(address) for address in proxy.addresses] == ["a"] * 3
    lines = eventually(lambda: (found := proxy.access_lines())[2:] and found)
    assert {line["listener"] for line in lines} == set(proxy.event("listening on")["listeners"])
    assert {line["frontend"] for line in lines} == {"edge"}
