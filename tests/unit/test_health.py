"""The state machine of a backend's health: failures in a row, cool-downs, probation."""

from __future__ import annotations

from app.domain.health import PassiveHealth


def fail(health: PassiveHealth, times: int) -> PassiveHealth:
    for _ in range(times):
        health.fail()
    return health


def test_a_new_backend_has_a_clean_record() -> None:
    health = PassiveHealth()
    assert (health.is_spotless, health.is_ejected, health.wants_ejection) == (True, False, False)


def test_the_third_failure_in_a_row_asks_for_ejection() -> None:
    assert [fail(PassiveHealth(), times).wants_ejection for times in (1, 2, 3, 4)] == [False, False, True, True]


def test_one_failure_is_remembered_until_a_success() -> None:
    health = fail(PassiveHealth(), 1)
    assert not health.is_spotless
    health.succeed()
    assert health.is_spotless


def test_an_ejected_backend_asks_for_no_second_ejection() -> None:
    health = fail(PassiveHealth(), 3)
    assert health.eject(100.0) == 110.0
    assert (health.is_ejected, fail(health, 10).wants_ejection) == (True, False)


def test_readmitted_is_on_probation_not_forgiven() -> None:
    health = fail(PassiveHealth(), 3)
    health.eject(0.0)
    health.readmit()
    assert (health.is_ejected, health.is_spotless, health.wants_ejection) == (False, False, False)
    assert fail(health, 3).eject(0.0) == 20.0


def test_cool_downs_double_from_ten_seconds_to_five_minutes() -> None:
    health = PassiveHealth()
    assert [health.eject(0.0) for _ in range(7)] == [10, 20, 40, 80, 160, 300, 300]


def test_a_backend_that_is_dead_for_weeks_is_still_ejected() -> None:
    health = PassiveHealth()
    assert {health.eject(0.0) for _ in range(5000)} == {10, 20, 40, 80, 160, 300}


def test_a_success_ends_everything() -> None:
    health = fail(PassiveHealth(), 3)
    health.eject(0.0)
    health.eject(0.0)
    health.succeed()
    assert (health.is_ejected, health.is_spotless) == (False, True)
    assert health.eject(0.0) == 10.0
