"""Per-client limits: concurrent connections, and new connections per second (a token bucket)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.domain.outcome import Refusal

_SWEPT_PER_NEW_CLIENT = 2
"""Clients swept for each new one, so that the table cannot grow faster than it is swept."""


@dataclass(frozen=True, slots=True)
class LimitRules:
    """The limits of one client at one frontend; 0 disables a limit.

    `connections_per_second` is also the size of the burst (at least 1).
    """

    max_connections: int = 0
    connections_per_second: float = 0.0

    @property
    def are_enabled(self) -> bool:
        return self.max_connections > 0 or self.connections_per_second > 0


class _Client:
    __slots__ = ("open", "refilled_at", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.open: set[int] = set()
        self.tokens = tokens
        self.refilled_at = now


class ClientLimits:
    """Admits or refuses new connections of clients. With both limits disabled it stores nothing.

    `sweep` removes clients that have no open connection and a full bucket.
    """

    def __init__(self, rules: LimitRules) -> None:
        self._clients: dict[str, _Client] = {}
        self._sweep_order: list[str] = []
        self.set_rules(rules)

    def set_rules(self, rules: LimitRules) -> None:
        """Apply other rules from now on; open connections stay counted."""
        self._are_enabled = rules.are_enabled
        self._max = rules.max_connections
        self._rate = rules.connections_per_second
        self._burst = max(1.0, rules.connections_per_second)

    def admit(self, client: str, connection: int, now: float) -> Refusal | None:
        """Count a new connection of a client, or return why it is refused. Repeating it for a connection is safe."""
        if not self._are_enabled:
            return None
        entry = self._clients.get(client)
        if entry is None:
            self.sweep(now, _SWEPT_PER_NEW_CLIENT)
            entry = self._clients[client] = _Client(self._burst, now)
        if connection in entry.open:
            return None
        if 0 < self._max <= len(entry.open):
            return Refusal.CLIENT_CONNECTIONS
        if self._rate > 0:
            entry.tokens = min(self._burst, entry.tokens + (now - entry.refilled_at) * self._rate)
            entry.refilled_at = now
            if entry.tokens < 1:
                return Refusal.CLIENT_RATE
            entry.tokens -= 1
        entry.open.add(connection)
        return None

    def leave(self, client: str, connection: int) -> None:
        """Uncount a connection, if `admit` counted it."""
        entry = self._clients.get(client)
        if entry is not None:
            entry.open.discard(connection)
            if not entry.open and self._rate <= 0:
                del self._clients[client]

    def recount(self, connections: Iterable[tuple[str, int]]) -> None:
        """Replace the counts by the (client, connection) pairs open now, because a crash lost messages."""
        for entry in self._clients.values():
            entry.open.clear()
        for client, connection in connections:
            counted = self._clients.get(client)
            if counted is not None:
                counted.open.add(connection)

    def sweep(self, now: float, at_most: int) -> None:
        """Check up to `at_most` clients, and remove those without open connections whose bucket has refilled."""
        if not self._sweep_order:
            self._sweep_order = list(self._clients)
        for client in self._sweep_order[-at_most:]:
            entry = self._clients.get(client)
            if entry is not None and not entry.open and self._has_refilled(entry, now):
                del self._clients[client]
        del self._sweep_order[-at_most:]

    def _has_refilled(self, entry: _Client, now: float) -> bool:
        return self._rate <= 0 or (now - entry.refilled_at) * self._rate >= self._burst


def replace_limits(limits: dict[str, ClientLimits], rules: Mapping[str, LimitRules]) -> None:
    """Replace the limits by these rules per frontend. Frontends that remain keep their counts."""
    for frontend in [frontend for frontend in limits if frontend not in rules]:
        del limits[frontend]
    for frontend, rule in rules.items():
        if frontend in limits:
            limits[frontend].set_rules(rule)
        else:
            limits[frontend] = ClientLimits(rule)
