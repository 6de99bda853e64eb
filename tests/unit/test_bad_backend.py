"""Refused rows compare by what is wrong with them, so that a reload that finds the same is no change."""

from app.domain.model import BadBackend, Fault


def test_the_same_fault_of_the_same_row_is_equal_and_another_is_not():
    def bad(value: int) -> BadBackend:
        return BadBackend("a", (Fault("port", value, "must be a port"),))

    assert bad(0) == bad(0)
    assert {bad(0)} == {bad(0)}
    assert bad(0) != bad(1)
