"""A row of the benchmark: one load, the peers that it is applied to, and its figures."""

from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmark.peers import Peer, Proxy


@dataclass(frozen=True)
class Figure:
    """One line of the table; `better` is 'more' or 'less'; `digits` follow the decimal point."""

    key: str
    label: str
    unit: str
    better: str
    digits: int = 0


@dataclass(frozen=True)
class Row:
    """One measurement of `peers` of one mode: `measure(proxy, seconds)` returns a value for each figure's key."""

    key: str
    upstream: str
    needs: tuple[str, ...]
    peers: tuple[Peer, ...]
    figures: tuple[Figure, ...]
    measure: Callable[[Proxy, int], dict[str, float]]

    @property
    def mode(self) -> str:
        """Return the mode of the row's peers."""
        return self.peers[0].mode
