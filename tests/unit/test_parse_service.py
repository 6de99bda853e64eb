"""The validation of services: every fault at once, defaults, and hidden secrets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admin.services import NewService, ServiceFields
from app.domain.service_settings import ENGINES, MASK, Secret
from app.domain.services import BadService, parse_service
from tests.unit.described import is_described

POSTGRESQL = {"engine": "postgresql", "host": "db", "database": "shop", "user": "edge", "password": "s3cret"}
LEAST = {
    "sqlite": {"path": "shop.db"},
    "postgresql": {"host": "db", "database": "shop", "user": "edge"},
    "mysql": {"host": "db", "database": "shop", "user": "edge"},
    "redis": {"host": "db"},
    "memcached": {"host": "db"},
    "s3": {"endpoint": "https://s3.example.org", "bucket": "things"},
    "smtp": {"host": "mail", "sender": "shop@example.org"},
}


def row(settings: object, name: object = "main", kind: object = "database") -> dict[str, object]:
    return {"name": name, "kind": kind, "settings": settings}


def faults(row: dict[str, object]) -> dict[str, str]:
    """Return the rules broken, by setting."""
    with pytest.raises(BadService) as caught:
        parse_service(row)
    return {fault.column: fault.rule for fault in caught.value.faults}


@pytest.mark.parametrize(("kind", "engine"), [(kind, engine) for kind in ENGINES for engine in ENGINES[kind]])
def test_an_engine_needs_little_and_the_rest_has_defaults(kind, engine):
    spec = parse_service(row({"engine": engine, **LEAST[engine]}, kind=kind))
    assert (spec.name, spec.kind, spec.engine) == ("main", kind, engine)
    assert set(spec.settings) == set(ENGINES[kind][engine])
    assert (spec.backlog, spec.connect_timeout_seconds) == (128, 3.0)
    assert spec.connections > 0
    assert spec.timeout_seconds >= 5
    assert parse_service(spec.stored()) == spec
    assert is_described(NewService, row({"engine": engine, **LEAST[engine]}, kind=kind))
    assert is_described(NewService, spec.masked())
    assert is_described(NewService, spec.stored())
    for missing in LEAST[engine]:
        assert faults(row({"engine": engine, **LEAST[engine], missing: None}, kind=kind)) == {missing: "is required"}


def test_the_engine_need_not_be_named_where_there_is_one():
    assert parse_service(row(LEAST["s3"], kind="storage")).engine == "s3"
    assert parse_service(row(LEAST["smtp"], kind="email")).engine == "smtp"
    assert is_described(NewService, row(LEAST["s3"], kind="storage"))
    assert not is_described(NewService, row(LEAST["redis"], kind="cache"))
    assert faults(row(LEAST["redis"], kind="cache")) == {"engine": "must be one of redis, memcached"}


def test_every_fault_is_found_at_once():
    found = faults(
        row({**POSTGRESQL, "host": "a b", "port": 0, "connections": "8", "timeout_seconds": True, "colour": "red"})
    )
    assert set(found) == {"host", "port", "connections", "timeout_seconds", "colour"}
    assert found["port"] == "must be a whole number from 1 to 65535"
    assert found["colour"].startswith("is unknown; known: engine, connections, backlog")


def test_the_fields_around_the_settings_are_validated():
    assert set(faults({"name": "a/b", "kind": "oracle", "settings": [], "colour": 1})) == {
        "name", "kind", "settings", "colour",
    }  # fmt: skip
    assert set(faults({})) == {"name", "kind"}


@pytest.mark.parametrize(
    ("kind", "settings", "fault"),
    [
        ("database", {"engine": "sqlite", "path": ":memory:"}, "path"),
        ("database", {"engine": "sqlite", "path": "file::memory:?cache=shared"}, "path"),
        ("database", {"engine": "sqlite", "path": "a\0b"}, "path"),
        ("database", {**POSTGRESQL, "host": "10.0.0.256"}, "host"),
        ("database", {**POSTGRESQL, "host": "db:5432"}, "host"),
        ("database", {**POSTGRESQL, "host": "[::1]"}, "host"),
        ("database", {**POSTGRESQL, "tls": "on"}, "tls"),
        ("database", {**POSTGRESQL, "timeout_seconds": float("nan")}, "timeout_seconds"),
        ("email", {**LEAST["smtp"], "password": "x"}, "user"),
        ("cache", {"engine": "redis", "host": "r", "database": -1}, "database"),
        ("storage", {**LEAST["s3"], "endpoint": "ftp://x"}, "endpoint"),
        ("storage", {**LEAST["s3"], "endpoint": "http://user:pw@x"}, "endpoint"),
        ("storage", {**LEAST["s3"], "bucket": "No"}, "bucket"),
        ("storage", {**LEAST["s3"], "access_key": "x"}, "secret_key"),
        ("storage", {**LEAST["s3"], "secret_key": "x"}, "access_key"),
        ("email", {**LEAST["smtp"], "sender": "Shop <shop@example.org>"}, "sender"),
        ("email", {**LEAST["smtp"], "tls": "require"}, "tls"),
    ],
)
def test_a_bad_value_is_named(kind, settings, fault):
    assert list(faults(row(settings, kind=kind))) == [fault]


@pytest.mark.parametrize("host", ["db", "db.example.org.", "10.0.0.1", "::1", "my_db-1"])
def test_hosts_are_names_and_addresses(host):
    assert parse_service(row({**POSTGRESQL, "host": host})).settings["host"] == host
    assert is_described(NewService, row({**POSTGRESQL, "host": host}))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("cache", {"engine": "sqlite", "path": "shop.db"}),
        ("database", {"engine": "sqlite", "host": "db"}),
        ("database", {**POSTGRESQL, "port": "5432"}),
        ("database", {**POSTGRESQL, "colour": "red"}),
        ("database", {"engine": "sqlite"}),
        ("oracle", POSTGRESQL),
    ],
)
def test_settings_are_described_by_kind_and_engine(kind, settings):
    assert not is_described(NewService, row(settings, kind=kind))
    assert not is_described(ServiceFields, {"kind": kind, "settings": settings})
    assert faults(row(settings, kind=kind))


def test_secrets_appear_only_where_they_are_needed():
    spec = parse_service(row(POSTGRESQL))
    assert spec.secret("password") == "s3cret"
    assert "s3cret" not in f"{spec!r} {spec} {spec.settings} {json.dumps(spec.masked())} {spec.settings['password']}"
    assert spec.masked()["settings"]["password"] == MASK
    assert spec.stored()["settings"]["password"] == "s3cret"
    for faulty in ({"passwrd": "s3cret"}, {"password": ["s3cret"]}):
        with pytest.raises(BadService) as bad:
            parse_service(row({**POSTGRESQL, **faulty}))
        assert "s3cret" not in str(bad.value)
    assert parse_service(row({**POSTGRESQL, "password": None})).secret("password") is None


def test_a_secret_given_back_as_its_mask_is_the_one_of_before():
    before = parse_service(row(POSTGRESQL))
    after = parse_service(row({**before.masked()["settings"], "port": 5433}), before)
    assert (after.secret("password"), after.settings["port"]) == ("s3cret", 5433)
    assert list(faults(row({**POSTGRESQL, "password": MASK}))) == ["password"]
    with pytest.raises(BadService):  # another engine's secret is not this one's
        parse_service(row({**POSTGRESQL, "engine": "mysql", "password": MASK}), before)


def test_secrets_are_compared_by_what_they_hide():
    assert Secret("a") == Secret("a") != Secret("b")
    assert len({Secret("a"), Secret("a")}) == 1


@given(st.dictionaries(st.sampled_from(["name", "kind", "settings"]), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([*ENGINES]),
    lambda inner: st.dictionaries(st.sampled_from(["engine", "host", "port", "path", "x"]), inner, max_size=3),
    max_leaves=5,
)))  # fmt: skip
def test_whatever_is_given_is_a_service_or_a_list_of_faults(row):
    try:
        parse_service(row)
    except BadService as bad:
        assert bad.faults
