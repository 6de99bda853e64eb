"""What the internal DNS knows of the pools: a zone made anew when something has changed, read by queries as it is."""

from __future__ import annotations

import random
import time
from typing import Final

from actors.messages import ReadGenerations
from actors.runtime import Address, ask
from app.domain.dns_zone import make_zone
from app.edge.pool_members import members_of
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS

TICK_SECONDS: Final = 1.0
"""Between looks for a change."""
_REST: Final = 20
"""Times as long as a zone took to make, no other is made: thousands of backends cost a twentieth of a core."""


class DnsView:
    """Keeps `zone`, which is replaced whole. Loads alone are taken over every `load_seconds`."""

    def __init__(self, registry: Address, pop_region: str | None, load_seconds: float) -> None:
        self._registry = registry
        self._pop_region = pop_region
        self._load_seconds = load_seconds
        self._thread = WorkerThread()
        self._generations: dict[str, int] = {}
        self._made_at = float("-inf")
        self._rests_until = float("-inf")
        self.zone = make_zone({}, pop_region, 0, random.random)

    def refresh(self) -> None:
        """Make the zone anew if it is due. Raises what asking the registry raises: the old zone stays then."""
        began = time.monotonic()
        if began < self._rests_until:
            return
        generations = ask(self._registry, ReadGenerations(), timeout_s=ASK_TIMEOUT_SECONDS)
        if generations == self._generations and began < self._made_at + self._load_seconds:
            return
        pools = {name: members_of(self._registry, name) for name in generations}
        serial = max(int(time.time()), self.zone.serial + 1) % 2**32
        self.zone = self._thread.run(make_zone, pools, self._pop_region, serial, random.random)
        self._generations, self._made_at = generations, time.monotonic()
        self._rests_until = self._made_at + _REST * (self._made_at - began)
