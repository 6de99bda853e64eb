"""The registrations that one edge holds: the last registration of each service, and when it expires.

Times are monotonic seconds. The table does not read the routing database: `add` and `replace_all` tell it what is
there. A heartbeat that differs from the entry is not a renewal; the registrar then consults the database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from app.domain.registration import Registration


@dataclass(slots=True)
class _Entry:
    registration: Registration
    expires_at: float


class RegistrationTable:
    """Registrations by backend id."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}

    def renew(self, registration: Registration, now: float) -> bool:
        """Renew a registration. Return False if the table has no equal entry, or an expired one."""
        entry = self._entries.get(registration.backend.id)
        if entry is None or entry.registration != registration or entry.expires_at <= now:
            return False
        entry.expires_at = now + registration.ttl_seconds
        return True

    def add(self, registration: Registration, now: float) -> None:
        """Add a registration that is in the routing database from now on."""
        self._entries[registration.backend.id] = _Entry(registration, now + registration.ttl_seconds)

    def remove(self, ids: Iterable[str]) -> None:
        """Remove registrations by backend id."""
        for backend_id in ids:
            self._entries.pop(backend_id, None)

    def replace_all(self, found: Mapping[str, Registration], now: float) -> None:
        """Replace the table by the content of the routing database; new entries get their full time to live."""
        known = self._entries
        self._entries = {
            backend_id: _Entry(
                registration,
                known[backend_id].expires_at if backend_id in known else now + registration.ttl_seconds,
            )
            for backend_id, registration in found.items()
        }

    def expired(self, now: float) -> list[Registration]:
        """Return the expired registrations, which a heartbeat can no longer renew."""
        return [entry.registration for entry in self._entries.values() if entry.expires_at <= now]
