"""Which address is used for each host name of a backend, and when the name is looked up again.

If a name has several addresses, one of them is used for as long as it is among the usable ones, so that clients are not
moved without need. A name that no longer resolves keeps its last address.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from app.domain.model import Backend

MIN_SECONDS: Final = 1.0
"""Minimum time between lookups of a name, even if its time to live is shorter."""
RETRY_SECONDS: Final = 5.0
"""Time to the next lookup after a failure."""


class NameState(StrEnum):
    """The state of a host name; a label in the metrics."""

    RESOLVED = "resolved"
    STALE = "stale"
    """The last lookup failed; the last address is kept."""
    UNRESOLVED = "unresolved"


@dataclass(slots=True)
class _Name:
    address: str = ""
    failure: str | None = None
    due_at: float = float("-inf")
    is_being_looked_up: bool = False


class HostNames:
    """The host names of the present backends. All times are arguments, in monotonic seconds."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._filled: dict[Backend, Backend] = {}

    def watch(self, backends: Iterable[Backend]) -> None:
        """Resolve the names of exactly these backends. New names are due at once."""
        rows = {backend for backend in backends if backend.host_name is not None}
        wanted = {row.host_name for row in rows if row.host_name is not None}
        if wanted != self._names.keys():
            self._names = {name: self._names.get(name) or _Name() for name in wanted}
        self._filled = {row: filled for row, filled in self._filled.items() if row in rows}

    def with_addresses(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Return the backends with the addresses of their names. The host stays empty until a name is resolved."""
        if not self._names:
            return backends
        return tuple(self._fill(backend) for backend in backends)

    def _fill(self, backend: Backend) -> Backend:
        name = self._names.get(backend.host_name or "")
        if name is None or not name.address:
            return backend
        known = self._filled.get(backend)
        if known is None or known.host != name.address:
            known = self._filled[backend] = replace(backend, host=name.address)
        return known

    def take_due(self, now: float, limit: int) -> list[str]:
        """Return up to `limit` names that are due for a lookup, longest overdue first.

        The caller looks them up and reports each by `resolved` or `failed`.
        """
        due = [text for text, name in self._names.items() if name.due_at <= now and not name.is_being_looked_up]
        due = sorted(due, key=lambda text: self._names[text].due_at)[:limit]
        for text in due:
            self._names[text].is_being_looked_up = True
        return due

    def resolved(self, text: str, addresses: Sequence[str], seconds: float, now: float) -> bool:
        """Record the usable addresses of a name, best first, valid for `seconds`; return whether anything changed."""
        name = self._names.get(text)
        if name is None:
            return False
        before = name.address, name.failure
        if name.address not in addresses:
            name.address = addresses[0]
        name.failure, name.is_being_looked_up = None, False
        name.due_at = now + max(seconds, MIN_SECONDS)
        return before != (name.address, None)

    def failed(self, text: str, reason: str, now: float) -> bool:
        """Record why a lookup failed; return whether the reason is new."""
        name = self._names.get(text)
        if name is None:
            return False
        before, name.failure = name.failure, reason
        name.due_at, name.is_being_looked_up = now + RETRY_SECONDS, False
        return before != reason

    def address(self, text: str) -> str:
        """Return the address of a name, empty if there is none."""
        name = self._names.get(text)
        return name.address if name is not None else ""

    def counts(self) -> dict[NameState, int]:
        """Return how many names are in each state; a name not looked up yet is unresolved."""
        counts = dict.fromkeys(NameState, 0)
        for name in self._names.values():
            state = NameState.RESOLVED if name.failure is None else NameState.STALE
            counts[state if name.address else NameState.UNRESOLVED] += 1
        return counts
