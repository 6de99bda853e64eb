"""Watches the file of the country database and loads a new one while the edge runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from loguru import logger

from app.outbound.maxmind_geo import GeoDatabaseError, MaxmindGeo
from app.outbound.watched_thread import WatchedThread

TICK_SECONDS: Final = 1.0


class GeoWatcher:
    """Loads a replaced country database, or refuses it and keeps the old one. `on_reload` gets "ok" or "refused"."""

    def __init__(self, geo: MaxmindGeo, on_reload: Callable[[str], None]) -> None:
        self._geo = geo
        self._on_reload = on_reload
        self._thread = WatchedThread("country database")
        self._refused = ""

    def check(self) -> None:
        """Load the file if it has changed, off the event loop."""
        try:
            if not self._thread.run(self._geo.has_changed):
                return
            self._thread.run(self._geo.reload)
        except (GeoDatabaseError, TimeoutError) as error:
            if str(error) != self._refused or not self._geo.has_changed():  # an unreadable file is retried each time
                logger.error("country database refused, keeping the old one: {}", error)
                self._on_reload("refused")
            self._refused = str(error)
        else:
            logger.info("country database replaced: {}", self._geo.database_type)
            self._on_reload("ok")
            self._refused = ""
