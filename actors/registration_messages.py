"""The messages of the registrations actor. All are requests, so that none is lost."""

from __future__ import annotations

from collections.abc import Mapping

from actors.runtime import Request
from app.domain.registration import Registration


class RenewRegistration(Request[bool], frozen=True):
    """Renew a registration. The reply is False if there is no equal, unexpired entry."""

    registration: Registration


class AddRegistration(Request[None], frozen=True):
    """Add a registration that is now in the routing database."""

    registration: Registration


class RemoveRegistrations(Request[None], frozen=True):
    """Remove registrations that are no longer in the routing database, by backend id."""

    ids: tuple[str, ...]


class ReplaceRegistrations(Request[None], frozen=True):
    """Replace all registrations by those in the routing database, by backend id."""

    found: Mapping[str, Registration]


class FindExpired(Request[list[Registration]], frozen=True):
    """Return the registrations that were not renewed in time. They stay until they are removed."""
