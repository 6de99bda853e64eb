"""The life of an actor on the gevent runtime: starting, order, replies, and failing handlers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gevent
import pykka
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
    on_death,
    on_handler_error,
    stop,
    tell,
)
from tests.harness import eventually


@dataclass(frozen=True)
class Add:
    """A command: remember a number."""

    number: int


class Numbers(Request[list[int]], frozen=True):
    """Every number received so far."""


class Fail(Request[None], frozen=True):
    error: BaseException


@dataclass(frozen=True)
class FailTold:
    error: BaseException


class Later(Request[str], frozen=True):
    """Replied to when Reply comes."""


@dataclass(frozen=True)
class Reply:
    text: str | Exception


class Notebook(GeventActor):
    """Remembers numbers, fails on request, and defers some replies."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers: list[int] = []
        self.waiting: list[GeventFuture[str]] = []

    def handle(self, message: Any) -> Any:
        match message:
            case Add(number):
                self.numbers.append(number)
            case Numbers():
                return list(self.numbers)
            case Fail(error) | FailTold(error):
                raise error
            case Later():
                future: GeventFuture[str] = GeventFuture()
                self.waiting.append(future)
                return future
            case Reply(text):
                for future in self.waiting:
                    if isinstance(text, Exception):
                        future.set_exception((type(text), text, None))
                    else:
                        future.set(text)
            case _:
                return super().handle(message)
        return None


def started() -> Address:
    address = Address("notebook")
    address.publish(Notebook.start())
    return address


def numbers_of(address: Address) -> list[int]:
    return ask(address, Numbers(), timeout_s=5)


LEAKS = [gevent.Timeout(1), gevent.GreenletExit(), KeyboardInterrupt(), SystemExit(3), ValueError("bad")]


def test_starting_does_not_wait_for_the_actor():
    events = []

    class Slow(GeventActor):
        def on_start(self) -> None:
            events.append("on_start")

        def handle(self, message: Any) -> Any:
            events.append(type(message).__name__)
            return super().handle(message)

    address = Address("slow")
    address.publish(Slow.start())
    events.append("start returned")
    assert ask(address, Ping(), timeout_s=5)
    assert events == ["start returned", "on_start", "Ping"]


def test_messages_of_one_sender_are_handled_in_the_order_they_were_sent():
    address = started()
    for number in range(1000):
        tell(address, Add(number))
    assert numbers_of(address) == list(range(1000))


def test_messages_of_many_senders_are_all_handled_each_once():
    address = started()
    senders = [
        gevent.spawn(lambda s=s: [(tell(address, Add(s)), gevent.sleep(0)) for _ in range(20)]) for s in range(9)
    ]
    gevent.joinall(senders, timeout=10, raise_error=True)
    assert sorted(numbers_of(address)) == sorted(list(range(9)) * 20)


def test_a_message_that_an_actor_does_not_know_is_an_error_that_names_it():
    address = started()
    with pytest.raises(RuntimeError, match="Notebook has no handler for"):
        ask(address, Request(), timeout_s=5)
    assert numbers_of(address) == []


def test_an_ask_returns_what_the_handler_returns():
    address = started()
    tell(address, Add(7))
    assert numbers_of(address) == [7]


def test_a_reply_may_be_deferred_while_the_actor_continues():
    address = started()
    asker = gevent.spawn(ask, address, Later(), timeout_s=10)
    gevent.sleep(0)
    tell(address, Add(1))
    assert numbers_of(address) == [1]
    assert not asker.ready()
    tell(address, Reply("at last"))
    assert asker.get(timeout=10) == "at last"


def test_a_deferred_reply_may_be_an_exception():
    address = started()
    asker = gevent.spawn(_error_of, address, Later(), 10)
    gevent.sleep(0)
    assert numbers_of(address) == []
    tell(address, Reply(LookupError("nobody")))
    assert isinstance(asker.get(timeout=10), LookupError)


def test_a_deferred_reply_that_never_comes_times_out():
    address = started()
    with pytest.raises(AskTimeoutError, match="actor notebook did not reply to Later"):
        ask(address, Later(), timeout_s=0.02)
    assert numbers_of(address) == []


@pytest.mark.parametrize("error", LEAKS, ids=lambda error: type(error).__name__)
def test_a_handler_failure_raises_in_the_asker_and_the_actor_continues(error, logged):
    address, bystander = started(), started()
    tell(address, Add(1))
    with pytest.raises(RuntimeError, match=type(error).__name__):
        ask(address, Fail(error), timeout_s=5)
    assert numbers_of(address) == [1]
    assert numbers_of(bystander) == []
    assert any(line.startswith("ERROR: Notebook failed to handle Fail") for line in logged)


@pytest.mark.parametrize("error", LEAKS, ids=lambda error: type(error).__name__)
def test_a_failed_tell_is_logged_and_counted_and_the_next_message_is_handled(error, logged):
    failed = []
    address, bystander = started(), started()
    on_handler_error(address.ref, failed.append)
    tell(address, FailTold(error))
    tell(address, Add(2))
    assert numbers_of(address) == [2]
    assert numbers_of(bystander) == []
    assert failed == ["Notebook"]
    assert any(line.startswith("ERROR: Notebook failed to handle FailTold") for line in logged)


def test_a_failed_request_without_a_waiter_does_not_end_the_actor():
    address = started()
    tell(address, Fail(ValueError("bad")))
    tell(address, Add(3))
    assert ask(address, Numbers(), timeout_s=0.3) == [3]


def test_a_broken_invariant_ends_the_actor_and_is_raised_in_the_asker():
    address, bystander = started(), started()
    with pytest.raises(InvariantBrokenError):
        ask(address, Fail(InvariantBrokenError("books do not balance")), timeout_s=5)
    assert not address.ref.is_alive()
    assert numbers_of(bystander) == []


def test_a_broken_invariant_in_a_tell_ends_the_actor():
    address = started()
    tell(address, FailTold(InvariantBrokenError("books do not balance")))
    eventually(lambda: not address.ref.is_alive())


@pytest.mark.parametrize("verb", ["ask", "tell"])
def test_crash_ends_any_actor(verb):
    address = started()
    died = Event()
    on_death(address.ref, died.set)
    if verb == "tell":
        tell(address, Crash())
    else:
        with pytest.raises(InvariantBrokenError):
            ask(address, Crash(), timeout_s=5)
    assert died.wait(10)


def test_the_inbox_of_a_dying_actor_is_lost_and_its_asks_fail():
    ref = Notebook.start()
    ref.tell(Crash())
    ref.tell(Add(1))
    pending = ref.ask(Numbers(), block=False)
    with pytest.raises(pykka.ActorDeadError):
        pending.get(timeout=5)


def test_stopping_lets_the_inbox_drain_first():
    address = started()
    for number in range(10):
        tell(address, Add(number))
    response = address.ref.ask(Numbers(), block=False)
    stop([address], timeout_s=5)
    assert response.get(timeout=0) == list(range(10))
    assert not address.ref.is_alive()


def test_the_actors_named_are_stopped_in_their_order_and_no_others():
    order = []

    def named(name: str) -> Address:
        class Named(GeventActor):
            def on_stop(self) -> None:
                order.append(name)

        address = Address(name)
        address.publish(Named.start())
        return address

    one, two, three = map(named, "abc")
    stop([three, one], timeout_s=5)
    assert order == ["c", "a"]
    assert [address.ref.is_alive() for address in (one, two, three)] == [False, True, False]


def test_actors_that_have_ended_or_never_were_are_stopped_already(logged):
    ended, alive = started(), started()
    with pytest.raises(InvariantBrokenError):
        ask(ended, Crash(), timeout_s=5)
    stop([ended, Address("never started"), alive], timeout_s=5)
    stop([alive], timeout_s=5)
    assert not alive.ref.is_alive()
    assert not any("did not stop" in line for line in logged)


def test_an_actor_that_will_not_stop_is_named_and_the_others_are_stopped_all_the_same(logged):
    hold = Event()

    class Stuck(GeventActor):
        def handle(self, message: Any) -> Any:
            hold.wait()

    other, stuck = started(), Address("stuck")
    stuck.publish(Stuck.start())
    tell(stuck, "wait")
    gevent.sleep(0)
    stop([stuck, other], timeout_s=0.05)
    assert not other.ref.is_alive()
    assert any("WARNING" in line and "stuck did not stop" in line for line in logged)
    hold.set()


def _error_of(address: Address, message: Request[Any], timeout_s: float) -> BaseException | None:
    try:
        ask(address, message, timeout_s=timeout_s)
    except Exception as error:
        return error
    return None
