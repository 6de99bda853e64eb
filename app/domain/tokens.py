"""Access to the admin API: tokens, their scopes, and a limit on wrong tokens per address.

A token is 32 random bytes as text, and its plain SHA-256 is stored. Salt and stretching (bcrypt, argon2) protect
secrets that people choose; against 256 random bits a dictionary is useless. The digest cannot be used as a token.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Final

SECRET_BYTES: Final = 32
PREFIX: Final = "edge_"
"""Lets scanners for leaked secrets recognize a token."""
MAX_TOKEN_CHARACTERS: Final = 256


class Scope(StrEnum):
    """What a token allows. No scope includes another."""

    READ = "read"
    """Read everything."""
    OPERATE = "operate"
    """Change what serves: backends, connections, bindings, reload, tokens."""
    DEPLOY = "deploy"
    """Run code in this process."""


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is stored. `digest` is the SHA-256 of its text in hex; `created_at` is Unix seconds."""

    name: str
    digest: str
    scopes: frozenset[Scope]
    created_at: float


def token_text(secret: bytes) -> str:
    """Return the text of a token made from random bytes. Raises ValueError if they are too few."""
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"a token needs {SECRET_BYTES} random bytes")
    return PREFIX + urlsafe_b64encode(secret).rstrip(b"=").decode()


def digest_of(text: str) -> str:
    """Return the digest under which a token is stored."""
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def find_token(presented: str, tokens: Iterable[Token]) -> Token | None:
    """Return the token with this text, if any. Takes the same time whichever token matches, or none."""
    digest = digest_of(presented[:MAX_TOKEN_CHARACTERS])
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


class FailureLimit:
    """Limits wrong tokens per address by a token bucket of size `burst`, refilled at `per_second`.

    It holds at most `max_addresses`; the one whose last failure is oldest is dropped.
    """

    def __init__(self, burst: int = 10, per_second: float = 0.2, max_addresses: int = 4096) -> None:
        self._burst = burst
        self._per_second = per_second
        self._max_addresses = max_addresses
        self._buckets: dict[str, tuple[float, float]] = {}
        """Failures still allowed, and at which time (monotonic seconds); the latest address last."""

    def __len__(self) -> int:
        return len(self._buckets)

    def fail(self, address: str, now: float) -> float:
        """Count a failure. Return 0 if it is within the limit, otherwise the seconds until the next one is allowed."""
        free, since = self._buckets.pop(address, (float(self._burst), now))
        free = min(float(self._burst), free + (now - since) * self._per_second)
        is_within = free >= 1
        if is_within:
            free -= 1
        while len(self._buckets) >= self._max_addresses:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[address] = (free, now)
        return 0.0 if is_within else (1 - free) / self._per_second
