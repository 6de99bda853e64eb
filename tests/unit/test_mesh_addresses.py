"""Names as numbers and addresses: never two alike by accident, and the way back."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.mesh.addresses import Fields, fields_of, instance_address, network_of, pop_network
from app.domain.mesh.names import number_of, short_name_of
from app.domain.mesh.places import assign_places

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-"
short_names = {16: st.text(ALPHABET, max_size=3), 48: st.text(ALPHABET, max_size=9)}
names = st.text(st.characters(codec="utf-8"), max_size=40)
bit_counts = st.sampled_from([16, 48])


@given(bit_counts.flatmap(lambda bits: st.tuples(st.just(bits), short_names[bits])))
def test_a_short_name_is_read_back_from_its_number(case):
    bits, name = case
    assert short_name_of(number_of(name, bits), bits) == name


def test_all_short_names_of_sixteen_bits_have_numbers_of_their_own():
    every = ["".join(letters) for length in range(4) for letters in product(ALPHABET, repeat=length)]
    assert {number_of(name, 16) for name in every} == set(range(len(every)))


@given(names, bit_counts)
def test_every_name_has_a_number_and_a_hashed_one_is_never_that_of_a_short_name(name, bits):
    number = number_of(name, bits)
    assert 0 <= number < 2**bits - 1, "one more than it is the number of an instance"
    assert short_name_of(number, bits) in (name, None)


@given(names, names, names, names)
def test_the_fields_of_an_address_are_the_numbers_of_its_names(network, region, pop, instance):
    whole = network_of(network)
    part = pop_network(whole, region, pop)
    address = instance_address(part, instance)
    assert part.subnet_of(whole)
    assert address in part
    assert address in IPv6Network("fd00::/8")
    fields = fields_of(address)
    assert fields == Fields(
        int(whole.network_address) >> 80 & 2**40 - 1,
        number_of(region, 16),
        number_of(pop, 16),
        number_of(instance, 48) + 1,
    )


@given(short_names[16], short_names[16], short_names[48])
def test_short_names_are_read_back_from_an_address_alone(region, pop, instance):
    address = instance_address(pop_network(network_of("x"), region, pop), instance)
    assert fields_of(address).names == (region, pop, instance)


def test_addresses_stay_what_they_are():
    """Changed arithmetic would move every network there is."""
    whole = network_of("edge.example.net")
    gru = pop_network(whole, "sa", "gru")
    assert str(gru) == "fd98:63dd:9ac2:2c0:281e::/80"
    assert str(instance_address(gru, "")) == "fd98:63dd:9ac2:2c0:281e::1"
    assert str(instance_address(gru, "gru-web-1")) == "fd98:63dd:9ac2:2c0:281e:17f7:b283:4b77"
    assert str(instance_address(gru, "a-name-longer-than-nine")) == "fd98:63dd:9ac2:2c0:281e:f43b:21d0:aed3"
    assert fields_of(IPv6Address("fd98:63dd:9ac2:2c0:281e:f43b:21d0:aed3")).names == ("sa", "gru", None)


def test_other_addresses_are_none_of_ours():
    with pytest.raises(ValueError, match="does not begin with fd"):
        fields_of(IPv6Address("2001:db8::1"))


@given(st.sets(names, max_size=20), st.sets(names, max_size=20), st.randoms())
def test_places_are_kept_and_unique(first, more, chance):
    """Assigned places are kept, and the order of the names does not matter."""
    before = assign_places(first, 64, {})
    shuffled = sorted(first | more)
    chance.shuffle(shuffled)
    after = assign_places(shuffled, 64, before)
    assert after == assign_places(first | more, 64, before)
    assert {name: after[name] for name in first} == before
    assert len(set(after.values())) == len(first | more)
    assert set(after.values()) <= set(range(64))


def test_more_names_than_places_are_refused():
    assert set(assign_places("abc", 3, {"a": 2}).values()) == {0, 1, 2}
    with pytest.raises(OverflowError, match="only 3 fit"):
        assign_places("abcd", 3, {})
