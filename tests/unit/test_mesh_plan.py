"""The plan: every address once, the same from the same, kept when others come and go; and what has changed."""

from __future__ import annotations

import dataclasses
import random
from ipaddress import IPv4Address, IPv4Network
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config.mesh import read_plan, stored_plan
from app.domain.mesh.backends import Home, homes_of, host_of, instances_of
from app.domain.mesh.changes import Change, changes
from app.domain.mesh.names import number_of
from app.domain.mesh.plan import InstanceRequest, MeshRequest, Plan, PlanError, PopRequest, make_plan
from tests.unit.pools import backend

WHOLE = IPv4Network("10.50.0.0/16")
labels = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,12}[a-z0-9])?", fullmatch=True)


@st.composite
def requests(draw: st.DrawFn) -> MeshRequest:
    families = draw(st.sampled_from(["ipv6", "dual", "ipv4"]))
    names = draw(st.lists(labels, min_size=1, max_size=6, unique=True))
    pops = tuple(PopRequest(name, draw(st.sampled_from(["sa", "eu", "north-america"]))) for name in names)
    ids = draw(st.lists(labels, max_size=12, unique=True))
    instances = tuple(InstanceRequest(id, draw(st.sampled_from(names))) for id in ids)
    return MeshRequest(draw(labels), pops, instances, families, None if families == "ipv6" else WHOLE)


def planned(request: MeshRequest, last: Plan | None = None) -> Plan | None:
    """Return the plan, None where hashed names meet, which a larger network of long names may do."""
    try:
        return make_plan(request, last)
    except PlanError as error:
        assert all("has the same number as" in fault for fault in error.faults)
        return None


def shuffled(request: MeshRequest, chance: random.Random) -> MeshRequest:
    pops, instances = list(request.pops), list(request.instances)
    chance.shuffle(pops)
    chance.shuffle(instances)
    return dataclasses.replace(request, pops=tuple(pops), instances=tuple(instances))


def holders(plan: Plan) -> list[tuple[object, tuple[str, str, str]]]:
    """Return every address of a plan with the names of whose it is."""
    found: list[tuple[object, tuple[str, str, str]]] = []
    for pop in plan.pops:
        found += [(address, (pop.region, pop.name, "")) for address in pop.addresses]
        for one in pop.instances:
            found += [(address, (pop.region, pop.name, one.id)) for address in one.addresses]
    return found


@given(requests(), st.randoms())
def test_a_plan_is_the_same_from_the_same_and_gives_nothing_twice(request_, chance):
    plan = planned(request_)
    assert planned(shuffled(request_, chance)) == plan
    if plan is None:
        return
    assigned = holders(plan)
    count = {"ipv6": 1, "ipv4": 1, "dual": 2}[request_.families]
    assert len(assigned) == count * (len(request_.pops) + len(request_.instances))
    assert len({address for address, _ in assigned}) == len(assigned)
    assert all(plan.name_of(address) == names for address, names in assigned)
    for one, other in combinations(plan.pops, 2):
        assert not any(a.overlaps(b) for a in one.networks for b in other.networks if a.version == b.version)
    assert all(
        network.subnet_of(whole)
        for pop in plan.pops
        for network, whole in zip(pop.networks, plan.networks, strict=True)
    )
    assert read_plan(stored_plan(plan).encode(), "plan.json") == plan
    assert changes(plan, plan) == []


@given(requests(), requests(), st.data())
def test_remaining_instances_keep_their_addresses(first, second, data):
    """What is in both files, in the same network and place, has the same addresses in both plans."""
    second = dataclasses.replace(second, network=first.network, families=first.families, ipv4=first.ipv4)
    before = planned(first)
    after = before and planned(second, before)
    if before is None or after is None:
        return
    stayed = {names for _, names in holders(before)} & {names for _, names in holders(after)}
    of_pop = {names for names in stayed if not names[2]}
    kept = {names: address for address, names in holders(before)}
    for address, names in holders(after):
        if names in stayed and (*names[:2], "") in of_pop:
            assert (address, names) in holders(before), f"{names} had {kept[names]}"


@settings(max_examples=20)
@given(requests(), requests())
def test_changes_name_everything_that_differs(first, second):
    one, other = planned(first), planned(second)
    if one is None or other is None:
        return
    found = changes(one, other)
    assert bool(found) == (one != other)
    back = {change.what: (change.after, change.before) for change in changes(other, one)}
    assert {change.what: (change.before, change.after) for change in found} == back
    assert all(change.before is None for change in changes(None, one))


def test_changes_are_a_line_each():
    pops = (PopRequest("gru", "sa", endpoint="a:1"), PopRequest("fra", "eu"))
    before = make_plan(MeshRequest("x", pops, (InstanceRequest("web", "gru"),)))
    moved = (PopRequest("gru", "sa", endpoint="b:1", is_hub=True), PopRequest("fra", "eu"))
    after = make_plan(MeshRequest("x", moved, (InstanceRequest("web", "fra"),), mtu=1400))
    assert [str(change) for change in changes(before, after)] == [
        "~ network mtu: 1420 -> 1400",
        f"+ pop fra instance web ipv6: {after.pops[0].instances[0].ipv6}",
        "~ pop gru endpoint: a:1 -> b:1",
        "+ pop gru hub: yes",
        f"- pop gru instance web ipv6: {before.pops[1].instances[0].ipv6}",
    ]
    assert Change("x", None, "y").before is None


def meeting(bits: int, wanted: int = 2) -> list[str]:
    """Return long names that have one number."""
    seen: dict[int, list[str]] = {}
    for number in range(1 << bits):
        name = f"point-of-presence-{number}"
        same = seen.setdefault(number_of(name, bits), [])
        same.append(name)
        if len(same) == wanted:
            return same
    raise AssertionError("none")


def faults(request: MeshRequest, last: Plan | None = None) -> list[str]:
    with pytest.raises(PlanError) as caught:
        make_plan(request, last)
    return caught.value.faults


def test_names_that_meet_in_one_number_are_refused():
    one, other = sorted(meeting(16))
    assert faults(MeshRequest("x", (PopRequest(one, "eu"), PopRequest(other, "eu")))) == [
        f"pop {other}: has the same number as pop {one}: rename one of them"
    ]
    assert faults(MeshRequest("x", (PopRequest("a", one), PopRequest("b", other)))) == [
        f"region {other}: has the same number as region {one}: rename one of them"
    ]
    make_plan(MeshRequest("x", (PopRequest(one, "eu"), PopRequest(other, "sa")))), "in two regions they do not meet"


def test_an_instance_is_in_one_place():
    pops = (PopRequest("a", "eu"), PopRequest("b", "eu"))
    twice = (InstanceRequest("web", "a"), InstanceRequest("web", "b"))
    assert faults(MeshRequest("x", pops, twice)) == ["instance web: is in a and in b"]


def test_ipv4_networks_that_pops_have_are_kept_and_checked():
    said = (PopRequest("a", "eu", ipv4=IPv4Network("10.50.7.0/24")), PopRequest("b", "eu"))
    plan = make_plan(MeshRequest("x", said, (), "dual", WHOLE))
    assert str(plan.pops[0].ipv4) == "10.50.7.1"
    assert plan.pops[1].ipv4_network not in (None, plan.pops[0].ipv4_network)
    wrong = (
        PopRequest("a", "eu", ipv4=IPv4Network("10.50.7.0/24")),
        PopRequest("b", "eu", ipv4=IPv4Network("10.50.7.0/24")),
        PopRequest("c", "eu", ipv4=IPv4Network("10.51.7.0/24")),
    )
    assert faults(MeshRequest("x", wrong, (), "dual", WHOLE)) == [
        "pop c: 10.51.7.0/24 is not within 10.50.0.0/16",
        "pops a, b: all have the network 10.50.7.0/24",
    ]


def test_exhausted_networks_are_reported():
    three = tuple(PopRequest(name, "eu") for name in "abc")
    assert faults(MeshRequest("x", three, (), "ipv4", IPv4Network("10.50.0.0/23"))) == [
        "3 pops, but only 2 fit in 10.50.0.0/23"
    ]
    many = tuple(InstanceRequest(f"i{number}", "a") for number in range(254))
    (fault,) = faults(MeshRequest("x", three, many, "ipv4", WHOLE))
    assert fault.startswith("pop a: 254 instances, but only 253 fit in 10.50.")


def test_ipv4_addresses_that_instances_have_are_kept_and_checked():
    pops = (PopRequest("a", "eu", ipv4=IPv4Network("10.50.7.0/24")),)
    wanted = (InstanceRequest("one", "a", IPv4Address("10.50.7.9")), InstanceRequest("two", "a"))
    plan = make_plan(MeshRequest("x", pops, wanted, "dual", WHOLE))
    assert str(plan.pops[0].instances[0].ipv4) == "10.50.7.9"
    bad = (
        InstanceRequest("one", "a", IPv4Address("10.50.7.1")),
        InstanceRequest("two", "a", IPv4Address("10.50.7.9")),
        InstanceRequest("you", "a", IPv4Address("10.50.7.9")),
    )
    assert faults(MeshRequest("x", pops, bad, "dual", WHOLE)) == [
        "instance one: 10.50.7.1 is not an instance address; use 10.50.7.2 to 10.50.7.254",
        "instance you: two also has 10.50.7.9",
    ]


# Backends of the routing database

POPS = (
    PopRequest("gru", "sa", ipv4=IPv4Network("10.50.1.0/24")),
    PopRequest("fra", "eu", ipv4=IPv4Network("10.50.2.0/24")),
    PopRequest("cdg", "eu", ipv4=IPv4Network("10.50.3.0/24")),
)
DUAL = MeshRequest("x", POPS, (), "dual", WHOLE)


def test_a_backend_is_at_home_where_its_address_or_its_region_says():
    bare = make_plan(DUAL)
    rows = [
        backend("a", "FR/eu", host="10.50.3.8"),
        backend("b", "FR/eu", host="10.50.3.8", port=81),
        backend("c", "BR/sa", host="192.0.2.9"),
        backend("d", "DE/eu", host="192.0.2.10"),
        backend("e", host="10.50.2.1"),
        backend("f", "DE/eu", host="somewhere.example.net"),
    ]
    homes = homes_of(rows, bare, {"d": "fra"})
    assert homes == {
        "a": Home("cdg", "a", IPv4Address("10.50.3.8")),
        "b": Home("cdg", "a", IPv4Address("10.50.3.8")),
        "c": Home("gru", "c", IPv4Address("192.0.2.9")),
        "d": Home("fra", "d", IPv4Address("192.0.2.10")),
        "e": Home("fra", ""),
    }
    plan = make_plan(dataclasses.replace(DUAL, instances=instances_of(homes)))
    assert host_of(homes["a"], plan, "ipv4") == host_of(homes["b"], plan, "ipv4") == "10.50.3.8"
    assert host_of(homes["a"], plan, "ipv6") == host_of(homes["b"], plan, "ipv6")
    assert host_of(homes["e"], plan, "ipv6") == str(plan.pops[1].ipv6)
    assert host_of(homes["c"], plan, "ipv4").startswith("10.50.1."), "it had none in the network"


def test_backends_of_a_plan_are_found_again_by_their_new_addresses():
    bare = make_plan(DUAL)
    rows = [backend("a", "FR/eu", host="10.50.3.8"), backend("e", host="10.50.2.1")]
    homes = homes_of(rows, bare, {})
    plan = make_plan(dataclasses.replace(DUAL, instances=instances_of(homes)))
    moved = [dataclasses.replace(one, host=host_of(homes[one.id], plan, "ipv6")) for one in rows]
    only_ipv6 = dataclasses.replace(DUAL, families="ipv6", ipv4=None)
    again = homes_of(moved, make_plan(only_ipv6, plan), {}, plan)
    assert {id: (home.pop, home.instance) for id, home in again.items()} == {"a": ("cdg", "a"), "e": ("fra", "")}
    last = make_plan(dataclasses.replace(only_ipv6, instances=instances_of(again)), plan)
    assert [host_of(again[one.id], last, "ipv6") for one in moved] == [one.host for one in moved]


def test_backends_that_could_be_anywhere_are_named_together():
    with pytest.raises(PlanError) as caught:
        homes_of([backend("a", "FR/eu"), backend("b", ""), backend("c", "/ap")], make_plan(DUAL), {})
    assert caught.value.faults == [
        "backend a: no pop's network contains 10.0.0.1, and region eu has 2 pops",
        "backend b: no pop's network contains 10.0.0.1, and it has no region",
        "backend c: no pop's network contains 10.0.0.1, and region ap has 0 pops",
    ]


def test_a_family_that_the_plan_has_not_is_refused():
    plan = make_plan(dataclasses.replace(DUAL, families="ipv4"))
    with pytest.raises(PlanError, match="the plan has no ipv6 addresses"):
        host_of(Home("gru", ""), plan, "ipv6")
