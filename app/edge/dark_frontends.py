"""Frontends that are dark: their pool has no candidate backend, so they serve nobody. The log names each change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from loguru import logger

from actors.messages import CountCandidates, PoolCounts
from actors.runtime import ask
from app.config import Config
from app.domain.words import listed
from app.edge.parts import EdgeParts
from app.proxy_service import ASK_TIMEOUT_SECONDS

TICK_SECONDS: Final = 1.0
NAMES_LOGGED: Final = 20


def dark_frontends(config: Config, pools: Mapping[str, PoolCounts]) -> list[str]:
    """Return the names of the frontends whose pool has no candidate. One without a pool is never dark."""
    lit = {name for name, pool in pools.items() if pool.candidates}
    return [frontend.name for frontend in config.frontends if frontend.backend and frontend.backend not in lit]


class DarkFrontendLog:
    """Logs which frontends are dark at two looks in a row, and which of these have backends again.

    A pool at its hard limits has candidates now and then: one look alone would fill the log.
    """

    def __init__(self, parts: EdgeParts) -> None:
        self._parts = parts
        self._dark: set[str] = set()
        """At the last look."""
        self._logged: set[str] = set()

    def check(self) -> None:
        """Compare with the last time. Raises what asking the registry raises."""
        config = self._parts.config()
        pools = ask(self._parts.actors.registry, CountCandidates(), timeout_s=ASK_TIMEOUT_SECONDS)
        dark = set(dark_frontends(config, pools))
        known = {frontend.name for frontend in config.frontends}
        if fresh := sorted(dark & self._dark - self._logged):
            logger.bind(frontends=fresh).warning("no candidate backend for frontend {}", listed(fresh, NAMES_LOGGED))
        if ended := sorted((self._logged - dark) & known):
            logger.bind(frontends=ended).info("a candidate backend again for frontend {}", listed(ended, NAMES_LOGGED))
        self._dark, self._logged = dark, (self._logged & dark) | set(fresh)
