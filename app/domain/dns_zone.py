"""The names under which clients inside the network find backends: one zone, made of what this edge knows of its pools.

============================== =======================================================================================
name, below the domain         what stands there
============================== =======================================================================================
<app>                          its backends that take new clients, best first
<region>.<app>                 those of them in a region
<id>.<app>                     one backend, whatever its health: who asks for it by name wants that one
regions.<app>                  text: the regions in which the app has a backend that takes new clients
<region>.backends              the backends of all apps in a region that take new clients
pops                           text: this edge's own region, then the others in which it knows a backend
============================== =======================================================================================

Best first is the order of the edge's own election for a client of unknown place: near before far, then by load, then
by chance and weight. An app whose backends are all down keeps its names, and nobody stands there.

A backend without an app goes by the name of its pool. How texts become labels is said in app.domain.dns_labels. An app
called `backends` or `pops` has no names, and a region goes before an id that is called like it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from math import log
from typing import Final, NamedTuple

from app.domain.dns_labels import claims, label_of
from app.domain.geography import geo_tier
from app.domain.pool import MemberView

MOST_PLACES: Final = 16
"""Backends that stand at one name: more help nobody and take room in a datagram."""
MOST_REGIONS: Final = 1000
"""Regions that a text names: with the longest labels as many as a message has room for."""
RESERVED_APPS: Final = ("backends", "pops")

Labels = tuple[str, ...]
"""A name below the domain, in lower case, as it is written: ("sa", "web"). The domain itself is ()."""
Chance = Callable[[], float]
"""Gives random numbers from 0 to below 1."""


class Place(NamedTuple):
    """Where a backend is. `name` is its own; None when another has it."""

    address: str
    port: int
    tier: int
    load: float
    weight: int
    name: Labels | None


class Node(NamedTuple):
    """What stands at a name: places, best first, at most MOST_PLACES, and a text."""

    places: tuple[Place, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """Every name there is, and what stands there. `serial` grows from one zone to the next (RFC 1982)."""

    nodes: Mapping[Labels, Node]
    serial: int


def best_first(places: Iterable[Place], chance: Chance) -> list[Place]:
    """Order places as the election would, and return those that may stand at a name.

    Near goes before far, then less load before more, and equals are ordered by chance and weight.
    """

    def rank(place: Place) -> tuple[int, float, float]:
        # The wait that puts equals in order is drawn as app.domain.selection.geo draws it.
        return place.tier, place.load, -log(1.0 - chance()) / (place.weight or 1)

    return nsmallest(MOST_PLACES, places, key=rank)


def nearest(places: Iterable[Place], chance: Chance) -> list[Place]:
    """Return the places of the nearest tier, best first."""
    ordered = best_first(places, chance)
    return [place for place in ordered if place.tier == ordered[0].tier]


def make_zone(pools: Mapping[str, Iterable[MemberView]], pop_region: str | None, serial: int, chance: Chance) -> Zone:
    """Make the zone of the pools' members. `pop_region` is this edge's own."""
    nodes: dict[Labels, Node] = {(): Node(), ("backends",): Node()}
    listed = _listed(pools)
    serving: list[_Listed] = []
    apps = _grouped(listed, lambda one: one.app)
    for label, app in claims(apps).items():
        if label not in RESERVED_APPS:
            serving += _add_app(nodes, label, apps[app], pop_region, chance)
    regions = _grouped(serving, lambda one: one.region)
    for label, region in claims(regions).items():
        nodes[label, "backends"] = _node(regions[region], chance)
    own = label_of(pop_region or "")
    known = sorted(claims({one.region for one in listed}).keys() - {own})
    nodes[("pops",)] = Node(text=_text([own, *known] if own else known))
    return Zone(nodes, serial)


class _Listed:
    """A backend while the zone is made."""

    __slots__ = ("app", "id", "place", "region", "view")

    def __init__(self, app: str, view: MemberView) -> None:
        self.app = app
        self.id = view.backend.id
        self.region = view.backend.region or ""
        self.view = view
        self.place: Place


def _listed(pools: Mapping[str, Iterable[MemberView]]) -> list[_Listed]:
    """Return every backend that has not left, once; one of several pools as it is in the pool where it serves."""
    found: dict[tuple[str, str], _Listed] = {}
    for pool, members in pools.items():
        for member in members:
            if member.has_left:
                continue
            one = _Listed(member.backend.app or pool, member)
            known = found.get((one.app, one.id))
            if known is None or (member.takes_new_clients and not known.view.takes_new_clients):
                found[one.app, one.id] = one
    return list(found.values())


def _grouped(listed: Iterable[_Listed], key: Callable[[_Listed], str]) -> dict[str, list[_Listed]]:
    groups: dict[str, list[_Listed]] = {}
    for one in listed:
        groups.setdefault(key(one), []).append(one)
    return groups


def _add_app(
    nodes: dict[Labels, Node], app: str, listed: list[_Listed], pop_region: str | None, chance: Chance
) -> list[_Listed]:
    """Add the names of one app; returns those of its backends that take new clients."""
    by_region = _grouped(listed, lambda one: one.region)
    regions = claims(by_region)
    names = {id_: label for label, id_ in claims(one.id for one in listed).items()}
    for one in listed:
        label = names.get(one.id)
        # Where a region has the name, it leads to this backend if there is no other.
        is_own = label is not None and (label not in regions or by_region[regions[label]] == [one])
        one.place = _place(one.view, (label, app) if label is not None and is_own else None, pop_region)
        if one.place.name is not None:
            nodes[one.place.name] = Node((one.place,) if one.place.address else ())
    serving = [one for one in listed if one.view.takes_new_clients]
    for label, region in regions.items():
        nodes[label, app] = _node((one for one in serving if one.region == region), chance)
    nodes[(app,)] = _node(serving, chance)
    served = {one.region for one in serving}
    text = _text(sorted(label for label, region in regions.items() if region in served))
    nodes["regions", app] = nodes.get(("regions", app), Node())._replace(text=text)
    return serving


def _place(view: MemberView, name: Labels | None, pop_region: str | None) -> Place:
    backend = view.backend
    tier = geo_tier(backend.country, backend.region, None, pop_region)
    return Place(backend.host, backend.port, tier, view.load, backend.weight, name)


def _node(listed: Iterable[_Listed], chance: Chance) -> Node:
    return Node(tuple(best_first((one.place for one in listed), chance)))


def _text(regions: list[str]) -> str:
    """Return what names regions, by the labels at which they are found."""
    return ",".join(regions[:MOST_REGIONS])
