"""Selectors driven by hand: members without a pool, reserved and released as a pool does it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable
from typing import Any

from app.domain.client import Client
from app.domain.health import HealthRules
from app.domain.member import Floor, Member
from app.domain.model import Backend
from app.domain.selection import Selector, make_selector
from tests.unit.pools import BRAZIL, backend

A_CLIENT = Client("192.0.2.1", "default 192.0.2.1", BRAZIL)


def client(number: int) -> Client:
    address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    return Client(address, f"default {address}", BRAZIL)


def selector(algorithm: str, *, pop_region: str | None = "sa", seed: int = 1) -> Selector:
    return make_selector(algorithm, pop_region=pop_region, rng=random.Random(seed), spills_at_soft_limit=False)


class SelectorUnderTest:
    """One selector over members by name."""

    def __init__(self, algorithm: str, rows: Iterable[Backend] = ()) -> None:
        self.selector = selector(algorithm)
        self.floor = Floor()
        self.members: dict[str, Member] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Backend) -> None:
        """Take a row in, or change it."""
        member = self.members.get(row.id)
        if member is None:
            member = self.members[row.id] = Member(row, HealthRules(), self.floor, now=0.0)
        member.backend = row
        self.selector.add(member)

    def remove(self, name: str) -> None:
        member = self.members.pop(name)
        member.has_left = True
        self.selector.remove(member)

    def hold(self, client: Client = A_CLIENT, excluded: Collection[str] = ()) -> str | None:
        """Connect and stay connected; return the name of the member."""
        member = self.selector.select(client, excluded)
        if member is None:
            return None
        self.count(member.backend.id, 1)
        return member.backend.id

    def count(self, name: str, more: int) -> None:
        """Count connections of a member up or down."""
        self.members[name].connections += more
        self.selector.update(self.members[name])

    def visit(self, client: Client = A_CLIENT, excluded: Collection[str] = ()) -> str | None:
        """Connect and disconnect; return the name of the member."""
        name = self.hold(client, excluded)
        if name is not None:
            self.count(name, -1)
        return name

    def visits(self, times: int, excluded: Collection[str] = ()) -> str:
        """Return the members of successive visits, names joined."""
        return "".join(self.visit(excluded=excluded) or "-" for _ in range(times))

    def turn_off(self, name: str) -> None:
        self.members[name].health.eject(now=0.0)
        self.selector.update(self.members[name])

    def turn_on(self, name: str) -> None:
        self.members[name].health.readmit()
        self.selector.update(self.members[name])


def weighted_rows(**weights: int) -> list[Backend]:
    """Return a row a name, in the order given."""
    return [backend(name, weight=weight) for name, weight in weights.items()]


def same_rows(names: Iterable[str], **fields: Any) -> list[Backend]:
    return [backend(name, **fields) for name in names]
