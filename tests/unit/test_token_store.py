"""Where tokens are kept: the database, and the file with the first one."""

from __future__ import annotations

import os
import sqlite3
import stat

import pytest

from app.admin.token_service import TokenService
from app.domain.stored import StoreError
from app.domain.tokens import ALL_SCOPES, Scope, Token, digest_of, find_token
from app.outbound.peewee_tokens import SqliteTokenStore

READER = Token("reader", digest_of("one"), frozenset({Scope.READ}), 5.0)
OPERATOR = Token("operator", digest_of("two"), frozenset({Scope.READ, Scope.OPERATE}), 3.0)


@pytest.fixture
def store(tmp_path):
    return SqliteTokenStore(tmp_path / "gateway.db")


def test_tokens_come_back_as_they_were_oldest_first(store):
    assert store.load() == []
    store.add(READER)
    store.add(OPERATOR)
    assert store.load() == [OPERATOR, READER]
    store.remove("reader")
    assert store.load() == [OPERATOR]


def test_a_name_is_unique_and_an_unknown_one_cannot_be_removed(store):
    store.add(READER)
    with pytest.raises(KeyError, match="reader"):
        store.add(READER)
    with pytest.raises(KeyError, match="nobody"):
        store.remove("nobody")
    assert store.load() == [READER]


def test_the_file_is_its_owners_alone(store, tmp_path):
    store.add(READER)
    assert stat.S_IMODE((tmp_path / "gateway.db").stat().st_mode) == 0o600


def test_a_scope_of_another_version_allows_nothing(store, tmp_path):
    store.add(READER)
    with sqlite3.connect(tmp_path / "gateway.db") as database:
        database.execute("UPDATE tokens SET scopes = 'read conquer'")
    database.close()
    assert store.load() == [READER]


@pytest.mark.parametrize("fault", ["no database", "folder", "nowhere"])
def test_a_database_that_cannot_be_used_is_one_error(tmp_path, fault):
    path = {"no database": tmp_path / "x.db", "folder": tmp_path, "nowhere": tmp_path / "no" / "x.db"}[fault]
    (tmp_path / "x.db").write_text("this is no database, however long it is " * 100)
    for use in (SqliteTokenStore(path).load, lambda: SqliteTokenStore(path).add(READER)):
        with pytest.raises(StoreError, match=str(path)):
            use()


def test_the_first_token_is_made_once_with_every_scope(store, tmp_path):
    file = tmp_path / "admin.token"
    service = TokenService(store, file)
    service.load()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    text = file.read_text().strip()
    found = find_token(text, service.current())
    assert found is not None and (found.name, found.scopes) == ("first", ALL_SCOPES)
    again = TokenService(store, file)
    again.load()
    assert again.current() == service.current()
    assert file.read_text().strip() == text
    assert text.encode() not in (tmp_path / "gateway.db").read_bytes()


def test_an_older_file_that_others_may_read_is_replaced_not_written_into(store, tmp_path):
    file, kept = tmp_path / "admin.token", tmp_path / "kept"
    file.write_text("old")
    file.chmod(0o644)
    os.link(file, kept)
    TokenService(store, file).load()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kept.read_text() == "old"


def test_where_the_file_cannot_be_written_no_token_is_kept(store, tmp_path):
    with pytest.raises(StoreError, match=r"first token cannot be written to .*no/admin.token"):
        TokenService(store, tmp_path / "no" / "admin.token").load()
    assert store.load() == []


def test_a_token_is_good_from_its_making_to_its_revocation(store, tmp_path):
    service = TokenService(store, tmp_path / "admin.token")
    service.load()
    token, text = service.create("ci", frozenset({Scope.DEPLOY}))
    assert find_token(text, service.current()) == token
    assert token in store.load()
    service.revoke("ci")
    assert find_token(text, service.current()) is None
    assert token not in store.load()
