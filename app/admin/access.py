"""Authentication of the admin API: finds the token of a request, and limits requests without one."""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable, Iterable
from math import ceil

from loguru import logger

from app.admin.problems import Problem
from app.domain.client import unmapped
from app.domain.tokens import FailureLimit, Token, find_token

_CHALLENGE = 'Bearer realm="edgeproxy admin"'


class Authenticator:
    """Authenticates bearer tokens (RFC 6750). `tokens()` returns the current ones; `refresh()` may change them.

    Failures are limited per address: beyond the limit the response is 429 and nothing is logged. The limit protects the
    log and the processor from a flood; 256 random bits need no protection from guessing. A valid token always passes,
    so that a forgotten script on the same address cannot lock the operator out.
    """

    def __init__(self, tokens: Callable[[], Iterable[Token]], refresh: Callable[[], None] = lambda: None) -> None:
        self._tokens = tokens
        self._refresh = refresh
        self._failures = FailureLimit()

    def authenticate(self, authorization: str | None, address: str) -> Token:
        """Return the token in an Authorization header. Raises Problem (401, 429)."""
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and presented.strip():
            token = find_token(presented.strip(), self._tokens())
            if token is None:
                self._refresh()
                token = find_token(presented.strip(), self._tokens())
            if token is not None:
                return token
            raise self._refused(address, "the token is not valid", f'{_CHALLENGE}, error="invalid_token"')
        raise self._refused(address, "a token is required: Authorization: Bearer …", _CHALLENGE)

    def is_valid(self, token: Token) -> bool:
        """Return whether a token has not been revoked."""
        return token in self._tokens()

    def _refused(self, address: str, detail: str, challenge: str) -> Problem:
        wait_seconds = self._failures.fail(_network(address), time.monotonic())
        if wait_seconds:
            retry_after = str(ceil(wait_seconds))
            return Problem(429, "too many requests without a valid token", headers={"Retry-After": retry_after})
        logger.bind(client=address).warning("admin: request refused: {}", detail)
        return Problem(401, detail, headers={"WWW-Authenticate": challenge})


def _network(address: str) -> str:
    """Return the key to count failures by: an IPv4 address, or the /64 network of an IPv6 client."""
    try:
        parsed = ipaddress.ip_address(unmapped(address.partition("%")[0]))
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.IPv6Network((parsed, 64), strict=False))
