"""Resolves the host names of backends in the background, each again when its TTL expires.

If a name has several addresses, the edge uses one that accepts connections. Such names are looked up more often,
because the address in use may stop accepting while another begins.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final, Protocol

from gevent.pool import Group, Pool
from loguru import logger

from app.domain.host_names import RETRY_SECONDS, HostNames, NameState
from app.domain.model import Backend
from app.domain.probe import ProbeSpec, Target
from app.outbound.name_lookup import Found, NameLookup, NameNotFound
from app.outbound.probes import probe

TICK_SECONDS: Final = 0.25
MAX_CONCURRENT: Final = 16
"""Concurrent look-ups; further names wait."""
FIRST_SECONDS: Final = 2.0
"""At the start, time to wait for the first results. After it the listeners open anyway."""
SEVERAL_SECONDS: Final = 10.0
"""Longest time between look-ups of a name with several addresses."""
_CONNECTS: Final = ProbeSpec("tcp", interval_seconds=SEVERAL_SECONDS, timeout_seconds=1.0)


class Lookup(Protocol):
    """A source of addresses."""

    def find(self, name: str) -> Found:
        """Return the addresses of a name. Raises NameNotFound."""
        ...


class NameWatcher:
    """Knows the addresses of the backends' names. Calls `on_change` at most once per tick, if any has changed."""

    def __init__(self, lookup: Lookup, on_change: Callable[[], None]) -> None:
        self.lookup = lookup
        self._on_change = on_change
        self._names = HostNames()
        self._users: dict[str, Backend] = {}
        """One backend of each name, for its port."""
        self._lookups = Pool(MAX_CONCURRENT)
        self._has_changed = False

    def follow(self, backends: Iterable[Backend]) -> None:
        """Resolve the names of these backends from now on, and no others."""
        named = [backend for backend in backends if backend.host_name is not None]
        self._users = {backend.host_name: backend for backend in named if backend.host_name is not None}
        self._names.watch(named)

    def resolved(self, backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
        """Return the backends with the addresses of their names filled in, where known."""
        return self._names.with_addresses(backends)

    def counts(self) -> dict[NameState, int]:
        return self._names.counts()

    def check(self) -> None:
        """Start the look-ups that are due and report changes. Does not wait."""
        for name in self._names.take_due(time.monotonic(), self._lookups.free_count()):
            self._lookups.spawn(self._look_up, name)
        if self._has_changed:
            self._has_changed = False
            self._on_change()

    def settle(self, seconds: float) -> None:
        """Wait until every name has been looked up once, at most `seconds`."""
        deadline = time.monotonic() + seconds
        self.check()
        while len(self._lookups) and time.monotonic() < deadline:
            self._lookups.join(min(TICK_SECONDS, deadline - time.monotonic()))
            self.check()

    def stop(self) -> None:
        self._lookups.kill()

    def _look_up(self, name: str) -> None:
        try:
            found = self._usable(name, self.lookup.find(name))
        except NameNotFound as error:
            self._failed(name, str(error))
        except Exception as error:
            logger.exception("looking up {} failed unexpectedly", name)
            self._failed(name, repr(error))
        else:
            if self._names.resolved(name, found.addresses, found.seconds, time.monotonic()):
                self._has_changed = True
                logger.info("host name {} resolves to {}", name, self._names.address(name))

    def _usable(self, name: str, found: Found) -> Found:
        """Return the addresses that accept connections; if none does, all of them, with a short TTL."""
        backend = self._users.get(name)
        if len(found.addresses) == 1 or backend is None:
            return found
        targets = [Target(name, replace(backend, host=address), _CONNECTS) for address in found.addresses]
        failures = Group().map(probe, targets)
        usable = tuple(a for a, failure in zip(found.addresses, failures, strict=True) if failure is None)
        if not usable:
            return Found(found.addresses, min(found.seconds, RETRY_SECONDS))
        return Found(usable, min(found.seconds, SEVERAL_SECONDS))

    def _failed(self, name: str, reason: str) -> None:
        if self._names.failed(name, reason, time.monotonic()):
            address = self._names.address(name)
            outcome = f"it keeps {address}" if address else "its backends get no connections"
            logger.warning("host name {} cannot be resolved: {}; {}", name, reason, outcome)


def resolve_once(backends: tuple[Backend, ...]) -> tuple[Backend, ...]:
    """Return the backends with the addresses of their names, looked up once."""
    watcher = NameWatcher(NameLookup(), on_change=lambda: None)
    watcher.follow(backends)
    watcher.settle(FIRST_SECONDS)
    return watcher.resolved(backends)
