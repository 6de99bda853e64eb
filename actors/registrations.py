"""The registrations actor owns the table of registrations and their expiry (app.domain.registration_table)."""

from __future__ import annotations

import time

from actors.registration_messages import (
    AddRegistration,
    FindExpired,
    RemoveRegistrations,
    RenewRegistration,
    ReplaceRegistrations,
)
from actors.runtime import GeventActor
from app.domain.registration_table import RegistrationTable


class RegistrationsActor(GeventActor):
    """The registrations are handed in, because they outlive a crash of the actor: services believe in them."""

    def __init__(self, registrations: RegistrationTable) -> None:
        super().__init__()
        self._registrations = registrations

    def handle(self, message: object) -> object:
        kept = self._registrations
        match message:
            case RenewRegistration(registration):
                return kept.renew(registration, time.monotonic())
            case AddRegistration(registration):
                kept.add(registration, time.monotonic())
            case RemoveRegistrations(ids):
                kept.remove(ids)
            case ReplaceRegistrations(found):
                kept.replace_all(found, time.monotonic())
            case FindExpired():
                return kept.expired(time.monotonic())
            case _:
                return super().handle(message)
        return None
