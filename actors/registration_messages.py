"""The vocabulary of the registrations actor. Every message is a request, so that none is lost."""

from __future__ import annotations

from collections.abc import Mapping

from actors.runtime import Request
from app.domain.registration import Registration


class RenewRegistration(Request[bool], frozen=True):
    """A service says what it said before; False when it is not kept like that."""

    registration: Registration


class AddRegistration(Request[None], frozen=True):
    """This stands in the routing database."""

    registration: Registration


class RemoveRegistrations(Request[None], frozen=True):
    """These stand there no more."""

    ids: tuple[str, ...]


class ReplaceRegistrations(Request[None], frozen=True):
    """These stand there, by id, and no others."""

    found: Mapping[str, Registration]


class FindExpired(Request[list[Registration]], frozen=True):
    """Which have not been renewed in time? They stay until they are ended."""
