"""Starts the actors, watches them, restarts the fallen with back-off, and gives up loudly.

It listens at the link on each actor's greenlet, which sees every kind of death: a broken invariant, a failed start,
a kill. pykka has dropped the dead actor's inbox by then, so the successor is built from what is known to be true now.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from loguru import logger

from actors.runtime import Address, Ping, ask, on_death

MAX_RESTARTS: Final = 10
"""More restarts than this of one actor within RESTART_WINDOW_SECONDS and the supervisor gives up."""
RESTART_WINDOW_SECONDS: Final = 60.0
MAX_BACKOFF_SECONDS: Final = 5.0
FIRST_BACKOFF_SECONDS: Final = 0.05
"""Before the second restart within the window; the first is immediate. Doubles each time."""

EXIT_CODE: Final = 70
"""Of the process when the supervisor gives up (EX_SOFTWARE of sysexits.h)."""


@dataclass
class Child:
    """An actor under supervision. `start` builds it from the facts of the moment and must not switch greenlets."""

    address: Address
    start: Callable[[], Any]
    restarts: deque[float] = field(default_factory=deque)
    started_at: float = 0.0
    restart_count: int = 0


class Supervisor:
    """`on_give_up` is called with the actor's name, once, instead of the restart that would be too many."""

    def __init__(self, on_give_up: Callable[[str], None]) -> None:
        self._on_give_up = on_give_up
        self._is_stopping = False
        self.children: list[Child] = []

    def supervise(self, address: Address, start: Callable[[], Any], *, timeout_s: float = 5.0) -> None:
        """Start an actor under an address and wait until it answers."""
        child = Child(address, start)
        self.children.append(child)
        self._start(child)
        ask(address, Ping(), timeout_s=timeout_s)

    def dismiss(self, address: Address) -> None:
        """Let the actor at an address end; no successor follows."""
        self.children = [child for child in self.children if child.address is not address]

    def stop(self) -> None:
        """Let the actors end from now on."""
        self._is_stopping = True

    def _start(self, child: Child) -> None:
        # Nothing may switch greenlets between the building from the facts and the publishing: a message sent in
        # between would go neither into the facts nor to the successor.
        ref = child.start()
        child.address.publish(ref)
        child.started_at = time.monotonic()
        on_death(ref, lambda: self._died(child))

    def _died(self, child: Child) -> None:
        if self._is_stopping or child not in self.children:
            return
        now = time.monotonic()
        while child.restarts and child.restarts[0] < now - RESTART_WINDOW_SECONDS:
            child.restarts.popleft()
        if len(child.restarts) >= MAX_RESTARTS:
            logger.critical("actor {} died {} times in a minute: giving up", child.address.name, MAX_RESTARTS + 1)
            self._on_give_up(child.address.name)
            return
        recent = len(child.restarts)
        child.restarts.append(now)
        wait = min(FIRST_BACKOFF_SECONDS * 2 ** (recent - 1), MAX_BACKOFF_SECONDS) if recent else 0.0
        gevent.spawn_later(wait, self._restart, child)

    def _restart(self, child: Child) -> None:
        if self._is_stopping or child not in self.children:
            return
        try:
            self._start(child)
        except Exception:
            logger.exception("actor {} could not be started", child.address.name)
            self._died(child)
            return
        logger.warning("actor {} was restarted", child.address.name)
        child.restart_count += 1
