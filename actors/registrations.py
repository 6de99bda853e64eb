"""The registrations actor: owns the registration table and its expiry (app.domain.registration_table)."""

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
    """Translates messages to the registration table, which outlives a crash of the actor."""

    def __init__(self, table: RegistrationTable) -> None:
        super().__init__()
        self._table = table

    def handle(self, message: object) -> object:
        table = self._table
        match message:
            case RenewRegistration(registration):
                return table.renew(registration, time.monotonic())
            case EnterRegistration(registration):
                table.enter(registration, time.monotonic())
            case EndRegistrations(ids):
                table.leave(ids)
            case AdoptRegistrations(found):
                table.adopt(found, time.monotonic())
            case FindExpired():
                return table.due(time.monotonic())
            case _:
                return super().handle(message)
        return None
