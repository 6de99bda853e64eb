"""The registration table: validity and expiry, on a clock of the test."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.model import Backend, parse_backend
from app.domain.registration import Registration
from app.domain.registration_table import RegistrationTable

ONE = Registration(Backend("one", "web", None, None, "10.0.0.1", 3000), 15)


@pytest.fixture
def kept() -> RegistrationTable:
    found = RegistrationTable()
    found.add(ONE, 100.0)
    return found


def test_a_registration_lasts_from_its_last_renewal(kept):
    assert kept.expired(114.9) == []
    assert kept.renew(ONE, 114.9)
    assert kept.expired(129.8) == []
    assert kept.expired(129.9) == [ONE]


def test_one_that_has_expired_is_not_renewed(kept):
    assert not kept.renew(ONE, 115.0)
    assert kept.expired(115.0) == [ONE]


@pytest.mark.parametrize(
    "said",
    [
        replace(ONE, is_draining=True),
        replace(ONE, ttl_seconds=16),
        replace(ONE, backend=replace(ONE.backend, port=3001)),
        replace(ONE, backend=replace(ONE.backend, weight=2)),
    ],
)
def test_a_different_registration_is_not_a_renewal(kept, said):
    assert not kept.renew(said, 101.0)
    assert kept.expired(115.0) == [ONE], "and does not prolong"


def test_adopted_registrations_get_a_full_ttl_and_known_ones_keep_theirs(kept):
    other = replace(ONE, backend=replace(ONE.backend, id="other"))
    kept.replace_all({"one": ONE, "other": other}, 110.0)
    assert kept.expired(115.0) == [ONE]
    assert kept.expired(125.0) == [ONE, other]


def test_removed_registrations_are_neither_renewed_nor_due(kept):
    kept.replace_all({}, 101.0)
    assert not kept.renew(ONE, 102.0)
    assert kept.expired(1000.0) == []


def test_a_registration_changed_in_the_database_is_not_renewed(kept):
    kept.replace_all({"one": replace(ONE, backend=replace(ONE.backend, weight=9))}, 101.0)
    assert not kept.renew(ONE, 102.0)


@given(st.lists(st.floats(0, 14.9), max_size=20))
def test_a_registration_renewed_in_time_never_expires(pauses):
    kept, now = RegistrationTable(), 0.0
    kept.add(ONE, now)
    for pause in pauses:
        now += pause
        assert kept.renew(ONE, now)
        assert kept.expired(now) == []


def test_a_row_that_drains_itself_is_as_if_deleted():
    row = {"id": "a", "wg_ip": "10.0.0.1", "port": 1}
    assert parse_backend({**row, "draining": 1}).is_deleted
    assert parse_backend({**row, "draining": 0, "deleted": 1}).is_deleted
    assert not parse_backend({**row, "draining": None}).is_deleted
