"""Explains a selection: every backend with its tier, its score and the reason it is a candidate or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from app.domain.geography import geo_tier
from app.domain.health import HealthRules
from app.domain.member import Floor, Member
from app.domain.model import Backend, GeoInfo
from app.domain.selection import score


@dataclass(frozen=True, slots=True)
class Verdict:
    """One backend as judged for a client. `load` and `score` are for `connections` live connections."""

    backend: Backend
    tier: int
    connections: int
    load: float
    score: float
    is_candidate: bool
    why: str


TIER_MEANING = (
    "same country as the client",
    "same region as the client",
    "same region as this POP",
    "elsewhere",
)


def explain(backends: Iterable[Backend], client: GeoInfo | None, pop_region: str | None) -> list[Verdict]:
    """Judge every backend for a client at zero connections; best first, backends that are out last."""
    backends = tuple(backends)
    needs_backups = all(backend.is_backup or obstacle(backend) for backend in backends)
    verdicts = [_judge(backend, client, pop_region, needs_backups) for backend in backends]
    return sorted(verdicts, key=lambda v: (not v.is_candidate, v.tier, v.load, -v.backend.weight, v.backend.id))


def _judge(backend: Backend, client: GeoInfo | None, pop_region: str | None, needs_backups: bool) -> Verdict:
    member = Member(backend, HealthRules(), Floor(), now=0.0)
    tier = geo_tier(backend.country, backend.region, client, pop_region)
    out = obstacle(backend)
    if out is None and backend.is_backup and not needs_backups:
        out = "backup: serves while no other is a candidate"
    return Verdict(
        backend=backend,
        tier=tier,
        connections=member.connections,
        load=member.load,
        score=score(tier, member.load),
        is_candidate=out is None,
        why=f"out: {out}" if out else f"in: {TIER_MEANING[tier]}",
    )


def obstacle(backend: Backend) -> str | None:
    """Return why a backend takes no new clients whatever their number, None if it does."""
    if backend.is_deleted:
        return "drained (deleted)"
    if not backend.is_healthy:
        return "unhealthy in the database"
    if not backend.host:
        return f"host name {backend.host_name} is not resolved"
    if backend.weight == 0:
        return "weight 0: bound clients only"
    return None
