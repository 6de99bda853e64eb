"""The internal DNS of one edge: a zone of the pools, made again after a change, and the server that reads it."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import Final

from loguru import logger

from actors.messages import ReadGenerations
from actors.runtime import Address, ask
from app.domain.dns_zone import make_zone
from app.edge.pool_members import members_of
from app.inbound.dns.server import DnsServer
from app.outbound.worker_thread import WorkerThread
from app.proxy_service import ASK_TIMEOUT_SECONDS

TICK_SECONDS: Final = 1.0
"""Between looks for a change."""
_REST: Final = 20
"""Pause after making a zone, in times as long as that took: thousands of backends cost a twentieth of a core."""


class LiveZone:
    """Keeps `zone`, which is replaced whole. A change of loads alone is taken over every `load_seconds`."""

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
        """Make the zone again if it is due. Raises what asking the registry raises, and keeps the old zone then."""
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


@dataclass(frozen=True, slots=True, eq=False)
class InternalDns:
    """The server for names under `domain`, and the zone that it responds from."""

    domain: str
    live: LiveZone
    server: DnsServer

    def start(self) -> None:
        """Respond at the addresses that are bound, once there is a zone."""
        self.live.refresh()
        self.server.serve()
        addresses = [str(address) for address in self.server.addresses]
        logger.bind(dns=addresses).info("DNS for {} on {}", self.domain, ", ".join(addresses))
