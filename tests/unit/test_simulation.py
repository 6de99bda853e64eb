"""The simulation: drawn clients, consistent figures for any backends, and the output."""

from __future__ import annotations

import ipaddress
import json
import math
import random
import xml.etree.ElementTree as ET
from collections import Counter
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from app.domain.geography import region_of
from app.domain.health import HealthRules
from app.domain.model import Backend, GeoInfo
from app.domain.plan import PoolPlan, SelectorPlan
from app.simulation.boxes import Box
from app.simulation.clients import AddressSpace, Crowd, internet_users
from app.simulation.picture import _STATE_COLOURS, _TIER_COLOURS, _UNSERVED_COLOUR, draw
from app.simulation.results import Move, Results, Stage
from app.simulation.run import Simulation
from app.simulation.tables import tables
from tests.unit.pools import FRONTEND, backend

SVG = "{http://www.w3.org/2000/svg}"
COUNTRIES = ("BR", "AR", "FR", "JP", None)
"""Of the addresses 10.<number>.x.x."""


def network_of(country: str) -> tuple[str, int, int]:
    return country, int(ipaddress.ip_address(f"10.{COUNTRIES.index(country)}.0.0")), 65_536


def locate(address: str) -> GeoInfo | None:
    country = COUNTRIES[int(address.split(".")[1])]
    return None if country is None else GeoInfo(country, region_of(country))


def simulate(backends: list[Backend], clients: int, failed: tuple[str, ...] = (), *, spills: bool = False) -> Results:
    plan = PoolPlan("default", HealthRules(), (SelectorPlan(FRONTEND, "geo", spills),))
    simulation = Simulation(plan, FRONTEND, backends, "sa", locate, seed=7)
    chance = random.Random(3)
    simulation.arrive(f"10.{chance.randrange(5)}.0.{number % 250}" for number in range(clients))
    stages, moves = [simulation.stage("steady")], tuple[Move, ...]()
    if failed:
        moves = simulation.fail(failed, lambda _done, _total: None)
        stages.append(simulation.stage("failure"))
    return Results(tuple(stages), failed, sum(move.clients for move in moves), moves)


def carried(stage: Stage) -> dict[str, int]:
    return {load.backend.id: load.connections for load in stage.loads}


# Drawn clients


def test_an_address_is_drawn_evenly_from_all_networks_of_its_country():
    space = AddressSpace([("BR", 10 << 24, 4), network_of("AR"), ("BR", 20 << 24, 1)])
    chance = random.Random(1)
    drawn = Counter(space.draw("BR", chance) for _ in range(5000))
    assert set(drawn) == {"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "20.0.0.0"}
    assert all(900 < count < 1100 for count in drawn.values())


def test_countries_have_clients_in_proportion_to_their_users_and_none_without_addresses():
    space = AddressSpace(map(network_of, ("BR", "AR", "FR")))
    crowd = Crowd(space, {"BR": 6, "AR": 3, "FR": 0, "JP": 100, "US": 1}, random.Random(1))
    drawn = Counter(locate(address).country for address in crowd.draw(30_000))
    assert set(drawn) == {"BR", "AR"}
    assert drawn["BR"] == pytest.approx(20_000, abs=300)
    assert (crowd.share("BR"), crowd.share("AR")) == pytest.approx((2 / 3, 1 / 3))
    with pytest.raises(KeyError):
        crowd.share("JP")
    assert {locate(address).country for address in crowd.draw_from("FR", 5)} == {"FR"}


def test_the_table_of_users_knows_the_countries_that_the_edge_knows():
    users = internet_users()
    assert {country for country in users if region_of(country) is None} == set()
    assert 4_500_000 < sum(users.values()) < 5_000_000
    assert [country for country, _ in sorted(users.items(), key=lambda item: -item[1])][:4] == ["CN", "IN", "US", "BR"]


# What adds up

places = st.sampled_from(["BR/sa", "AR/sa", "FR/eu", "/eu", "JP/ap", "/"])
rows = st.lists(
    st.tuples(places, st.integers(0, 3), st.integers(1, 30), st.sampled_from([0, 0, 5, 20]), st.booleans()),
    min_size=1,
    max_size=7,
)


@settings(max_examples=60)
@given(rows, st.data(), st.booleans())
def test_all_sums_agree_and_a_failed_backend_has_no_connections(rows, data, spills):
    backends = [
        backend(f"b{number}", place, weight=weight, soft_limit=soft, hard_limit=hard, is_deleted=is_deleted)
        for number, (place, weight, soft, hard, is_deleted) in enumerate(rows)
    ]
    failed = tuple(data.draw(st.sets(st.sampled_from([b.id for b in backends]))))
    results = simulate(backends, 150, failed, spills=spills)
    for stage in results.stages:
        assert stage.clients == 150
        assert stage.served == sum(carried(stage).values())
        assert stage.served + sum(stage.unserved.values()) == 150
        assert sum(clients for clients, _ in stage.regions.values()) == 150
        assert sum(connections for _, connections in stage.regions.values()) == stage.served
        for load in stage.loads:
            assert load.backend.hard_limit == 0 or load.connections <= load.backend.hard_limit
            assert load.connections == 0 or (load.is_serving and load.backend.weight > 0)
    before, after = carried(results.stages[0]), carried(results.stages[-1])
    assert results.broken_bindings == sum(before[one] for one in failed)
    gained = Counter[str]()
    for move in results.moves:
        assert move.source in failed and move.target not in failed
        gained[move.target or ""] += move.clients
    for one in before:
        assert after[one] == (0 if one in failed else before[one] + gained[one])


def test_the_same_seed_gives_the_same():
    fleet = [backend("a"), backend("b", weight=2), backend("c", "FR/eu", hard_limit=20)]
    assert simulate(fleet, 200, ("a",)).to_json() == simulate(fleet, 200, ("a",)).to_json()


def test_overflow_counts_clients_served_from_farther_away_than_by_an_empty_pool():
    stage = simulate([backend("br", hard_limit=10), backend("fr", "FR/eu", hard_limit=50)], 200).stages[0]
    assert carried(stage) == {"br": 10, "fr": 50}
    assert [load.state for load in stage.loads] == ["full", "full"]
    assert stage.unserved == {"all_full": 140}
    # No French client went elsewhere: those not on fr have no backend.
    assert sum(stage.overflow.values()) == 140 + sum(
        count
        for flow, count in stage.flows.items()
        if flow.backend == "fr" and flow.country in ("BR", "AR", "JP", None)
    )


def test_bindings_of_a_failed_backend_move_to_the_next_nearest():
    fleet = [backend("br"), backend("ar", "AR/sa"), backend("fr", "FR/eu")]
    results = simulate(fleet, 500, ("br",))
    before = carried(results.stages[0])
    assert results.moves == (Move("br", "ar", before["br"]),)
    assert simulate(fleet, 500, ("br", "ar", "fr")).stages[1].unserved == {"none_available": 500}


# What is written of it


def test_tables_show_everything_in_the_json(capsys):
    fleet = [backend("br", hard_limit=10), backend("ar", "AR/sa"), backend("fr", "FR/eu", soft_limit=10)]
    results = simulate(fleet, 400, ("ar",))
    console = Console(width=200)
    for table in tables(results):
        console.print(table)
    text = capsys.readouterr().out
    for words in (
        "Connections",
        "Regions",
        "Share by tier",
        "Overflow",
        "full",
        "over soft",
        "out",
        "steady",
        "failure",
    ):
        assert words in text
    assert f"Bindings broken by the failure of ar: {results.broken_bindings}" in text
    assert json.loads(json.dumps(results.to_json()))["broken_bindings"] == results.broken_bindings


def test_the_picture_is_svg_with_everything_on_it_and_hostile_names_are_only_text():
    hostile = '<script>alert("1")</script>&'
    fleet = [backend(hostile), backend("fr", "FR/eu", hard_limit=5), backend("nowhere", "/")]
    picture = draw(simulate(fleet, 300, ("fr",)), "sa")
    texts = [element.text or "" for element in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert hostile in texts
    assert "300 clients, an edge in sa" in texts
    assert "script" not in {element.tag.rpartition("}")[2] for element in ET.fromstring(picture).iter()}


def colour(text):
    return tuple(int(text[first : first + 2], 16) for first in (1, 3, 5))


def test_a_colour_of_the_picture_has_one_meaning():
    meanings = [*_TIER_COLOURS, _UNSERVED_COLOUR, *_STATE_COLOURS.values()]
    for one, other in combinations(meanings, 2):
        assert math.dist(colour(one), colour(other)) > 60, (one, other)
    fleet = [backend("br"), backend("fr", "FR/eu", soft_limit=20), backend("de", "DE/eu", hard_limit=30)]
    results = simulate(fleet, 300, ("br",))
    bars = [one for one in ET.fromstring(draw(results, "sa")).iter(f"{SVG}rect") if one.get("fill") != "#fff"]
    of_backends = [one for one in bars if one.get("fill") in _STATE_COLOURS.values()]
    assert {one.get("fill") for one in of_backends} == {
        _STATE_COLOURS[load.state] for stage in results.stages for load in stage.loads
    }
    assert all(one.get("fill-opacity") is None for one in of_backends), "a faded colour is another one"
    assert {one.get("fill") for one in bars} <= set(meanings)


def test_names_of_neighbouring_cities_cover_neither_one_another_nor_bars():
    cities = "GB FR DE BE NL LU CH AT IT CZ".split()
    fleet = [backend(f"{city.lower()}-1", f"{city}/eu", hard_limit=10 + 5 * n) for n, city in enumerate(cities)]
    root = ET.fromstring(draw(simulate(fleet, 400, ("fr-1",)), "eu"))
    on_map = root.find(f"{SVG}g")
    names = [one for one in on_map.iter(f"{SVG}text") if one.get("class") == "mark"]
    boxes = [
        Box(x - 3.2 * len(one.text), y - 8, x + 3.2 * len(one.text), y)
        for one in names
        for x, y in [(float(one.get("x")), float(one.get("y")))]
    ]
    bars = [
        Box(x, y, x + float(one.get("width")), y + float(one.get("height")))
        for one in on_map.iter(f"{SVG}rect")
        for x, y in [(float(one.get("x")), float(one.get("y")))]
    ]
    assert [one.text for one in names] == [one.id for one in fleet]
    assert [pair for pair in combinations(boxes, 2) if pair[0].overlap(pair[1])] == []
    assert [(name, bar) for name in boxes for bar in bars if name.overlap(bar)] == []


def test_of_many_backends_the_picture_has_bars_for_the_busiest():
    picture = draw(simulate([backend(f"b{number}", hard_limit=1 + number % 3) for number in range(100)], 300), None)
    assert "and 76 more backends with fewer" in picture
    assert "an edge in no region" in picture
    assert "clients" in draw(simulate([], 10), "sa")
