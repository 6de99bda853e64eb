"""Who may do what over the admin API: tokens, their scopes, and how many wrong ones an address may show.

A token is 32 random bytes in text, so its plain SHA-256 is what is kept: salt and stretching (bcrypt, argon2) make up
for secrets that people choose, and against 256 bits of chance a dictionary is no help. What is kept cannot be used as
a token.
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
"""So that scanners of leaked secrets can know a token when they see one."""
MAX_TOKEN_CHARACTERS: Final = 256


class Scope(StrEnum):
    """What a token allows. No scope includes another."""

    READ = "read"
    """Look at everything."""
    OPERATE = "operate"
    """Change what serves: backends, connections, bindings, reload, tokens."""
    DEPLOY = "deploy"
    """Run code in this process."""


ALL_SCOPES: Final = frozenset(Scope)


@dataclass(frozen=True, slots=True)
class Token:
    """One token as it is kept. `digest` is hexadecimal SHA-256 of its text; `created_at` Unix seconds."""

    name: str
    digest: str
    scopes: frozenset[Scope]
    created_at: float


def token_text(secret: bytes) -> str:
    """Return the text of a token made of random bytes. Raises ValueError when they are too few."""
    if len(secret) < SECRET_BYTES:
        raise ValueError(f"a token needs {SECRET_BYTES} random bytes")
    return PREFIX + urlsafe_b64encode(secret).rstrip(b"=").decode()


def digest_of(text: str) -> str:
    """Return what is kept of a token."""
    return sha256(text.encode(errors="surrogateescape")).hexdigest()


def find_token(presented: str, tokens: Iterable[Token]) -> Token | None:
    """Return the token that this is the text of. Takes as long whichever it is, and if it is none."""
    digest = digest_of(presented[:MAX_TOKEN_CHARACTERS])
    found = None
    for token in tokens:
        if hmac.compare_digest(token.digest, digest):
            found = token
    return found


class FailureLimit:
    """Says which addresses have shown too many wrong tokens: a bucket of `burst`, refilled at `per_second`.

    Remembers `max_addresses` at most; the one that has been quiet for longest is forgotten.
    """

    def __init__(self, burst: int = 10, per_second: float = 0.2, max_addresses: int = 4096) -> None:
        self._burst = burst
        self._per_second = per_second
        self._max_addresses = max_addresses
        self._buckets: dict[str, tuple[float, float]] = {}
        """Failures still free and when that was so, in monotonic seconds; the latest address last."""

    def __len__(self) -> int:
        return len(self._buckets)

    def fail(self, address: str, now: float) -> float:
        """Count a failure; return 0 when it was within the limit, else the seconds until the next one is."""
        free, since = self._buckets.pop(address, (float(self._burst), now))
        free = min(float(self._burst), free + (now - since) * self._per_second)
        is_within = free >= 1
        if is_within:
            free -= 1
        while len(self._buckets) >= self._max_addresses:
            del self._buckets[next(iter(self._buckets))]
        self._buckets[address] = (free, now)
        return 0.0 if is_within else (1 - free) / self._per_second
