"""The registry actor owns the pool: backends, counts, health, leases. It translates messages to app.domain.pool."""

from __future__ import annotations

import time
from collections.abc import Iterable

from loguru import logger

from actors.messages import (
    DescribePool,
    DialFailed,
    DialSucceeded,
    LeaseBackend,
    ReleaseLease,
    ReplaceBackends,
    RestoreLease,
)
from actors.runtime import GeventActor
from app.domain.election import GeoElection
from app.domain.model import Backend
from app.domain.pool import Pool


class RegistryActor(GeventActor):
    """Built afresh after a crash: from the backends last loaded and the leases of the connections open now."""

    def __init__(
        self, election: GeoElection, backends: Iterable[Backend], leases: Iterable[tuple[int, Backend]]
    ) -> None:
        super().__init__()
        self._pool = Pool(election)
        self._pool.replace(backends)
        for lease_id, backend in leases:
            self._pool.restore(lease_id, backend)

    def handle(self, message: object) -> object:
        match message:
            case LeaseBackend(lease_id, client, preferred, excluded):
                return self._pool.lease(lease_id, client, preferred, excluded, time.monotonic())
            case ReleaseLease(lease_id):
                self._pool.release(lease_id)
            case DialFailed(backend_id):
                cooldown = self._pool.dial_failed(backend_id, time.monotonic())
                if cooldown is not None:
                    logger.warning("backend {} is ejected for {:.0f} s: dials fail", backend_id, cooldown)
            case DialSucceeded(backend_id):
                self._pool.dial_succeeded(backend_id)
            case RestoreLease(lease_id, backend):
                self._pool.restore(lease_id, backend)
            case ReplaceBackends(backends):
                self._pool.replace(backends)
            case DescribePool():
                return self._pool.view(time.monotonic())
            case _:
                return super().handle(message)
        return None
