"""What a service says of itself when it registers, and what it is granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.domain.model import Backend

DEFAULT_TTL_SECONDS: Final = 15
MIN_TTL_SECONDS: Final = 2
MAX_TTL_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Registration:
    """A service that wants to serve as `backend`, until it has said nothing for `ttl_seconds`."""

    backend: Backend
    ttl_seconds: int
    is_draining: bool = False
    """It wants no new connections any more."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a registration got: for how long without another word, and whether it was not there before."""

    ttl_seconds: int
    is_new: bool
    is_renewal: bool = False
    """Nothing else was changed than how long it holds."""
