"""What the tests of the domain build on: backends by hand, clients from somewhere, pools with seeded chance."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import count
from typing import Any

from app.domain.election import GeoElection
from app.domain.model import Backend, GeoInfo, Lease, Unleased
from app.domain.pool import MemberView, Pool

BRAZIL = GeoInfo("BR", "sa")
ARGENTINA = GeoInfo("AR", "sa")
FRANCE = GeoInfo("FR", "eu")
JAPAN = GeoInfo("JP", "ap")


def backend(backend_id: str, place: str = "BR/sa", **fields: Any) -> Backend:
    """Return a backend; `place` is country/region, either of them empty for none."""
    country, _, region = place.partition("/")
    values: dict[str, Any] = {"app": None, "host": "10.0.0.1", "port": 80, **fields}
    return Backend(id=backend_id, country=country or None, region=region or None, **values)


class PoolUnderTest:
    """A pool with a clock that tests turn, and lease ids that count themselves."""

    def __init__(
        self, backends: Iterable[Backend], pop_region: str | None = "sa", *, seed: int = 1, spills: bool = False
    ) -> None:
        self.pool = Pool(GeoElection(pop_region, random.Random(seed), spills_at_soft_limit=spills))
        self.pool.replace(backends)
        self.now = 1000.0
        self._ids = count(1)

    def ask(
        self, client: GeoInfo | None = BRAZIL, *, bound: str | None = None, tried: tuple[str, ...] = ()
    ) -> Lease | Unleased:
        return self.pool.lease(next(self._ids), client, bound, tried, self.now)

    def lease(self, client: GeoInfo | None = BRAZIL, *, tried: tuple[str, ...] = ()) -> Lease:
        answer = self.ask(client, tried=tried)
        assert isinstance(answer, Lease), answer
        return answer

    def hold(self, backend_id: str, connections: int) -> list[int]:
        """Keep connections open on one backend, as a registry's successor learns of them; returns their lease ids."""
        ids = [next(self._ids) for _ in range(connections)]
        for lease_id in ids:
            self.pool.restore(lease_id, self.member(backend_id).backend)
        return ids

    def visit(self, client: GeoInfo | None = BRAZIL, *, tried: tuple[str, ...] = ()) -> str:
        """Connect and leave again; returns who answered."""
        lease = self.lease(client, tried=tried)
        self.pool.release(lease.lease_id)
        return lease.backend.id

    def fail(self, backend_id: str, times: int = 3) -> float | None:
        """Fail dials; returns the cool-down when the last one ejected the backend."""
        cooldown = None
        for _ in range(times):
            cooldown = self.pool.dial_failed(backend_id, self.now)
        return cooldown

    def member(self, backend_id: str) -> MemberView:
        return next(view for view in self.pool.view(self.now) if view.backend.id == backend_id)

    def counts(self) -> dict[str, int]:
        return {view.backend.id: view.connections for view in self.pool.view(self.now)}

    def ejected(self) -> set[str]:
        return {view.backend.id for view in self.pool.view(self.now) if view.ejected_for > 0}
