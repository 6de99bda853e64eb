"""Which values are masked and which are not."""

from __future__ import annotations

import pytest

from app.domain.secrets import MASK, masked


@pytest.mark.parametrize(
    "name",
    [
        "Authorization", "X-Api-Key", "api_key", "Cookie", "Set-Cookie", "password", "db_passwd", "AWS_SECRET_KEY",
        "secret", "token", "X-Auth-Token", "credentials", "key", "auth", "smtp_pass", "X-Session-Id", "private-key",
    ],
)  # fmt: skip
def test_a_value_under_a_name_that_sounds_secret_is_masked(name):
    assert masked({name: "hunter2"}) == {name: MASK}
    assert masked({"deep": [{name: {"er": "hunter2"}}]}) == {"deep": [{name: MASK}]}
    assert masked({name: 1234}) == {name: MASK}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EDGEPROXY_ADMIN_TOKEN_FILE", "admin.token"), ("path", "/healthz?full=1"), ("keyboard", "de"),
        ("X-Via", "edge"), ("keep_alive", 5), ("token", None), ("token", ""), ("has_token", True),
        ("author", "me"), ("region", "sa"),
    ],
)  # fmt: skip
def test_other_values_are_not_masked(name, value):
    assert masked({name: value}) == {name: value}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://me:hunter2@db:5432/x", "postgres://***@db:5432/x"),
        ("https://db/x?token=hunter2&a=1#part", "https://db/x?token=***&a=1#part"),
        ("/check?api_key=hunter2", "/check?api_key=***"),
        ("Bearer hunter2", "Bearer ***"),
        ("basic aHVudGVyMg==", "basic ***"),
        ("https://db/x?a=1", "https://db/x?a=1"),
    ],
)
def test_credentials_within_a_text_are_masked(text, shown):
    assert masked([text]) == [shown]


def test_the_original_is_not_changed():
    original = {"token": "x", "list": [{"password": "y"}]}
    masked(original)
    assert original == {"token": "x", "list": [{"password": "y"}]}
