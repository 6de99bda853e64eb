"""Which address each host name of a backend stands for, and when it is to be asked for again.

A name of several addresses stands for one of them, and for that one as long as it is among those to be used: clients
are not moved without need. A name that cannot be resolved any more keeps the address it had.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from app.domain.model import Backend

MIN_SECONDS: Final = 1.0
"""An answer is kept for so long, even if its time to live is less."""
RETRY_SECONDS: Final = 5.0
"""After a failure."""


class NameState(StrEnum):
    """How it stands with a name; a label of the metrics."""

    RESOLVED = "resolved"
    STALE = "stale"
    """It had an address, which is kept, but was not found the last time."""
    UNRESOLVED = "unresolved"


@dataclass(slots=True)
class _Name:
    address: str = ""
    failure: str | None = None
    due_at: float = float("-inf")
    is_being_asked: bool = False


class HostNames:
    """The names of the backends there are. All times are monotonic seconds handed in."""

    def __init__(self) -> None:
        self._names: dict[str, _Name] = {}
        self._filled: dict[Backend, Backend] = {}

    def watch(self, backends: Iterable[Backend]) -> None:
        """Know the names of these backends, and no others. New ones are due at once."""
        rows = {backend for backend in backends if backend.host_name is not None}
        wanted = {row.host_name for row in rows if row.host_name is not None}
        if wanted != self._names.keys():
            self._names = {name: self._names.get(name) or _Name() for name in wanted}
        self._filled = {row: filled for row, filled in self._filled.items() if row in rows}

    def with_addresses(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Return the backends with the addresses of their names; where there is none yet, the host stays empty."""
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

    def take_due(self, now: float, most: int) -> list[str]:
        """Return names that are to be asked for now, at most so many, those that have waited longest.

        The caller tells what comes of each.
        """
        due = [text for text, name in self._names.items() if name.due_at <= now and not name.is_being_asked]
        due = sorted(due, key=lambda text: self._names[text].due_at)[:most]
        for text in due:
            self._names[text].is_being_asked = True
        return due

    def resolved(self, text: str, addresses: Sequence[str], seconds: float, now: float) -> bool:
        """Take in what a name may stand for, the best first, good for `seconds`; says whether it is news."""
        name = self._names.get(text)
        if name is None:
            return False
        before = name.address, name.failure
        if name.address not in addresses:
            name.address = addresses[0]
        name.failure, name.is_being_asked = None, False
        name.due_at = now + max(seconds, MIN_SECONDS)
        return before != (name.address, None)

    def failed(self, text: str, reason: str, now: float) -> bool:
        """Note why a name was not found; says whether that is news."""
        name = self._names.get(text)
        if name is None:
            return False
        before, name.failure = name.failure, reason
        name.due_at, name.is_being_asked = now + RETRY_SECONDS, False
        return before != reason

    def address(self, text: str) -> str:
        """Return the address of a name, empty while there is none."""
        name = self._names.get(text)
        return name.address if name is not None else ""

    def counts(self) -> dict[NameState, int]:
        """Return how many names are in each state; one that was not asked for yet is unresolved."""
        counts = dict.fromkeys(NameState, 0)
        for name in self._names.values():
            is_found = NameState.RESOLVED if name.failure is None else NameState.STALE
            counts[is_found if name.address else NameState.UNRESOLVED] += 1
        return counts
