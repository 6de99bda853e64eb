"""Parsing of backend files, before validation: CSV cells, JSON lists and lines, durations."""

from __future__ import annotations

import click
import pytest

from app.commands.backends import _cell, _csv_rows, _duration, _json_rows, _state
from tests.harness import row


def duration(text: str | None) -> float | None:
    return _duration(click.Context(click.Command("drain")), click.Option(["--deadline"]), text)


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        ("port", "8080", 8080),
        ("port", " 8080 ", 8080),
        ("port", "-1", -1),
        ("port", "", None),
        ("port", "http", "http"),
        ("port", "8e3", "8e3"),
        ("port", "８０", "８０"),
        ("weight", "1.5", "1.5"),
        ("id", "123", "123"),
        ("app", "  ", None),
        ("drain_deadline", "1800000000.5", 1800000000.5),
        ("drain_deadline", "soon", "soon"),
    ],
)
def test_a_cell_is_null_a_number_in_a_number_column_or_text(column: str, text: str, value: object) -> None:
    assert _cell(column, text) == value


def test_csv_rows_know_their_line() -> None:
    assert list(_csv_rows("id,wg_ip,port\na,10.0.0.1,80\n\nb,,81\n")) == [
        ("line 2", {"id": "a", "wg_ip": "10.0.0.1", "port": 80}),
        ("line 4", {"id": "b", "wg_ip": None, "port": 81}),
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "line 1: the column id is missing"),
        ("wg_ip,port\n10.0.0.1,80\n", "line 1: the column id is missing"),
        ("id,prt\na,80\n", "line 1: unknown column: prt"),
        ("id,port\na\n", "line 2: the number of fields differs"),
        ("id,port\na,80,81\n", "line 2: the number of fields differs"),
    ],
)
def test_a_csv_file_that_makes_no_sense_is_refused_with_its_line(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(_csv_rows(text))


@pytest.mark.parametrize(
    "text",
    [
        '[{"id": "a", "port": 80}, {"id": "b", "port": null}]',
        '{"id": "a", "port": 80}\n\n{"id": "b", "port": null}\n',
    ],
)
def test_json_is_a_list_of_objects_or_one_a_line(text: str) -> None:
    assert list(_json_rows(text)) == [("row 1", {"id": "a", "port": 80}), ("row 2", {"id": "b", "port": None})]


def test_a_single_json_object_is_one_row() -> None:
    assert list(_json_rows('{"id": "a"}')) == [("row 1", {"id": "a"})]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[{"id": "a"}, 5]', "row 2: must be an object"),
        ('[{"id": "a"}, {"port": 80}]', "row 2: the column id is missing"),
        ('[{"id": "a", "prt": 80}]', "row 1: unknown column: prt"),
        ('[\n{"id": "a"}\n', "Expecting ',' delimiter: line 3"),
        ('{"id": "a"}\n\n{"id": \n', "line 3: Expecting value at column 8"),
    ],
)
def test_json_that_makes_no_sense_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        list(_json_rows(text))


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("90", 90), ("60s", 60), ("1.5m", 90), ("2h", 7200), ("0s", 0)]
)
def test_a_duration_is_a_number_and_a_unit(text: str | None, seconds: float | None) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "-1s", "1w", "1 m", "1e3s", "soon", "٣s"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        duration(text)


@pytest.mark.parametrize(
    ("columns", "state"),
    [({}, "serving"), ({"healthy": 0}, "unhealthy"), ({"deleted": 1}, "drained"), ({"port": 0}, "refused: port=0: ")],
)
def test_the_state_of_a_row(columns: dict[str, object], state: str) -> None:
    assert _state(row("a", 80) | columns).startswith(state)
