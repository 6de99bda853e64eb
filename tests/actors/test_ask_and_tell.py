"""Asking and telling through an address whose actor may be slow, dead, or replaced."""

from __future__ import annotations

import time
from typing import Any

import gevent
import pytest
from gevent.event import Event

from actors.runtime import (
    Address,
    AskTimeoutError,
    Crash,
    GeventActor,
    GeventFuture,
    InvariantBrokenError,
    Ping,
    Request,
    ask,
    tell,
)
from tests.harness import eventually


class WhoAreYou(Request[str], frozen=True):
    pass


class Poison(Request[None], frozen=True):
    pass


class AnswerNever(Request[None], frozen=True):
    pass


class Gate:
    """Holds an actor in the message it is handling."""

    def __init__(self) -> None:
        self.is_held = Event()
        self._open = Event()

    def pass_through(self) -> None:
        self.is_held.set()
        self._open.wait()

    def open(self) -> None:
        self._open.set()


class Named(GeventActor):
    """Says its name, once its gate is open."""

    def __init__(self, name: str, gate: Gate | None = None) -> None:
        super().__init__()
        self.name = name
        self.gate = gate

    def handle(self, message: Any) -> Any:
        if self.gate is not None:
            self.gate.pass_through()
        match message:
            case WhoAreYou():
                return self.name
            case AnswerNever():
                return GeventFuture()
            case Poison():
                raise InvariantBrokenError("poisoned")
            case _:
                return super().handle(message)


def dead() -> Address:
    address = Address("desk")
    address.publish(Named.start("first"))
    with pytest.raises(InvariantBrokenError):
        ask(address, Crash(), timeout_s=5)
    return address


def test_an_ask_that_finds_the_actor_dead_goes_to_its_successor():
    address = dead()
    asker = gevent.spawn(ask, address, WhoAreYou(), timeout_s=10)
    gevent.sleep(0)  # it has asked, in vain
    assert not asker.ready()
    address.publish(Named.start("second"))
    assert asker.get(timeout=10) == "second"


def test_an_ask_in_the_inbox_of_a_dying_actor_goes_to_its_successor():
    address = Address("desk")
    gate = Gate()
    address.publish(Named.start("first", gate))
    asker = gevent.spawn(ask, address, WhoAreYou(), timeout_s=10)
    assert gate.is_held.wait(10)
    tell(address, Crash())
    late = gevent.spawn(ask, address, WhoAreYou(), timeout_s=10)
    eventually(lambda: address.depth == 2)
    gate.open()
    assert asker.get(timeout=10) == "first"
    eventually(lambda: not address.ref.is_alive())
    address.publish(Named.start("second"))
    assert late.get(timeout=10) == "second"


def test_an_ask_gives_up_when_no_successor_comes_within_its_deadline():
    address = dead()
    with pytest.raises(AskTimeoutError, match="desk is down"):
        ask(address, WhoAreYou(), timeout_s=0.05)


def test_an_ask_of_a_name_that_was_never_published_waits_for_it():
    address = Address("desk")
    asker = gevent.spawn(ask, address, WhoAreYou(), timeout_s=10)
    gevent.sleep(0)  # it has asked, in vain
    address.publish(Named.start("first"))
    assert asker.get(timeout=10) == "first"


def test_an_ask_that_ended_the_actor_is_not_repeated_to_its_successor():
    address = Address("desk")
    address.publish(Named.start("first"))
    asker = gevent.spawn(ask_for_trouble, address)
    eventually(lambda: not address.ref.is_alive())
    address.publish(Named.start("second"))
    assert isinstance(asker.get(timeout=10), InvariantBrokenError)
    assert ask(address, WhoAreYou(), timeout_s=5) == "second"


def test_an_ask_of_a_busy_actor_times_out_and_is_carried_out_all_the_same():
    address = Address("desk")
    gate = Gate()
    actor = Named.start("first", gate)
    address.publish(actor)
    with pytest.raises(AskTimeoutError, match="actor desk did not reply to WhoAreYou"):
        ask(address, WhoAreYou(), timeout_s=0.02)
    gate.open()
    assert ask(address, WhoAreYou(), timeout_s=5) == "first"
    assert address.depth == 0


def test_a_timeout_that_the_asker_runs_under_is_not_taken_for_the_asks_own():
    address = Address("desk")
    gate = Gate()
    address.publish(Named.start("first", gate))
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.02) as mine:
        ask(address, WhoAreYou(), timeout_s=10)
    assert caught.value is mine
    gate.open()


def test_a_timeout_that_the_asker_runs_under_also_ends_the_wait_for_a_successor():
    address = dead()
    with pytest.raises(gevent.Timeout) as caught, gevent.Timeout(0.03) as mine:
        ask(address, WhoAreYou(), timeout_s=10)
    assert caught.value is mine


def test_waiting_for_a_successor_and_its_deferred_reply_share_one_deadline():
    address = dead()
    gevent.spawn_later(0.5, lambda: address.publish(Named.start("second")))
    started = time.monotonic()
    with pytest.raises(AskTimeoutError):
        ask(address, AnswerNever(), timeout_s=0.7)
    assert time.monotonic() - started < 1.1


def test_a_tell_to_a_dead_actor_is_dropped_without_an_error(logged):
    address = dead()
    tell(address, WhoAreYou())
    assert "DEBUG: actor desk is down, dropped WhoAreYou\n" in logged


def test_a_tell_to_a_name_that_was_never_published_is_dropped_without_an_error():
    tell(Address("desk"), WhoAreYou())


def test_the_depth_is_the_number_of_messages_that_wait():
    address = Address("desk")
    gate = Gate()
    address.publish(Named.start("first", gate))
    tell(address, WhoAreYou())
    assert gate.is_held.wait(10)
    for _ in range(5):
        tell(address, WhoAreYou())
    assert address.depth == 5
    gate.open()
    assert ask(address, Ping(), timeout_s=5)
    assert address.depth == 0


def test_every_publication_is_a_new_epoch():
    address = Address("desk")
    assert address.epoch == 0
    for epoch in (1, 2, 3):
        address.publish(Named.start("someone"))
        assert address.epoch == epoch


def ask_for_trouble(address: Address) -> Exception | None:
    try:
        ask(address, Poison(), timeout_s=5)
    except InvariantBrokenError as error:
        return error
    return None
