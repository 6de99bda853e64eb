"""YAML text to values and lines: invalid and oversized texts are reported with their line."""

from __future__ import annotations

from typing import Any

import pytest

from app.config.written import Written
from app.config.yaml_text import MAX_FILE_BYTES, read_yaml


def values(text: str) -> Any:
    document = read_yaml(text.encode())
    assert document.faults == []
    return document.value


def fault(source: str | bytes) -> str:
    document = read_yaml(source.encode() if isinstance(source, str) else source)
    (one,) = document.faults
    line, path, rule = one
    return f"{line} {'.'.join(map(str, path))}{rule}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1", {"a": Written("1")}),
        ("a: 10s", {"a": "10s"}),
        ("a: 2024-01-01", {"a": "2024-01-01"}),
        ("a: =", {"a": "="}),
        ("a: !!str 010", {"a": "010"}),
        ("a: no", {"a": "no"}),
        ("a: Yes", {"a": "Yes"}),
        ("a: 'off'", {"a": "off"}),
        ("a:", {"a": None}),
        ("a: [x, {b: c}]", {"a": ["x", {"b": "c"}]}),
        ("80: x", {"80": "x"}),  # keys are words, whatever they look like
        ("on: x", {"on": "x"}),
        ("a: 127.0.0.1:80", {"a": "127.0.0.1:80"}),
        ("\ufeffa: é", {"a": "é"}),
        ("%YAML 1.1\n---\na: b\n...", {"a": "b"}),
        ("x: &x [1]\ny: *x", {"x": ["1"], "y": ["1"]}),
        ("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}", {"x": {"a": "1", "b": "2"}, "y": {"b": "3", "a": "1"}}),
        ("x: &x {a: 1}\ny: {<<: [{a: 2}, *x], b: 3}", {"x": {"a": "1"}, "y": {"b": "3", "a": "2"}}),
    ],
)
def test_values(text: str, expected: object) -> None:
    assert values(text) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "1 : is empty: needs frontends and backends"),
        ("# nothing\n", "1 : is empty: needs frontends and backends"),
        ("- a", "1 : needs keys and values, such as frontends: and backends:"),
        ("a", "1 : needs keys and values, such as frontends: and backends:"),
        ("a: [", "1 column 5: the file ends within a value; a bracket or a quote is not closed"),
        ("a: 1\n b: 2", "2 column 3: a key is not expected here; see the indentation, or put text with : in quotes"),
        ("a: b\n---\nc: d", "2 a second document begins here; exactly one is allowed"),
        ("a:\n\tb: 1", "2 column 1: a tab; indent YAML with spaces"),
        ("a: 1\na: 2", "2 a: is a duplicate of the key in line 1"),
        ("a:\n  b: 1\n  c: 1\n  b: 2", "4 a.b: is a duplicate of the key in line 2"),
        (b"a: 1\nb: \xff", "2 byte 0xff is not UTF-8"),
        ("a: 1\nb: \x01", "2 character 0x1 is not allowed in YAML"),
        ("a: *:80", "1 column 5: a name must follow *; put text that begins with * in quotes"),
        ("a: *b", "1 column 4: * refers to an anchor (&) that is not there; put text that begins with * in quotes"),
        ("a: 1\nb: &b [*b]", "2 b.0: contains itself"),
        ("a: &a {<<: *a}", "1 a: contains itself"),
        ("a: {<<: 1}", "1 a: << needs an alias of a mapping"),
        ("a: {<<: [{}, 1]}", "1 a: << needs an alias of a mapping"),
        ("? [a]\n: 1", "1 : a key must be plain text"),
        ("a: !!int x", "1 a: the tag int is not supported"),
        ("a: !!bool x", "1 a: the tag bool is not supported"),
        ("a: !!float ''", "1 a: the tag float is not supported"),
        ("a: !!python/name:os.system x", "1 a: the tag python/name:os.system is not supported"),
        ("a: !!set {x}", "1 a: the tag set is not supported"),
        (r'a: "\ud800"', r"1 a: '\ud800' is not Unicode"),
        (r'a: "\U00110000"', "1 column 7: an escape that is no character of Unicode"),
        ("%YAML 2.0\n---\na: 1", "1 column 1: needs YAML 1"),
        ("[" * 2_000, "1 is nested too deeply"),
        (b"#" * (MAX_FILE_BYTES + 1), "1 is larger than 4 MiB"),
    ],
)  # fmt: skip
def test_invalid_yaml_is_refused(source: str | bytes, expected: str) -> None:
    assert fault(source) == expected


@pytest.mark.parametrize("use", ["[{}]", "{{<<: [{}]}}"])
def test_a_short_text_that_expands_to_a_huge_one_is_refused(use: str) -> None:
    levels = ["a0: &a0 {k: v}"]
    levels += [f"a{n}: &a{n} " + use.format(", ".join([f"*a{n - 1}"] * 10)) for n in range(1, 12)]
    assert fault("\n".join(levels)) == "1 has more than 250,000 values after expanding aliases"


def test_the_line_of_every_value() -> None:
    lines = read_yaml(b"a: 1\nb:\n  - c:\n      d\n  - &x {e: 1,\n     f: 2}\ng: *x\nh: {<<: *x,\n e: 5}").line_of
    assert lines == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 0, "c"): 3,
        ("b", 1): 5,
        ("b", 1, "e"): 5,
        ("b", 1, "f"): 6,
        ("g",): 7,
        ("g", "e"): 5,
        ("g", "f"): 6,
        ("h",): 8,
        ("h", "e"): 9,
        ("h", "f"): 6,
    }


def test_all_doubled_keys_are_named_at_once() -> None:
    assert [line for line, _, _ in read_yaml(b"a: 1\nb: 1\na: 2\nb: 2").faults] == [3, 4]


@pytest.mark.parametrize(
    "text",
    [
        "1",
        "1.10",
        "010",
        "0b11",
        "0x10",
        "0o17",
        "1_0",
        "1:30",
        "1e3",
        "+1",
        ".5",
        ".inf",
        "off",
        "True",
        "on",
        "9" * 99,
    ],
)
def test_a_scalar_that_is_no_text_to_some_version_of_yaml_is_kept_as_it_is_written(text: str) -> None:
    found = values(f"a: {text}")["a"]
    assert (type(found), found, repr(found)) == (Written, text, text)
    assert type(values(f"a: '{text}'")["a"]) is str


def test_a_number_without_end_takes_no_time() -> None:
    text = ":".join(["1"] * 1_000_000)
    assert values(f"a: {text}")["a"] == text
