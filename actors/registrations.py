"""The registrations actor owns the table of registrations and their expiry (app.domain.registration_table)."""

from __future__ import annotations

import time

from actors.registration_messages import (
    AdoptRegistrations,
    EndRegistrations,
    EnterRegistration,
    FindExpired,
    RenewRegistration,
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
            case EnterRegistration(registration):
                kept.enter(registration, time.monotonic())
            case EndRegistrations(ids):
                kept.leave(ids)
            case AdoptRegistrations(found):
                kept.adopt(found, time.monotonic())
            case FindExpired():
                return kept.due(time.monotonic())
            case _:
                return super().handle(message)
        return None
