"""Authentication of the admin API: how failures are counted by address, and the challenges."""

from __future__ import annotations

import pytest

from app.admin.access import Authenticator
from app.admin.problems import Problem
from app.domain.tokens import ALL_SCOPES, SECRET_BYTES, Token, digest_of, token_text

TEXT = token_text(b"x" * SECRET_BYTES)
TOKEN = Token("t", digest_of(TEXT), ALL_SCOPES, 0.0)


def refusals(authenticator, address, times=12, header="Bearer wrong"):
    """Return the statuses of `times` failures."""
    statuses = []
    for _ in range(times):
        with pytest.raises(Problem) as raised:
            authenticator.authenticate(header, address)
        statuses.append(raised.value.status)
    return statuses


@pytest.mark.parametrize(
    ("one", "other", "is_same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "", True),
    ],
)
def test_failures_are_counted_by_address_and_by_64_bits_of_ipv6(one, other, is_same):
    authenticator = Authenticator(lambda: [TOKEN])
    assert refusals(authenticator, one) == [401] * 10 + [429] * 2
    assert refusals(authenticator, other, 1) == [429 if is_same else 401]
    assert authenticator.authenticate(f"Bearer {TEXT}", other) == TOKEN


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Token x", f"Basic {TEXT}", f"Bearer {TEXT} x", TEXT]
)
def test_a_request_without_a_valid_token_is_challenged(header):
    with pytest.raises(Problem) as raised:
        Authenticator(lambda: [TOKEN]).authenticate(header, "192.0.2.1")
    assert raised.value.headers["WWW-Authenticate"].startswith('Bearer realm="')
    is_token = (header or "").startswith("Bearer ") and header != "Bearer "
    assert ("invalid_token" in raised.value.headers["WWW-Authenticate"]) == is_token


def test_a_removed_token_is_no_longer_valid():
    tokens = [TOKEN]
    authenticator = Authenticator(lambda: tokens)
    assert authenticator.is_valid(authenticator.authenticate(f"BEARER  {TEXT} ", "192.0.2.1"))
    tokens.clear()
    assert not authenticator.is_valid(TOKEN)
