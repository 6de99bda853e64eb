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
    """Translates messages. The table is an argument, because it outlives a crash of the actor."""

    def __init__(self, registrations: RegistrationTable) -> None:
        super().__init__()
        self._registrations = registrations

    def handle(self, message: object) -> object:
        table = self._registrations
        match message:
            case RenewRegistration(registration):
                return table.renew(registration, time.monotonic())
            case AddRegistration(registration):
                table.add(registration, time.monotonic())
            case RemoveRegistrations(ids):
                table.remove(ids)
            case ReplaceRegistrations(found):
                table.replace_all(found, time.monotonic())
            case FindExpired():
                return table.expired(time.monotonic())
            case _:
                return super().handle(message)
        return None
