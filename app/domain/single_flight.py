"""One selection for all unbound connections of a client that arrive together: one of them leads, the others wait."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

W = TypeVar("W")

LEADER_TIMEOUT_SECONDS: Final = 1.0
"""How long the others wait for a leader that does not report before the next connection becomes the leader."""


class SingleFlight(Generic[W]):
    """The selections in progress, by client, with their waiters. A waiter is any object of the caller."""

    def __init__(self) -> None:
        self._selections: dict[str, tuple[float, list[W]]] = {}

    def join(self, client: str, waiter: W, now: float) -> bool:
        """Add a waiter to the client's selection. Return False if none is in progress: the caller is now the leader."""
        selection = self._selections.get(client)
        if selection is not None and now < selection[0]:
            selection[1].append(waiter)
            return True
        self._selections[client] = (now + LEADER_TIMEOUT_SECONDS, selection[1] if selection else [])
        return False

    def finish(self, client: str) -> list[W]:
        """End the client's selection; return its waiters."""
        selection = self._selections.pop(client, None)
        return selection[1] if selection else []

    def replace_leader(self, client: str, now: float) -> W | None:
        """Make the first waiter the leader and return it. Without waiters, end the selection and return None."""
        selection = self._selections.pop(client, None)
        if selection is None or not selection[1]:
            return None
        leader, *others = selection[1]
        self._selections[client] = (now + LEADER_TIMEOUT_SECONDS, others)
        return leader

    def replace_leaders(self, now: float) -> list[W]:
        """Replace the leader of every selection, because their reports may be lost; return the new leaders."""
        leaders = [self.replace_leader(client, now) for client in list(self._selections)]
        return [leader for leader in leaders if leader is not None]
