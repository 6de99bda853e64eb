"""The registrations actor by its messages, and what a crash of it leaves: everything."""

from __future__ import annotations

import pytest

from actors.registration_messages import (
    AddRegistration,
    FindExpired,
    RemoveRegistrations,
    RenewRegistration,
    ReplaceRegistrations,
)
from actors.registrations import RegistrationsActor
from actors.runtime import Address, Crash, InvariantBrokenError, Ping, ask
from actors.supervisor import Supervisor
from app.domain.model import Backend
from app.domain.registration import Registration
from app.domain.registration_table import RegistrationTable

ONE = Registration(Backend("one", "web", None, None, "10.0.0.1", 3000), 600)
OTHER = Registration(Backend("other", "web", None, None, "10.0.0.2", 3000), 600)
LATE = Registration(Backend("late", "web", None, None, "10.0.0.3", 3000), 0)


@pytest.fixture
def actor():
    address, kept = Address("registrations"), RegistrationTable()
    supervisor = Supervisor(on_give_up=lambda name: None)
    supervisor.supervise(address, lambda: RegistrationsActor.start(kept))
    yield lambda message: ask(address, message, timeout_s=2)
    supervisor.stop()


def test_added_registrations_stay_until_removed(actor):
    assert actor(RenewRegistration(ONE)) is False
    actor(AddRegistration(ONE))
    assert actor(RenewRegistration(ONE)) is True
    actor(RemoveRegistrations(("one", "nobody")))
    assert actor(RenewRegistration(ONE)) is False


def test_replacing_keeps_exactly_the_given_registrations(actor):
    actor(AddRegistration(ONE))
    actor(ReplaceRegistrations({"other": OTHER}))
    assert (actor(RenewRegistration(ONE)), actor(RenewRegistration(OTHER))) == (False, True)


def test_what_has_expired_stays_expired_until_it_is_ended(actor):
    actor(AddRegistration(LATE))
    actor(AddRegistration(ONE))
    assert actor(FindExpired()) == [LATE]
    assert actor(RenewRegistration(LATE)) is False
    assert actor(FindExpired()) == [LATE]
    actor(RemoveRegistrations(("late",)))
    assert actor(FindExpired()) == []


def test_a_crash_forgets_nothing(actor):
    actor(AddRegistration(ONE))
    with pytest.raises(InvariantBrokenError):
        actor(Crash())
    assert actor(Ping())
    assert actor(RenewRegistration(ONE)) is True
