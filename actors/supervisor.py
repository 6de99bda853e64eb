"""Starts and watches the actors, restarts dead ones with back-off, and gives up after too many restarts.

A link on each actor's greenlet reports every kind of death: a broken invariant, a failed start, a kill. By then pykka
has dropped the actor's inbox, so the successor is built from present facts.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import gevent
from loguru import logger

from actors.runtime import Address, Ping, ask, on_death, on_handler_error

MAX_RESTARTS: Final = 10
"""The supervisor gives up after more restarts than this of one actor within RESTART_WINDOW_SECONDS."""
RESTART_WINDOW_SECONDS: Final = 60.0
MAX_BACKOFF_SECONDS: Final = 5.0
FIRST_BACKOFF_SECONDS: Final = 0.05
"""Wait before the second restart within the window; it doubles each time. The first restart is immediate."""

EXIT_CODE: Final = 70
"""Exit code of the process when the supervisor gives up (EX_SOFTWARE of sysexits.h)."""


@dataclass
class Child:
    """An actor under supervision. `start` builds it from present facts and must not switch greenlets."""

    address: Address
    start: Callable[[], Any]
    restarts: deque[float] = field(default_factory=deque)
    started_at: float = 0.0
    restart_count: int = 0


class Supervisor:
    """Starts actors and restarts them when they die.

    `on_give_up` is called with the actor's name, once, instead of the restart that would be too many;
    `on_handler_error` with the class name of an actor for every message that it failed to handle.
    """

    def __init__(
        self, on_give_up: Callable[[str], None], on_handler_error: Callable[[str], None] = lambda _name: None
    ) -> None:
        self._on_give_up = on_give_up
        self._on_handler_error = on_handler_error
        self._is_stopping = False
        self.children: list[Child] = []

    def supervise(self, address: Address, start: Callable[[], Any], *, timeout_s: float = 5.0) -> None:
        """Start an actor under an address and wait until it replies."""
        child = Child(address, start)
        self.children.append(child)
        self._start(child)
        ask(address, Ping(), timeout_s=timeout_s)

    def dismiss(self, address: Address) -> None:
        """Stop supervising the actor at an address; it gets no successor."""
        self.children = [child for child in self.children if child.address is not address]

    def stop(self) -> None:
        """Restart no actor from now on."""
        self._is_stopping = True

    def _start(self, child: Child) -> None:
        # Nothing may switch greenlets between building and publishing: a message sent in between would reach neither
        # the facts nor the successor.
        ref = child.start()
        child.address.publish(ref)
        child.started_at = time.monotonic()
        on_handler_error(ref, self._on_handler_error)
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
