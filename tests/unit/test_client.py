"""The identity of a client: mapped addresses, keys, IPv6 prefixes, scope ids."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.client import client_key, unmapped


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:0.0.0.0", "0.0.0.0"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("::ffff:192.0.2.1%eth0", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("::192.0.2.1", "::192.0.2.1"),
        ("::ffff:0:c000:201", "::ffff:0:c000:201"),  # translated (RFC 2765), not mapped
        ("::ffff", "::ffff"),
        ("64:ff9b::192.0.2.1", "64:ff9b::192.0.2.1"),
        ("fe80::1%eth0", "fe80::1%eth0"),
    ],
)
def test_a_mapped_address_is_the_ipv4_address_it_holds(address: str, expected: str) -> None:
    assert unmapped(address) == expected


@given(st.ip_addresses(v=4))
def test_every_ipv4_address_comes_back_out_of_its_mapped_form(address: ipaddress.IPv4Address) -> None:
    assert unmapped(f"::ffff:{address}") == unmapped(str(address)) == str(address)


def test_the_key_is_the_pool_and_the_address() -> None:
    assert client_key("shop", "192.0.2.1", 128) != client_key("blog", "192.0.2.1", 128)
    assert client_key("shop", "192.0.2.1", 128) != client_key("shop", "192.0.2.2", 128)
    assert client_key("shop", "192.0.2.1", 128) == client_key("shop", "192.0.2.1", 128)


def test_the_prefix_is_for_ipv6_alone() -> None:
    assert client_key("p", "192.0.2.1", 8) == client_key("p", "192.0.2.1", 128)


@pytest.mark.parametrize(
    ("prefix", "one", "other", "is_same"),
    [
        (128, "2001:db8::1", "2001:db8::2", False),
        (64, "2001:db8::1", "2001:db8::ffff:2", True),
        (64, "2001:db8:0:1::1", "2001:db8:0:2::1", False),
        (56, "2001:db8:0:1::1", "2001:db8:0:2::1", True),
        (127, "2001:db8::2", "2001:db8::3", True),
        (127, "2001:db8::1", "2001:db8::2", False),
        (1, "2001:db8::1", "7fff::1", True),
        (1, "2001:db8::1", "8000::1", False),
    ],
)
def test_addresses_with_the_same_prefix_are_one_client(prefix: int, one: str, other: str, is_same: bool) -> None:
    assert (client_key("p", one, prefix) == client_key("p", other, prefix)) is is_same


@pytest.mark.parametrize("prefix", [64, 128])
def test_a_scope_id_names_our_interface_and_not_the_client(prefix: int) -> None:
    assert client_key("p", "fe80::1%eth0", prefix) == client_key("p", "fe80::1", prefix)


@given(st.ip_addresses(v=6), st.integers(1, 128))
def test_a_client_and_its_network_have_the_same_key(address: ipaddress.IPv6Address, prefix: int) -> None:
    network = ipaddress.IPv6Network((address, prefix), strict=False)
    assert client_key("p", str(address), prefix) == client_key("p", str(network.network_address), prefix)
