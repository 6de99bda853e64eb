"""What is asked of a backend to learn whether it is healthy: the check, and one backend that it is asked of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from app.domain.model import Backend


@dataclass(frozen=True, slots=True)
class ProbeSpec:
    """An active check. For `http` a GET of `path` must give one of `expected_statuses`, with `body` in its body."""

    kind: Literal["tcp", "http"]
    interval_seconds: float
    timeout_seconds: float
    """For the whole probe, connecting included."""
    path: str = "/"
    expected_statuses: frozenset[int] = frozenset(range(200, 400))
    body: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """A backend to be probed, in its pool."""

    pool: str
    backend: Backend
    spec: ProbeSpec
