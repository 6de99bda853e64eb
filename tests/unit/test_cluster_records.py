"""What stands in etcd: which values are records, and what becomes of those that are not, or are of another version."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cluster.records import BACKENDS, read_record, read_value, write_value
from app.domain.replica import BadRecord, Record

GOOD: dict[str, Any] = {"schema": 1, "wg_ip": "10.0.0.1", "port": 80}


def found(value: object, name: bytes = b"a", *, is_leased: bool = False) -> Record | BadRecord:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return read_record(BACKENDS.encode() + name, data, 7, is_leased=is_leased)


def test_a_record_is_a_row_of_the_table_judged_as_one():
    one = found({**GOOD, "region": "sa", "country": "br", "weight": 3, "ttl_seconds": 15}, is_leased=True)
    assert isinstance(one, Record)
    assert (one.id, one.backend.host, one.backend.weight, one.revision, one.is_leased) == ("a", "10.0.0.1", 3, 7, True)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "is not JSON"),
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        ([], "is not a JSON object"),
        ({**GOOD, "schema": None}, "has schema None, which must be a whole number from 1"),
        ({**GOOD, "schema": True}, "has schema True, which must be a whole number from 1"),
        ({**GOOD, "schema": 0}, "has schema 0, which must be a whole number from 1"),
        ({**GOOD, "schema": 2}, "has schema 2, newer than 1"),
        ({**GOOD, "port": "x"}, "port"),
        ({**GOOD, "wg_ip": "10.0.0"}, "wg_ip"),
        ({**GOOD, "deleted": 1, "drain_seconds": -1}, "drain_seconds=-1: must be a number of seconds"),
        ({**GOOD, "drain_seconds": True}, "drain_seconds=True: must be a number of seconds"),
        ({**GOOD, "draining": "yes"}, "draining='yes': must be 0 or 1"),
    ],
)
def test_an_invalid_record_is_skipped_with_a_reason(value, reason):
    one = found(value)
    assert isinstance(one, BadRecord)
    assert (one.id, one.revision) == ("a", 7)
    assert reason in one.reason
    assert len(one.reason) <= 300


@pytest.mark.parametrize("name", [b"", b" a", b"\xff"])
def test_an_id_that_is_none_is_skipped(name):
    assert isinstance(found(GOOD, name), BadRecord)


def test_a_service_that_wants_no_more_is_drained_as_by_an_operator():
    one = found({**GOOD, "draining": 1, "deleted": 0})
    assert isinstance(one, Record)
    assert one.backend.is_deleted


def test_only_a_drained_record_has_drain_seconds():
    drained, serving = found({**GOOD, "deleted": 1, "drain_seconds": 60}), found({**GOOD, "drain_seconds": 60})
    assert isinstance(drained, Record)
    assert isinstance(serving, Record)
    assert (drained.drain_seconds, serving.drain_seconds) == (60, None)


def test_what_a_later_version_adds_is_read_over_and_kept():
    value = {**GOOD, "colour": "green"}
    assert isinstance(found(value), Record)
    assert json.loads(write_value({**read_value(json.dumps(value).encode()), "port": 81})) == {**value, "port": 81}


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
FIELDS = st.dictionaries(st.sampled_from([*GOOD, "deleted", "drain_seconds", "draining", "weight"]), SCALARS)


@given(st.binary() | st.recursive(SCALARS, st.lists) | FIELDS.map(lambda fields: {**GOOD, **fields}), st.binary())
def test_any_value_is_a_record_or_a_bad_record(value, name):
    assert isinstance(found(value, name), Record | BadRecord)
