"""The registration of a service, and the grant that it gets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.domain.model import Backend

DEFAULT_TTL_SECONDS: Final = 15
MIN_TTL_SECONDS: Final = 2
MAX_TTL_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Registration:
    """A service that registers as `backend`. The registration expires `ttl_seconds` after its last renewal."""

    backend: Backend
    ttl_seconds: int
    is_draining: bool = False
    """The service wants no new connections."""


@dataclass(frozen=True, slots=True)
class Granted:
    """The reply to a registration: how long it lasts without renewal, and whether it is new."""

    ttl_seconds: int
    is_new: bool
    is_renewal: bool = False
    """Only its expiry changed."""
