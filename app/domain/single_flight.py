"""Simultaneous first connections of one client share one election: the first elects, the others wait for it."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

W = TypeVar("W")

ELECTOR_PATIENCE_SECONDS: Final = 1.0
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
        self._flights[client] = (now + ELECTOR_PATIENCE_SECONDS, flight[1] if flight else [])
        return False

    def land(self, client: str) -> list[W]:
        """End the client's election; returns those who waited."""
        flight = self._flights.pop(client, None)
        return flight[1] if flight else []
