"""The names of the zone, the backends listed at each, and their order, for a POP in sa."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

from app.domain.dns_zone import MAX_BACKENDS, MAX_REGIONS, Labels, Zone, make_zone, nearest
from tests.unit.pools import PoolUnderTest, backend


def zone(*pools: PoolUnderTest, pop_region: str | None = "sa", seed: int = 1, **named: PoolUnderTest) -> Zone:
    known = {f"pool{number}": one for number, one in enumerate(pools)} | named
    views = {name: one.pool.view(one.now) for name, one in known.items()}
    return make_zone(views, pop_region, 7, random.Random(seed).random)


def web(backend_id: str, place: str = "BR/sa", **fields: Any) -> Any:
    return backend(backend_id, place, **{"app": "web", "host": f"host of {backend_id}", **fields})


def at(found: Zone, *name: str) -> list[str]:
    """Return the backends listed at a name, best first."""
    return [one.address.removeprefix("host of ") for one in found.nodes[name].backends]


def names(found: Zone) -> set[Labels]:
    return set(found.nodes)


def test_the_names_of_an_app() -> None:
    found = zone(PoolUnderTest([web("gru"), web("fra", "DE/eu"), web("nowhere", "/")]))
    assert names(found) == {
        (),
        ("web",),
        ("sa", "web"),
        ("eu", "web"),
        ("gru", "web"),
        ("fra", "web"),
        ("nowhere", "web"),
        ("regions", "web"),
        ("backends",),
        ("sa", "backends"),
        ("eu", "backends"),
        ("pops",),
    }
    assert found.serial == 7
    assert (at(found), at(found, "backends")) == ([], [])
    assert found.nodes["regions", "web"].text == "eu,sa"
    assert found.nodes[("pops",)].text == "sa,eu"


def test_nearer_and_idler_backends_come_first() -> None:
    pool = PoolUnderTest([web("far", "JP/ap"), web("busy"), web("idle"), web("large", soft_limit=1000)])
    pool.hold("busy", 10)
    pool.hold("large", 20)
    pool.hold("idle", 1)
    found = zone(pool)
    assert at(found, "web") == ["idle", "large", "busy", "far"]
    assert [one.tier for one in found.nodes[("web",)].backends] == [2, 2, 2, 3]
    assert [p.address for p in nearest(found.nodes[("web",)].backends, random.random)] == [
        "host of idle", "host of large", "host of busy",
    ]  # fmt: skip
    assert nearest([], random.random) == []


def test_the_order_is_that_of_the_selector() -> None:
    pool = PoolUnderTest([web(f"b{n}", place, soft_limit=limit) for n, (place, limit) in enumerate(
        [("BR/sa", 10), ("US/us", 5), ("CL/sa", 100), ("/", 100), ("AR/sa", 50)]
    )])  # fmt: skip
    for number in range(5):
        pool.hold(f"b{number}", number + 1)
    selected: list[str] = []
    while len(selected) < 5:
        selected.append(pool.visit(None, tried=tuple(selected)))
    assert at(zone(pool), "web") == selected


def test_equals_come_first_as_often_as_their_weight_says() -> None:
    node = zone(PoolUnderTest([web("heavy", weight=3), web("light", weight=1)])).nodes[("web",)]
    chance = random.Random(5).random
    first = Counter(nearest(node.backends, chance)[0].address for _ in range(4000))
    assert 0.72 < first["host of heavy"] / 4000 < 0.78


def test_a_backend_that_takes_no_new_clients_is_listed_at_its_own_name_only() -> None:
    out = [web("ill", is_healthy=False), web("drained", is_deleted=True), web("closed", weight=0)]
    pool = PoolUnderTest([web("full", hard_limit=1), web("ejected"), web("fine"), web("also"), *out])
    pool.hold("full", 1)
    pool.fail("ejected")
    found = zone(pool)
    assert sorted(at(found, "web")) == sorted(at(found, "sa", "web")) == sorted(at(found, "sa", "backends"))
    assert set(at(found, "web")) == {"fine", "also"}
    for one in ("full", "ejected", "ill", "drained", "closed"):
        assert at(found, one, "web") == [one]


def test_an_app_that_is_down_keeps_its_names_without_backends() -> None:
    found = zone(PoolUnderTest([web("ill", is_healthy=False)]))
    assert at(found, "web") == at(found, "sa", "web") == []
    assert found.nodes["regions", "web"].text == ""
    assert ("sa", "backends") not in names(found)
    assert found.nodes[("pops",)].text == "sa"


def test_a_backend_with_an_unresolved_name_is_not_listed() -> None:
    found = zone(PoolUnderTest([web("lost", host="", host_name="lost.example")]))
    assert at(found, "web") == at(found, "lost", "web") == []


def test_a_backup_is_listed_while_no_other_takes_new_clients() -> None:
    backup = web("reserve", is_backup=True)
    assert at(zone(PoolUnderTest([web("gru"), backup])), "web") == ["gru"]
    assert at(zone(PoolUnderTest([web("gru", weight=0), backup])), "web") == ["reserve"]


def test_a_departed_backend_is_not_listed_despite_open_connections() -> None:
    pool = PoolUnderTest([web("old"), web("new")])
    pool.hold("old", 1)
    pool.replace([web("new")])
    assert ("old", "web") not in names(zone(pool))


def test_a_backend_without_an_app_goes_by_its_pool() -> None:
    servers = PoolUnderTest([backend("10.0.0.1:80", "/"), backend("10.0.0.2:80", "/", host="10.0.0.2")])
    found = zone(shop=servers)
    assert set(at(found, "shop")) == {"10.0.0.1", "10.0.0.2"}
    assert at(found, "10-0-0-2-80", "shop") == ["10.0.0.2"]


def test_a_backend_of_two_pools_is_there_once_as_it_is_where_it_serves() -> None:
    one, other = PoolUnderTest([web("a"), web("b")]), PoolUnderTest([web("a"), web("b")])
    one.fail("a")
    assert sorted(at(zone(one, other), "web")) == ["a", "b"]
    assert sorted(at(zone(other, one), "web")) == ["a", "b"]


def test_the_same_id_in_two_apps_is_two_names() -> None:
    found = zone(PoolUnderTest([web("a", host="10.0.0.1")]), PoolUnderTest([backend("a", app="db", host="10.0.0.2")]))
    assert (at(found, "a", "web"), at(found, "a", "db")) == (["10.0.0.1"], ["10.0.0.2"])
    assert sorted(at(found, "sa", "backends")) == ["10.0.0.1", "10.0.0.2"]


def test_a_region_takes_precedence_over_an_id() -> None:
    found = zone(PoolUnderTest([web("sa", "DE/eu"), web("eu", "DE/eu"), web("us", "US/us"), web("gru")]))
    assert at(found, "sa", "web") == ["gru"]
    assert set(at(found, "eu", "web")) == {"sa", "eu"}
    assert at(found, "us", "web") == ["us"]
    own = {one.address: one.name for one in found.nodes[("web",)].backends}
    assert own == {
        "host of gru": ("gru", "web"),
        "host of us": ("us", "web"),  # it is the only backend at its region's name
        "host of sa": None,
        "host of eu": None,
    }


def test_of_two_ids_that_come_to_one_label_one_has_the_name() -> None:
    found = zone(PoolUnderTest([web("A"), web("a"), web("b.1"), web("b:1")]))
    assert (at(found, "a", "web"), at(found, "b-1", "web")) == (["a"], ["b.1"])
    assert len(at(found, "web")) == 4


def test_reserved_names_of_the_zone_belong_to_no_app() -> None:
    reserved = [backend("a", app="pops"), backend("b", app="Backends"), backend("c", app="日本")]
    found = zone(PoolUnderTest([*reserved, web("regions"), web("gru")]))
    assert ("a", "pops") not in names(found) and ("b", "backends") not in names(found)
    assert at(found, "pops") == at(found, "backends") == []
    assert at(found, "sa", "backends") and "c" not in at(found, "sa", "backends")
    assert at(found, "regions", "web") == ["regions"]
    assert found.nodes["regions", "web"].text == "sa"


def test_regions_are_named_by_their_labels_which_are_of_bounded_length() -> None:
    strange = [web("long", "XX/" + "r" * 70_000), web("mixed", "XX/north é america"), web("gru")]
    found = zone(PoolUnderTest(strange))
    assert found.nodes["regions", "web"].text == "north-america,sa"
    assert found.nodes[("pops",)].text == "sa,north-america"
    assert at(found, "north-america", "web") == ["mixed"]
    many = [web(f"b{number}", f"XX/{number:063}") for number in range(2 * MAX_REGIONS)]
    found = zone(PoolUnderTest(many))
    assert found.nodes["regions", "web"].text.split(",") == [f"{number:063}" for number in range(MAX_REGIONS)]
    assert len(found.nodes[("pops",)].text) < 64_100, "there is room for it in a message of 65,535 bytes"


def test_an_edge_without_a_region_has_no_near_backends() -> None:
    found = zone(PoolUnderTest([web("gru"), web("fra", "DE/eu")]), pop_region=None)
    assert sorted(p.address for p in nearest(found.nodes[("web",)].backends, random.random)) == [
        "host of fra",
        "host of gru",
    ]
    assert found.nodes[("pops",)].text == "eu,sa"


def test_of_many_equals_a_few_stand_there_others_each_time() -> None:
    pool = PoolUnderTest([web(f"b{number}") for number in range(100)])
    one, other = zone(pool, seed=1), zone(pool, seed=2)
    assert len(at(one, "web")) == len(at(other, "web")) == MAX_BACKENDS
    assert set(at(one, "web")) != set(at(other, "web"))
