"""The zone of the internal DNS: the names under which clients inside the network find backends.

The zone is built from what this edge knows of its pools:

============================== =======================================================================================
name, below the domain         content
============================== =======================================================================================
<app>                          the app's backends that take new clients, best first
<region>.<app>                 those of them in one region
<id>.<app>                     one backend, whatever its health: a client that asks for its id wants that backend
regions.<app>                  text: the regions in which the app has a backend that takes new clients
<region>.backends              the backends of all apps in a region that take new clients
pops                           text: this edge's own region, then the other regions in which it knows a backend
============================== =======================================================================================

"Best first" is the order in which the edge would select for a client of unknown location: by tier, then by load, then
at random by weight. An app whose backends are all down keeps its names, without records.

A backend without an app is listed under the name of its pool. app.domain.dns_labels turns texts into labels. An app
called `backends` or `pops` gets no names. A region takes precedence over a backend id of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from heapq import nsmallest
from math import log
from typing import Final, NamedTuple

from app.domain.dns_labels import label_of, texts_by_label
from app.domain.geography import geo_tier
from app.domain.member_views import MemberView

MAX_BACKENDS: Final = 16
"""Backends listed at one name. More would fill a datagram without helping a client."""
MAX_REGIONS: Final = 1000
"""Regions listed in one text: as many as fit into a message if every label is of maximum length."""
RESERVED_APPS: Final = ("backends", "pops")

Labels = tuple[str, ...]
"""A name below the domain, in lower case, in written order: ("sa", "web"). The domain itself is ()."""
RandomSource = Callable[[], float]
"""Returns random numbers from 0 to below 1."""


class DnsBackend(NamedTuple):
    """A backend as the zone lists it. `name` is the backend's own name, None if something else has that name."""

    address: str
    port: int
    tier: int
    load: float
    weight: int
    name: Labels | None


class Node(NamedTuple):
    """The content of a name: backends, best first, at most MAX_BACKENDS, and a text."""

    backends: tuple[DnsBackend, ...] = ()
    text: str = ""


@dataclass(frozen=True, slots=True)
class Zone:
    """Every name with its content. `serial` grows from one zone to the next (RFC 1982)."""

    nodes: Mapping[Labels, Node]
    serial: int


def best_first(backends: Iterable[DnsBackend], rng: RandomSource) -> list[DnsBackend]:
    """Sort backends as the edge would select them, and return the first MAX_BACKENDS.

    A nearer tier comes first, then a lower load; equals are in random order by weight.
    """

    def rank(backend: DnsBackend) -> tuple[int, float, float]:
        # Equals are ordered by exponential waits, as in app.domain.selection.geo.
        return backend.tier, backend.load, -log(1.0 - rng()) / (backend.weight or 1)

    return nsmallest(MAX_BACKENDS, backends, key=rank)


def nearest(backends: Iterable[DnsBackend], rng: RandomSource) -> list[DnsBackend]:
    """Return the backends of the nearest tier, best first."""
    ordered = best_first(backends, rng)
    return [backend for backend in ordered if backend.tier == ordered[0].tier]


def make_zone(
    pools: Mapping[str, Iterable[MemberView]], pop_region: str | None, serial: int, rng: RandomSource
) -> Zone:
    """Build the zone from the members of the pools. `pop_region` is the region of this edge."""
    nodes: dict[Labels, Node] = {(): Node(), ("backends",): Node()}
    listed = _listed(pools)
    serving: list[_ZoneMember] = []
    apps = _grouped(listed, lambda one: one.app)
    for label, app in texts_by_label(apps).items():
        if label not in RESERVED_APPS:
            serving += _add_app(nodes, label, apps[app], pop_region, rng)
    regions = _grouped(serving, lambda one: one.region)
    for label, region in texts_by_label(regions).items():
        nodes[label, "backends"] = _node(regions[region], rng)
    own = label_of(pop_region or "")
    known = sorted(texts_by_label({one.region for one in listed}).keys() - {own})
    nodes[("pops",)] = Node(text=_text([own, *known] if own else known))
    return Zone(nodes, serial)


class _ZoneMember:
    """A member of a pool while the zone is built."""

    __slots__ = ("app", "dns_backend", "id", "region", "view")

    def __init__(self, app: str, view: MemberView) -> None:
        self.app = app
        self.id = view.backend.id
        self.region = view.backend.region or ""
        self.view = view
        self.dns_backend: DnsBackend


def _listed(pools: Mapping[str, Iterable[MemberView]]) -> list[_ZoneMember]:
    """Return every backend that has not left, once. One in several pools is taken from a pool in which it serves."""
    found: dict[tuple[str, str], _ZoneMember] = {}
    for pool, members in pools.items():
        for member in members:
            if member.has_left:
                continue
            one = _ZoneMember(member.backend.app or pool, member)
            known = found.get((one.app, one.id))
            if known is None or (member.takes_new_clients and not known.view.takes_new_clients):
                found[one.app, one.id] = one
    return list(found.values())


def _grouped(listed: Iterable[_ZoneMember], key: Callable[[_ZoneMember], str]) -> dict[str, list[_ZoneMember]]:
    groups: dict[str, list[_ZoneMember]] = {}
    for one in listed:
        groups.setdefault(key(one), []).append(one)
    return groups


def _add_app(
    nodes: dict[Labels, Node], app: str, listed: list[_ZoneMember], pop_region: str | None, rng: RandomSource
) -> list[_ZoneMember]:
    """Add the names of one app; return its backends that take new clients."""
    by_region = _grouped(listed, lambda one: one.region)
    regions = texts_by_label(by_region)
    names = {id_: label for label, id_ in texts_by_label(one.id for one in listed).items()}
    for one in listed:
        label = names.get(one.id)
        # A region with this label takes the name; the name still serves this backend if it is the region's only one.
        is_own = label is not None and (label not in regions or by_region[regions[label]] == [one])
        one.dns_backend = _dns_backend(one.view, (label, app) if label is not None and is_own else None, pop_region)
        if one.dns_backend.name is not None:
            nodes[one.dns_backend.name] = Node((one.dns_backend,) if one.dns_backend.address else ())
    serving = [one for one in listed if one.view.takes_new_clients]
    serving = [one for one in serving if not one.view.backend.is_backup] or serving
    for label, region in regions.items():
        nodes[label, app] = _node((one for one in serving if one.region == region), rng)
    nodes[(app,)] = _node(serving, rng)
    served = {one.region for one in serving}
    text = _text(sorted(label for label, region in regions.items() if region in served))
    nodes["regions", app] = nodes.get(("regions", app), Node())._replace(text=text)
    return serving


def _dns_backend(view: MemberView, name: Labels | None, pop_region: str | None) -> DnsBackend:
    backend = view.backend
    tier = geo_tier(backend.country, backend.region, None, pop_region)
    return DnsBackend(backend.host, backend.port, tier, view.load, backend.weight, name)


def _node(listed: Iterable[_ZoneMember], rng: RandomSource) -> Node:
    return Node(tuple(best_first((one.dns_backend for one in listed), rng)))


def _text(regions: list[str]) -> str:
    """Return the text that lists regions by their labels."""
    return ",".join(regions[:MAX_REGIONS])
