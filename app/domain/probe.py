"""Active probes: the check, and a backend to which it applies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.domain.model import Backend


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """An active check. `http` sends GET `path` and expects one of `expected_statuses`, and `body` within the body."""

    kind: Literal["tcp", "http"]
    interval_seconds: float
    timeout_seconds: float
    """For the whole probe, connecting included."""
    path: str = "/"
    expected_statuses: frozenset[int] = frozenset(range(200, 400))
    body: str | None = None
    proxy_header: Literal["off", "v1", "v2"] = "off"
    """As the traffic of the pool's frontends begins."""


@dataclass(frozen=True, slots=True)
class Target:
    """A backend of a pool that is probed."""

    pool: str
    backend: Backend
    spec: ProbeSpec
