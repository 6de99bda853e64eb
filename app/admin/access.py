"""The gate of the admin API: whose token a request shows, and what to answer those that show none."""

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


class Gate:
    """Admits bearers of a token (RFC 6750). `tokens()` returns those there are now.

    Failures are limited per address: beyond the limit they are answered 429 and not logged. A good token is admitted
    all the same. Nobody guesses 256 random bits, so the limit keeps the log and the processor from being flooded; and
    it must not let a neighbour's forgotten script, on the same address, shut the operator out.
    """

    def __init__(self, tokens: Callable[[], Iterable[Token]]) -> None:
        self._tokens = tokens
        self._failures = FailureLimit()

    def admit(self, authorization: str | None, address: str) -> Token:
        """Return the token that a header shows. Raises Problem (401, 429)."""
        scheme, _, presented = (authorization or "").partition(" ")
        if scheme.lower() == "bearer" and presented.strip():
            token = find_token(presented.strip(), self._tokens())
            if token is not None:
                return token
            raise self._refused(address, "this is no valid token", f'{_CHALLENGE}, error="invalid_token"')
        raise self._refused(address, "needs a token: Authorization: Bearer …", _CHALLENGE)

    def is_valid(self, token: Token) -> bool:
        """Say whether a token has not been revoked meanwhile."""
        return token in self._tokens()

    def _refused(self, address: str, detail: str, challenge: str) -> Problem:
        wait_seconds = self._failures.fail(_network(address), time.monotonic())
        if wait_seconds:
            again = str(ceil(wait_seconds))
            return Problem(429, "too many requests without a valid token", headers={"Retry-After": again})
        logger.bind(client=address).warning("admin: a request was refused: {}", detail)
        return Problem(401, detail, headers={"WWW-Authenticate": challenge})


def _network(address: str) -> str:
    """Return what failures are counted by: an IPv4 address, or the /64 in which an IPv6 client has them all."""
    try:
        parsed = ipaddress.ip_address(unmapped(address.partition("%")[0]))
    except ValueError:
        return address
    return str(parsed) if parsed.version == 4 else str(ipaddress.IPv6Network((parsed, 64), strict=False))
