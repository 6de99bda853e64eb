"""The registration table: the registrations of one edge as they were sent last, and when each expires.

Times are those of a monotonic clock. The routing database is known here only by what is entered and adopted. A
heartbeat with other content is no renewal: the registrar must write it to the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.domain.registration import Registration


@dataclass(slots=True)
class _Kept:
    registration: Registration
    expires_at: float


class RegistrationTable:
    """Holds registrations by the id of their backend."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def renew(self, registration: Registration, now: float) -> bool:
        """Extend a registration by its time to live; returns False if it is unknown, different or expired."""
        kept = self._kept.get(registration.backend.id)
        if kept is None or kept.registration != registration or kept.expires_at <= now:
            return False
        kept.expires_at = now + registration.ttl_seconds
        return True

    def enter(self, registration: Registration, now: float) -> None:
        """Add or replace a registration that was written to the routing database."""
        self._kept[registration.backend.id] = _Kept(registration, now + registration.ttl_seconds)

    def leave(self, ids: Iterable[str]) -> None:
        """Remove the registrations of these backends."""
        for backend_id in ids:
            self._kept.pop(backend_id, None)

    def adopt(self, found: Mapping[str, Registration], now: float) -> None:
        """Hold exactly the registrations of the routing database; unknown ones get their whole time to live."""
        known = self._kept
        self._kept = {
            backend_id: _Kept(
                registration,
                known[backend_id].expires_at if backend_id in known else now + registration.ttl_seconds,
            )
            for backend_id, registration in found.items()
        }

    def due(self, now: float) -> list[Registration]:
        """Return the expired registrations, which no heartbeat renews any more."""
        return [kept.registration for kept in self._kept.values() if kept.expires_at <= now]
