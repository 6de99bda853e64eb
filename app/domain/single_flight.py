"""One election for all of a client's connections that arrive unbound at once: one holds it, the rest wait."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

W = TypeVar("W")

LEADER_TIMEOUT_SECONDS: Final = 1.0
"""How long the others wait for an elector that never reports before the next of them elects."""


class SingleFlight(Generic[W]):
    """Elections under way, by client, with those who wait for each. A waiter is whatever the caller hands in."""

    def __init__(self) -> None:
        self._flights: dict[str, tuple[float, list[W]]] = {}

    def join(self, client: str, waiter: W, now: float) -> bool:
        """Wait for the client's election. False: there is none under way, the caller has just become the elector."""
        flight = self._flights.get(client)
        if flight is not None and now < flight[0]:
            flight[1].append(waiter)
            return True
        self._flights[client] = (now + LEADER_TIMEOUT_SECONDS, flight[1] if flight else [])
        return False

    def finish(self, client: str) -> list[W]:
        """End the client's election; returns those who waited."""
        flight = self._flights.pop(client, None)
        return flight[1] if flight else []

    def replace_leader(self, client: str, now: float) -> W | None:
        """Make the first who waits the client's elector and return it; with nobody the election ends."""
        flight = self._flights.pop(client, None)
        if flight is None or not flight[1]:
            return None
        leader, *others = flight[1]
        self._flights[client] = (now + LEADER_TIMEOUT_SECONDS, others)
        return leader

    def replace_leaders(self, now: float) -> list[W]:
        """Pass on every election, because the reports of the electors may be lost; returns the new electors."""
        leaders = [self.replace_leader(client, now) for client in list(self._flights)]
        return [leader for leader in leaders if leader is not None]
