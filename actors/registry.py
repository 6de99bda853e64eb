"""The registry actor owns the pool: backends, counts, health, leases. It translates messages to app.domain.pool."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Final

import gevent
from loguru import logger

from actors.messages import (
    ContinueReplacing,
    CountCandidates,
    DescribePool,
    DialFailed,
    DialSucceeded,
    LeaseBackend,
    ReleaseLease,
    ReplaceBackends,
    RestoreLease,
)
from actors.runtime import ActorDead, GeventActor
from app.domain.election import GeoElection
from app.domain.model import Backend
from app.domain.pool import Pool

_BETWEEN_SLICES_SECONDS: Final = 0.001


class RegistryActor(GeventActor):
    """Built afresh after a crash: from the backends last loaded and the leases of the connections open now."""

    def __init__(
        self, election: GeoElection, backends: Iterable[Backend], leases: Iterable[tuple[int, Backend]]
    ) -> None:
        super().__init__()
        self._pool = Pool(election)
        self._replacing: Iterator[None] = iter(())
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
                self._replacing = self._pool.replacing(backends)
                self._continue_replacing()
            case ContinueReplacing():
                self._continue_replacing()
            case CountCandidates():
                return self._pool.candidates(time.monotonic())
            case DescribePool(first, count):
                return self._pool.view(time.monotonic(), first, count)
            case _:
                return super().handle(message)
        return None

    def _continue_replacing(self) -> None:
        for _ in self._replacing:
            # Told at once, the note would be the next message, and the loop none the freer.
            gevent.spawn_later(_BETWEEN_SLICES_SECONDS, self._note_to_continue)
            return

    def _note_to_continue(self) -> None:
        with suppress(ActorDead):  # a successor starts from the whole set
            self.actor_ref.tell(ContinueReplacing())
