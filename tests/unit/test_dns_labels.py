"""How texts become labels, and which of several texts gets a shared label."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.dns_labels import label_of, texts_by_label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("web", "web"),
        ("GRU-1", "gru-1"),
        ("a_b", "a_b"),
        ("10.0.0.1:8080", "10-0-0-1-8080"),
        ("[fd00::1]:80", "fd00-1-80"),
        ("São Paulo", "s-o-paulo"),
        ("web.", "web"),
        ("a" * 63, "a" * 63),
        ("a" * 64, ""),
        ("...", ""),
        ("日本", ""),
    ],
)
def test_a_text_becomes_a_label(text: str, label: str) -> None:
    assert label_of(text) == label


@pytest.mark.parametrize(
    ("texts", "owners"),
    [
        (["Web", "db"], {"web": "Web", "db": "db"}),
        (["WEB", "Web", "web"], {"web": "web"}),
        (["we.b", "we:b"], {"we-b": "we.b"}),
        (["we:b", "we-b", "we.b"], {"we-b": "we-b"}),
        (["...", "", "a" * 64], {}),
    ],
)
def test_of_several_texts_one_has_the_label(texts: list[str], owners: dict[str, str]) -> None:
    assert texts_by_label(texts) == texts_by_label(reversed(texts)) == owners


@given(st.lists(st.text(max_size=70)))
def test_every_label_is_one_that_resolvers_take(texts: list[str]) -> None:
    for label, text in texts_by_label(texts).items():
        assert label == label_of(text)
        assert 1 <= len(label) <= 63
        assert label.isascii() and label == label.lower() == label.strip("-")
        assert label.replace("-", "a").replace("_", "a").isalnum()
