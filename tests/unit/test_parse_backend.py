"""The validation of a backend row: the seed's table, the meaning of NULL, refusals, and that every fault is named."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admin.backends import NewBackend
from app.domain.model import BACKEND_COLUMNS, Backend, BadBackend, limit_warning, parse_backend
from tests.harness import row
from tests.unit.described import is_described

FULL_ROW = {
    "id": "sa-1",
    "app": "shop",
    "region": "sa",
    "country": "BR",
    "wg_ip": "10.50.1.1",
    "port": 8080,
    "healthy": 1,
    "weight": 2,
    "soft_limit": 50,
    "hard_limit": 80,
    "deleted": 0,
    "drain_deadline": None,
}
SEED_COLUMNS = "id app region country wg_ip port healthy weight soft_limit hard_limit deleted"


def parse(**columns: Any) -> Backend:
    return parse_backend({**FULL_ROW, **columns})


def faults(**columns: Any) -> list[str]:
    """Return the names of the columns at fault."""
    with pytest.raises(BadBackend) as caught:
        parse(**columns)
    return [fault.column for fault in caught.value.faults]


def test_the_columns_are_the_seeds() -> None:
    assert " ".join(BACKEND_COLUMNS) == SEED_COLUMNS


def test_a_full_row() -> None:
    assert parse_backend(FULL_ROW) == Backend(
        id="sa-1",
        app="shop",
        region="sa",
        country="BR",
        host="10.50.1.1",
        port=8080,
        is_healthy=True,
        weight=2,
        soft_limit=50,
        hard_limit=80,
        is_deleted=False,
        drain_deadline=None,
    )


@pytest.mark.parametrize(
    ("column", "meaning"),
    [
        ("app", {"app": None}),
        ("region", {"region": None}),
        ("country", {"country": None}),
        ("healthy", {"is_healthy": True}),
        ("weight", {"weight": 1}),
        ("soft_limit", {"soft_limit": 100}),
        ("hard_limit", {"hard_limit": 0}),
        ("deleted", {"is_deleted": False}),
        ("drain_deadline", {"drain_deadline": None}),
    ],
)
def test_null_has_a_meaning(column: str, meaning: dict[str, Any]) -> None:
    assert parse(**{column: None}) == replace(parse(), **meaning)
    without = {name: value for name, value in FULL_ROW.items() if name != column}
    assert parse_backend(without) == parse(**{column: None}), "an absent column counts as NULL"


@pytest.mark.parametrize("column", ["id", "wg_ip", "port"])
def test_null_is_refused_where_there_is_no_default(column: str) -> None:
    assert faults(**{column: None}) == [column]


def test_the_smallest_row() -> None:
    smallest = parse_backend({"id": "a", "wg_ip": "10.0.0.1", "port": 80})
    assert smallest == Backend("a", None, None, None, "10.0.0.1", 80)
    assert smallest.is_serving


def test_the_harness_rows_are_good() -> None:
    assert parse_backend(row("a", 80)).is_serving


def test_soft_limit_0_counts_as_100_and_hard_limit_0_stays_unlimited() -> None:
    assert (parse(soft_limit=0).soft_limit, parse(hard_limit=0).hard_limit, parse(weight=0).weight) == (100, 0, 0)


@pytest.mark.parametrize("text", ["", " ", "\t"])
def test_empty_text_is_none_and_an_empty_id_or_address_is_refused(text: str) -> None:
    empty = parse(app=text, region=text, country=text)
    assert (empty.app, empty.region, empty.country) == (None, None, None)
    assert faults(id=text, wg_ip=text) == ["id", "wg_ip"]


def test_countries_are_upper_case_regions_lower_case_and_spaces_are_cut() -> None:
    tidy = parse(id=" sa-1 ", country=" br", region="SA ", app=" shop", wg_ip=" 10.50.1.1 ")
    assert tidy == parse()


def test_a_region_is_an_open_word() -> None:
    assert parse(region="Moon-Base_7").region == "moon-base_7"


@pytest.mark.parametrize("port", [1, 80, 65535])
def test_a_port_from_1_to_65535_is_good(port: int) -> None:
    assert parse(port=port).port == port


@pytest.mark.parametrize("port", [0, -1, 65536, "80", "http", 80.0, True, b"80", math.inf])
def test_any_other_port_is_refused(port: object) -> None:
    assert faults(port=port) == ["port"]


@pytest.mark.parametrize("column", ["weight", "soft_limit", "hard_limit"])
@pytest.mark.parametrize("value", [-1, "10", "many", "", 1.5, math.nan, True, b"\x01", 2**31, 10**30])
def test_numbers_that_are_negative_or_text_or_broken_are_refused(column: str, value: object) -> None:
    assert faults(**{column: value}) == [column]


@pytest.mark.parametrize("column", ["healthy", "deleted"])
@pytest.mark.parametrize("value", [-1, 2, "1", "yes", 0.5, b"1"])
def test_a_flag_is_0_or_1(column: str, value: object) -> None:
    assert faults(**{column: value}) == [column]


@pytest.mark.parametrize("column", ["id", "app", "region", "country", "wg_ip"])
@pytest.mark.parametrize("value", [7, 1.5, b"sa-1", "sa\n1", "sa\x00", "\x1b[31m", "x" * 256])
def test_text_columns_hold_printable_text(column: str, value: object) -> None:
    assert faults(**{column: value}) == [column]


def test_a_fault_is_short_however_long_the_value() -> None:
    with pytest.raises(BadBackend) as refused:
        parse(id="x" * 1_000_000, app="y" * 1_000_000)
    assert len(str(refused.value)) < 1500
    assert parse(id="x" * 255).id == "x" * 255


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.50.1.1", "10.50.1.1"),
        ("::1", "::1"),
        ("2001:DB8:0:0::1", "2001:db8::1"),
        ("fe80::1%wg0", "fe80::1%wg0"),
    ],
)
def test_an_address_is_kept_in_canonical_text(text: str, host: str) -> None:
    assert parse(wg_ip=text).host == host


@pytest.mark.parametrize(
    "text", ["10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.1:80", "[::1]", ":::", "10.0.0.0/8", "no host!", "1"]
)
def test_an_address_that_cannot_be_parsed_is_refused(text: str) -> None:
    assert faults(wg_ip=text) == ["wg_ip"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app.example", "app.example"),
        ("APP.Example", "app.example"),
        ("app.example.", "app.example."),
        ("db", "db"),
        ("3com.example", "3com.example"),
        ("10.0.0.1.example", "10.0.0.1.example"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
    ],
)
def test_a_host_name_is_kept_in_lower_case_and_its_backend_serves_once_it_has_an_address(text: str, name: str) -> None:
    found = parse(wg_ip=text)
    assert (found.host, found.host_name, found.is_serving) == ("", name, False)
    assert replace(found, host="10.0.0.1").is_serving


@pytest.mark.parametrize(
    "text",
    ["-a.example", "a-.example", "a..example", ".example", "a_b.example", "bücher.example", "a" * 64, "a." * 127 + "a",
     "host:80", "http://host", "a.example/", "a b", "1.2", "host.5", "."],
)  # fmt: skip
def test_what_is_neither_an_address_nor_a_host_name_is_refused(text: str) -> None:
    assert faults(wg_ip=text) == ["wg_ip"]


@pytest.mark.parametrize("deadline", [0, 1_800_000_000, 1_800_000_000.5])
def test_a_drain_deadline_is_unix_seconds(deadline: float) -> None:
    assert parse(drain_deadline=deadline).drain_deadline == deadline


@pytest.mark.parametrize("deadline", [-1, "soon", math.nan, math.inf, True])
def test_any_other_drain_deadline_is_refused(deadline: object) -> None:
    assert faults(drain_deadline=deadline) == ["drain_deadline"]


def test_every_fault_of_a_row_is_named_with_column_value_and_rule() -> None:
    bad = {
        "id": "",
        "wg_ip": "no where",
        "port": 0,
        "healthy": "yes",
        "weight": -1,
        "soft_limit": "x",
        "hard_limit": 0.5,
    }
    with pytest.raises(BadBackend) as caught:
        parse_backend({**bad, "deleted": 7, "app": 1, "region": 2, "country": 3, "drain_deadline": "x"})
    named = {fault.column for fault in caught.value.faults}
    assert named == {*BACKEND_COLUMNS, "drain_deadline"}
    assert caught.value.backend_id == ""
    text = str(caught.value)
    assert "wg_ip='no where': must be an IPv4 or IPv6 address, or a host name" in text
    assert "port=0: must be a whole number from 1 to 65535" in text


def test_the_message_names_the_row() -> None:
    with pytest.raises(BadBackend, match="backend 'sa-1': port="):
        parse(port=0)


@pytest.mark.parametrize(("healthy", "deleted", "serves"), [(1, 0, True), (0, 0, False), (1, 1, False), (0, 1, False)])
def test_serving_is_healthy_and_not_deleted(healthy: int, deleted: int, serves: bool) -> None:
    assert parse(healthy=healthy, deleted=deleted).is_serving is serves


@pytest.mark.parametrize(
    ("soft", "hard", "is_odd"), [(100, 50, True), (2, 1, True), (50, 50, False), (50, 80, False), (100, 0, False)]
)
def test_a_hard_limit_below_the_soft_limit_is_accepted_with_a_warning(soft: int, hard: int, is_odd: bool) -> None:
    warning = limit_warning(parse(soft_limit=soft, hard_limit=hard))
    assert (warning is not None) is is_odd
    if warning:
        assert f"hard_limit {hard}" in warning
        assert f"soft_limit {soft}" in warning


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)


@given(st.dictionaries(st.sampled_from([*BACKEND_COLUMNS, "drain_deadline", "further"]), anything))
def test_any_row_is_a_sound_backend_or_refused_by_name(columns: dict[str, object]) -> None:
    try:
        found = parse_backend({"id": "a", "wg_ip": "10.0.0.1", "port": 80, **columns})
    except BadBackend as bad:
        assert bad.faults
        assert {fault.column for fault in bad.faults} <= columns.keys()
        return
    assert found.id == found.id.strip() != ""
    assert 1 <= found.port <= 65535
    assert found.weight >= 0
    assert found.soft_limit > 0
    assert found.hard_limit >= 0


@given(st.text(max_size=260))
def test_every_accepted_text_is_described(text: str) -> None:
    row = {"id": "a", "wg_ip": "10.0.0.1", "port": 80}
    for column in ("id", "app"):
        try:
            parse_backend({**row, column: text})
        except BadBackend:
            continue
        if text.isprintable():  # control characters alone count as NULL
            assert is_described(NewBackend, {**row, column: text})


@pytest.mark.parametrize("host", ["10.50.1.1", "fd00::1", "gru-1.internal", "my-site.example.com"])
def test_addresses_and_host_names_are_described(host: str) -> None:
    parse(wg_ip=host)
    assert is_described(NewBackend, {"id": "São Paulo 1", "wg_ip": host, "port": 80})
