"""A registration: what a service sends to become a backend, and what the registrar grants."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from app.domain.model import Backend

DEFAULT_TTL_SECONDS: Final = 15
MIN_TTL_SECONDS: Final = 2
MAX_TTL_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Registration:
    """A service that asks to be `backend` for `ttl_seconds` after each time that it sends this."""

    backend: Backend
    ttl_seconds: int
    is_draining: bool = False
    """The service wants no new connections."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What the registrar grants: for how long the registration is valid, and whether it is new."""

    ttl_seconds: int
    is_new: bool
    is_renewal: bool = False
    """Only the expiry was changed."""
