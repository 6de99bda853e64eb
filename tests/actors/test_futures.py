"""The future of an ask: pykka's contract for futures, with one waiting greenlet."""

from __future__ import annotations

import contextlib
import queue
import traceback

import gevent
import pykka
import pytest

from actors.runtime import GeventFuture


def test_a_future_gives_its_value_as_often_as_it_is_asked():
    future = GeventFuture()
    future.set("value")
    assert [future.get(timeout=0), future.get(timeout=None), future.get()] == ["value"] * 3


def test_a_future_set_to_nothing_is_set_to_none():
    future = GeventFuture()
    future.set()
    assert future.get(timeout=0) is None


def test_a_waiter_is_woken_by_the_set():
    future = GeventFuture()
    waiting = gevent.spawn(future.get, timeout=10)
    gevent.sleep(0)
    future.set(42)
    assert waiting.get(timeout=10) == 42


def test_a_second_greenlet_that_would_wait_is_refused_and_the_first_gets_its_value():
    future = GeventFuture()
    waiting = gevent.spawn(future.get, timeout=10)
    gevent.sleep(0)
    with pytest.raises(RuntimeError, match="another greenlet is already waiting"):
        future.get(timeout=10)
    future.set(42)
    assert (waiting.get(timeout=10), future.get(timeout=10)) == (42, 42)


@pytest.mark.parametrize("interruption", ["its own timeout", "a timeout of the caller", "a kill"])
def test_a_future_whose_waiter_was_interrupted_can_be_set_and_read_by_others(interruption):
    future = GeventFuture()

    def waits() -> None:
        if interruption == "a timeout of the caller":
            with gevent.Timeout(0.01, False):
                future.get(timeout=10)
        else:
            future.get(timeout=0.01 if interruption == "its own timeout" else 10)

    waiting = gevent.Greenlet(waits)
    waiting.start()
    gevent.sleep(0)
    if interruption == "a kill":
        waiting.kill()
    with contextlib.suppress(pykka.Timeout):
        waiting.get(timeout=10)
    other = gevent.spawn(future.get, timeout=10)
    gevent.sleep(0)
    future.set("for another")
    assert other.get(timeout=10) == "for another"


def test_killing_a_waiter_between_the_set_and_its_turn_is_harmless():
    future = GeventFuture()
    waiting = gevent.spawn(future.get, timeout=10)
    gevent.sleep(0)
    future.set(1)
    waiting.kill()
    assert future.get(timeout=0) == 1
    assert waiting.dead


@pytest.mark.parametrize("first", ["set", "set_exception"])
@pytest.mark.parametrize("second", ["set", "set_exception"])
def test_a_future_can_be_set_only_once(first, second):
    future = GeventFuture()
    setting = {
        "set": lambda: future.set(1),
        "set_exception": lambda: future.set_exception(_exc_info(LookupError("gone"))),
    }
    setting[first]()
    with pytest.raises(queue.Full):
        setting[second]()
    if first == "set":
        assert future.get(timeout=0) == 1
    else:
        with pytest.raises(LookupError, match="gone"):
            future.get(timeout=0)


def test_an_exception_is_raised_in_each_waiter_with_its_origin():
    future = GeventFuture()
    try:
        fails_here()
    except LookupError:
        future.set_exception()
    for _ in range(2):
        with pytest.raises(LookupError, match="gone") as caught:
            future.get(timeout=0)
        assert "fails_here" in "".join(traceback.format_tb(caught.tb))


def test_a_wait_that_lasts_too_long_ends_in_pykkas_timeout_and_the_value_may_still_come():
    future = GeventFuture()
    with pytest.raises(pykka.Timeout):
        future.get(timeout=0.01)
    future.set("late")
    assert future.get(timeout=0) == "late"


def test_a_timeout_of_the_caller_stays_the_callers():
    future = GeventFuture()
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.01) as callers:
        future.get(timeout=10)
    assert caught.value is callers


def test_a_timeout_of_the_caller_that_is_not_due_leaves_the_futures_own_alone():
    with gevent.Timeout(10), pytest.raises(pykka.Timeout):
        GeventFuture().get(timeout=0.01)


def test_a_hook_supplies_the_value():
    future = GeventFuture()
    calls = []
    future.set_get_hook(lambda timeout: calls.append(timeout) or "from the hook")
    assert (future.get(timeout=3), future.get(timeout=3), calls) == ("from the hook", "from the hook", [3])
    with pytest.raises(queue.Full):
        future.set(1)


def test_futures_can_be_mapped_filtered_and_joined_as_pykkas_own():
    one, two = GeventFuture(), GeventFuture()
    joined = one.join(two).map(sum)
    evens = one.map(range).filter(lambda number: number % 2 == 0)
    one.set(4)
    two.set(5)
    assert (joined.get(timeout=0), evens.get(timeout=0)) == (9, [0, 2])


def test_futures_can_be_waited_for_together():
    futures = [GeventFuture() for _ in range(3)]
    for number, future in enumerate(futures):
        future.set(number)
    assert pykka.get_all(futures, timeout=0) == [0, 1, 2]


def test_a_future_that_is_set_takes_no_hook():
    future = GeventFuture()
    future.set(1)
    with pytest.raises(queue.Full):
        future.set_get_hook(lambda timeout: 2)


def fails_here() -> None:
    raise LookupError("gone")


def _exc_info(error: Exception) -> tuple[type[Exception], Exception, None]:
    return type(error), error, None
