"""Tokens of the admin API: their text, the stored digest, and the limit on wrong ones."""

from __future__ import annotations

import hashlib
import re

import pytest

from app.domain.tokens import (
    ALL_SCOPES,
    SECRET_BYTES,
    FailureLimit,
    Scope,
    Token,
    digest_of,
    find_token,
    token_text,
)

A, B = token_text(b"a" * SECRET_BYTES), token_text(b"b" * SECRET_BYTES)


def kept(name: str, text: str) -> Token:
    return Token(name, digest_of(text), ALL_SCOPES, 0.0)


def test_a_token_carries_all_its_chance_in_text_that_headers_and_shells_take():
    assert re.fullmatch(r"edge_[A-Za-z0-9_-]{43}", A)
    assert A != B


def test_too_little_chance_is_refused():
    with pytest.raises(ValueError, match="32 random bytes"):
        token_text(b"x" * (SECRET_BYTES - 1))


def test_what_is_kept_is_a_hash_and_no_token():
    assert digest_of(A) == hashlib.sha256(A.encode()).hexdigest()
    assert find_token(digest_of(A), [kept("a", A)]) is None


@pytest.mark.parametrize("presented", [A[:-1], A + "x", A.upper(), "", " " + A, "é", "\udcff", "x" * 100_000])
def test_nothing_but_the_whole_token_is_found(presented):
    assert find_token(presented, [kept("a", A), kept("b", B)]) is None


def test_a_token_is_found_at_any_position():
    tokens = [kept("a", A), kept("b", B)]
    assert find_token(A, tokens) == tokens[0]
    assert find_token(B, tokens) == tokens[1]
    assert find_token(A, []) is None


def test_scopes_are_words():
    assert sorted(Scope) == ["deploy", "operate", "read"]


def test_failures_are_free_up_to_the_burst_and_then_one_at_a_time():
    limit = FailureLimit(burst=3, per_second=0.5)
    assert [limit.fail("x", 0.0) for _ in range(4)] == [0, 0, 0, 2.0]
    assert limit.fail("x", 1.0) == 1.0
    assert limit.fail("x", 2.0) == 0
    assert limit.fail("x", 2.0) == 2.0
    assert [limit.fail("x", 1000.0) for _ in range(4)] == [0, 0, 0, 2.0]


def test_each_address_has_a_limit_of_its_own():
    limit = FailureLimit(burst=1, per_second=0.1)
    assert (limit.fail("x", 0.0), limit.fail("x", 0.0), limit.fail("y", 0.0)) == (0, 10.0, 0)


def test_the_addresses_remembered_are_bounded_and_the_quietest_goes_first():
    limit = FailureLimit(burst=1, per_second=0.001, max_addresses=2)
    for address in "xyx":
        limit.fail(address, 0.0)
    limit.fail("z", 0.0)
    assert len(limit) == 2
    assert limit.fail("x", 0.0) > 0
    assert limit.fail("y", 0.0) == 0
    for number in range(1000):
        limit.fail(str(number), 0.0)
    assert len(limit) == 2
