"""The supervisor: it notices every kind of death, restarts with back-off, and gives up once and for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from actors import supervisor as supervising
from actors.runtime import (
    Address,
    AskTimeoutError,
    Crash,
    GeventActor,
    InvariantBrokenError,
    Ping,
    Request,
    ask,
    on_death,
    tell,
)
from actors.supervisor import MAX_RESTARTS, Supervisor
from tests.harness import eventually


class Incarnation(Request[int], frozen=True):
    pass


class Phoenix(GeventActor):
    """An actor that counts its incarnations. With `dies_at_start` it fails in on_start, as if a resource were broken.

    With `never_starts` it takes no message from its inbox.
    """

    def __init__(self, number: int, dies_at_start: bool = False, never_starts: bool = False) -> None:
        super().__init__()
        self._number = number
        self._dies_at_start = dies_at_start
        self._never_starts = never_starts

    def on_start(self) -> None:
        if self._dies_at_start:
            raise OSError("no such thing")
        if self._never_starts:
            Event().wait()

    def handle(self, message: Any) -> Any:
        return self._number if isinstance(message, Incarnation) else super().handle(message)


class Nest:
    """A supervised Phoenix, and the reports of its supervisor."""

    def __init__(self) -> None:
        self.address = Address("phoenix")
        self.given_up: list[str] = []
        self.starts = 0
        self.failing_starts: set[int] = set()
        self.failing_on_starts: set[int] = set()
        self.endless_starts: set[int] = set()
        self.supervisor = Supervisor(self.given_up.append)

    @property
    def restarted(self) -> list[str]:
        """The name of each actor, once for each restart."""
        return [child.address.name for child in self.supervisor.children for _ in range(child.restart_count)]

    def start(self) -> Any:
        self.starts += 1
        if self.starts in self.failing_starts:
            raise OSError("cannot be built")
        return Phoenix.start(self.starts, self.starts in self.failing_on_starts, self.starts in self.endless_starts)

    def supervise(self) -> None:
        self.supervisor.supervise(self.address, self.start)

    def crash(self) -> None:
        with pytest.raises(InvariantBrokenError):
            ask(self.address, Crash(), timeout_s=10)

    def incarnation(self) -> int:
        return ask(self.address, Incarnation(), timeout_s=10)


@pytest.fixture
def nest() -> Iterator[Nest]:
    one = Nest()
    yield one
    one.supervisor.stop()


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervising, "FIRST_BACKOFF_SECONDS", 0.0001)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The back-offs that the supervisor asked for; none is waited for."""
    asked: list[float] = []
    spawn_later = gevent.spawn_later

    def at_once(seconds: float, *what: Any) -> Any:
        asked.append(seconds)
        return spawn_later(0, *what)

    monkeypatch.setattr(gevent, "spawn_later", at_once)
    return asked


def test_a_supervised_actor_replies_when_supervise_returns(nest):
    nest.supervise()
    assert (nest.incarnation(), nest.address.epoch, nest.restarted) == (1, 1, [])


def test_the_first_crash_is_followed_by_a_successor_under_the_same_name_at_once(nest, waits, logged):
    nest.supervise()
    nest.crash()
    assert nest.incarnation() == 2
    assert (nest.address.epoch, nest.restarted, waits) == (2, ["phoenix"], [0.0])
    assert "WARNING: actor phoenix was restarted\n" in logged


def test_restarts_within_a_minute_wait_longer_each_time_up_to_a_bound(nest, waits):
    nest.supervise()
    for _ in range(MAX_RESTARTS):
        nest.crash()
    assert nest.incarnation() == MAX_RESTARTS + 1
    assert waits == [0.0, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_restarts_of_more_than_a_minute_ago_are_forgiven(nest, waits, monkeypatch):
    nest.supervise()
    for _ in range(3):
        nest.crash()
    assert nest.incarnation() == 4
    monkeypatch.setattr(supervising, "RESTART_WINDOW_SECONDS", -1.0)
    nest.crash()
    assert nest.incarnation() == 5
    assert waits == [0.0, 0.05, 0.1, 0.0]


def test_one_death_too_many_and_the_supervisor_gives_up_once_and_says_so(nest, short_backoff, logged):
    nest.supervise()
    for _ in range(MAX_RESTARTS + 1):
        nest.crash()
    eventually(lambda: nest.given_up)
    with pytest.raises(AskTimeoutError):
        ask(nest.address, Ping(), timeout_s=0.05)
    assert nest.given_up == ["phoenix"]
    assert len(nest.restarted) == MAX_RESTARTS
    assert nest.starts == MAX_RESTARTS + 1
    assert any(line.startswith(f"CRITICAL: actor phoenix died {MAX_RESTARTS + 1} times") for line in logged)


def test_actors_are_restarted_and_given_up_each_on_its_own_account(nest, short_backoff):
    nest.supervise()
    other = Address("other")
    nest.supervisor.supervise(other, lambda: Phoenix.start(100))
    for _ in range(MAX_RESTARTS):
        nest.crash()
    with pytest.raises(InvariantBrokenError):
        ask(other, Crash(), timeout_s=5)
    assert ask(other, Ping(), timeout_s=5)
    assert nest.given_up == []
    assert nest.restarted.count("other") == 1


def test_a_successor_that_cannot_be_built_is_tried_again(nest, short_backoff, logged):
    nest.failing_starts = {2, 3}
    nest.supervise()
    nest.crash()
    assert nest.incarnation() == 4
    assert nest.restarted == ["phoenix"]
    assert logged.count("ERROR: actor phoenix could not be started\n") == 0  # the traceback follows on the same entry
    assert sum(line.startswith("ERROR: actor phoenix could not be started") for line in logged) == 2


def test_a_successor_that_fails_to_start_in_its_greenlet_is_replaced(nest, short_backoff):
    nest.failing_on_starts = {2, 3}
    nest.supervise()
    nest.crash()
    assert nest.incarnation() == 4


def test_an_actor_that_first_fails_to_start_in_its_greenlet_is_replaced(nest, short_backoff):
    nest.failing_on_starts = {1}
    nest.supervise()
    assert nest.incarnation() == 2


def test_an_actor_that_can_never_start_makes_the_supervisor_give_up(nest, short_backoff):
    nest.supervise()
    nest.failing_starts = set(range(2, 100))
    nest.crash()
    eventually(lambda: nest.given_up == ["phoenix"])
    assert nest.starts == MAX_RESTARTS + 1


def test_an_actor_that_cannot_be_built_at_all_fails_the_start_of_the_process(nest):
    nest.failing_starts = {1}
    with pytest.raises(OSError, match="cannot be built"):
        nest.supervise()


def test_even_a_killed_greenlet_is_noticed_and_replaced(nest):
    nest.supervise()
    nest.address.ref.greenlet.kill()
    eventually(lambda: nest.address.epoch == 2)
    assert nest.incarnation() == 2
    assert nest.restarted == ["phoenix"]


def test_pending_asks_of_an_actor_with_a_killed_greenlet_go_to_its_successor(nest):
    nest.endless_starts = {2}
    nest.supervise()
    nest.crash()
    eventually(lambda: nest.address.epoch == 2)
    asker = gevent.spawn(nest.incarnation)
    eventually(lambda: nest.address.depth == 1)
    nest.address.ref.greenlet.kill(block=False)
    assert asker.get(timeout=10) == 3


def test_a_message_to_a_dead_actor_does_not_reach_its_successor(nest, short_backoff):
    nest.supervise()
    tell(nest.address, Crash())
    for _ in range(5):
        tell(nest.address, Crash())  # lost with the inbox: only the first one ends an actor
    assert nest.incarnation() == 2
    assert nest.incarnation() == 2


def test_a_successor_is_published_in_the_same_turn_as_it_is_built(nest):
    """What is told meanwhile goes neither into the facts nor to the successor: so there may be no meanwhile."""
    turns: list[str] = []
    nest.supervise()
    build = nest.start

    def recording() -> Any:
        turns.append("built")
        gevent.spawn(turns.append, f"next turn, epoch {nest.address.epoch + 1}")
        gevent.spawn(lambda: turns.append(f"published {nest.address.epoch}"))
        return build()

    nest.supervisor.children[0].start = recording
    nest.crash()
    eventually(lambda: len(turns) == 3)
    assert turns == ["built", "next turn, epoch 2", "published 2"]


def test_when_stopping_actors_may_end_unmourned(nest):
    nest.supervise()
    nest.supervisor.stop()
    mourned = Event()
    on_death(nest.address.ref, mourned.set)  # told after the supervisor
    nest.crash()
    assert mourned.wait(10)
    gevent.sleep(0)  # a restart would be at once
    assert (nest.restarted, nest.given_up, nest.starts) == ([], [], 1)


def test_a_restart_that_is_due_when_the_stop_comes_does_not_happen(nest):
    nest.supervise()
    nest.crash()
    nest.incarnation()
    nest.crash()  # the second one waits for its back-off
    nest.supervisor.stop()
    gevent.sleep(2 * supervising.FIRST_BACKOFF_SECONDS)
    assert (nest.starts, nest.restarted) == (2, ["phoenix"])
