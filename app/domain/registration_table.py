"""The registrations that one edge keeps: what each service said last, and when it has said nothing for too long.

Times are those of a monotonic clock. What stands in the routing database is not known here but by what is entered and
adopted; a heartbeat that says anything else is no renewal, and whoever keeps the database looks there.
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
    """By id of the backend."""

    def __init__(self) -> None:
        self._kept: dict[str, _Kept] = {}

    def renew(self, registration: Registration, now: float) -> bool:
        """Let it hold for its time from now on; False when it is not kept like that, or too late."""
        kept = self._kept.get(registration.backend.id)
        if kept is None or kept.registration != registration or kept.expires_at <= now:
            return False
        kept.expires_at = now + registration.ttl_seconds
        return True

    def add(self, registration: Registration, now: float) -> None:
        """Keep what stands in the routing database from now on."""
        self._kept[registration.backend.id] = _Kept(registration, now + registration.ttl_seconds)

    def remove(self, ids: Iterable[str]) -> None:
        """Keep these no longer."""
        for backend_id in ids:
            self._kept.pop(backend_id, None)

    def replace_all(self, found: Mapping[str, Registration], now: float) -> None:
        """Keep what the routing database has, and nothing else; those not known yet get their whole time."""
        known = self._kept
        self._kept = {
            backend_id: _Kept(
                registration,
                known[backend_id].expires_at if backend_id in known else now + registration.ttl_seconds,
            )
            for backend_id, registration in found.items()
        }

    def expired(self, now: float) -> list[Registration]:
        """Return those whose time is over; a heartbeat does not renew them any more."""
        return [kept.registration for kept in self._kept.values() if kept.expires_at <= now]
