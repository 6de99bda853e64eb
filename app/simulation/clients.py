"""Draws clients: random IPv4 addresses of each country, in proportion to its internet users."""

from __future__ import annotations

import csv
import random
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import Final

USERS_FILE: Final = Path(__file__).parent.parent / "data" / "internet_users.csv"
_BATCH: Final = 10_000


def internet_users() -> dict[str, int]:
    """Return the internet users of each country in thousands (CIA World Factbook, see NOTICE)."""
    with USERS_FILE.open(encoding="ascii", newline="") as file:
        return {row["country"]: int(row["thousands"]) for row in csv.DictReader(file)}


class AddressSpace:
    """The IPv4 networks of every country."""

    def __init__(self, networks: Iterable[tuple[str, int, int]]) -> None:
        """`networks` are (country, first address, number of addresses)."""
        self._firsts: dict[str, array[int]] = {}
        sizes: dict[str, array[int]] = {}
        for country, first, size in networks:
            self._firsts.setdefault(country, array("I")).append(first)
            sizes.setdefault(country, array("Q")).append(size)
        self._ends = {country: array("Q", accumulate(counts)) for country, counts in sizes.items()}

    def __contains__(self, country: str) -> bool:
        return country in self._firsts

    def draw(self, country: str, chance: random.Random) -> str:
        """Return a random address of a country, uniformly distributed."""
        ends = self._ends[country]
        offset = int(chance.random() * ends[-1])
        network = bisect_right(ends, offset)
        address = self._firsts[country][network] + offset - (ends[network - 1] if network else 0)
        return f"{address >> 24}.{address >> 16 & 255}.{address >> 8 & 255}.{address & 255}"


class Crowd:
    """An endless supply of clients, by weight of country. Countries without addresses are left out."""

    def __init__(self, space: AddressSpace, weights: Mapping[str, int], chance: random.Random) -> None:
        self._space = space
        self._chance = chance
        self._weights = {country: weight for country, weight in weights.items() if weight > 0 and country in space}

    def share(self, country: str) -> float:
        """Return a country's share of the clients, 0-1. Raises KeyError for a country without clients."""
        return self._weights[country] / sum(self._weights.values())

    def draw(self, count: int) -> Iterator[str]:
        """Yield the addresses of `count` clients."""
        countries, ends = list(self._weights), list(accumulate(self._weights.values()))
        while count > 0:
            for country in self._chance.choices(countries, cum_weights=ends, k=min(count, _BATCH)):
                yield self._space.draw(country, self._chance)
            count -= _BATCH

    def draw_from(self, country: str, count: int) -> Iterator[str]:
        """Yield the addresses of `count` clients of one country."""
        return (self._space.draw(country, self._chance) for _ in range(count))
