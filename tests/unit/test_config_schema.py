"""The committed JSON Schema: generated from the code, up to date, and in agreement with validation on valid files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.config import ConfigError, json_schema
from app.config.file import read_file, read_mapping

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"
SCHEMA = json_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

LEAST: dict[str, Any] = {
    "frontends": [{"name": "web", "listen": "*:80", "backend": "pool"}],
    "backends": [{"name": "pool", "app": ""}],
}


def properties() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield every key of the file: section, name, schema."""
    for section, schema in {"": SCHEMA, **SCHEMA["$defs"]}.items():
        for key, described in schema["properties"].items():
            yield section, key, described


def with_keys(section: str, keys: dict[str, Any]) -> dict[str, Any]:
    """Return the minimal file with additional keys in one section."""
    content: dict[str, Any] = json.loads(json.dumps(LEAST))
    front, pool = content["frontends"][0], content["backends"][0]
    target: dict[str, Any] = {
        "frontend": front,
        "pool": pool,
        "tcp": front.setdefault("tcp", {}),
        "limits": front.setdefault("limits", {}),
        "health_check": pool.setdefault("health_check", {}),
        "file": content,
    }[section]
    target.update(keys)
    return content


def test_the_committed_schema_is_up_to_date() -> None:
    # After a change: python -m app schema > docs/edgeproxy.schema.json
    assert json.loads((DOCS / "edgeproxy.schema.json").read_text()) == SCHEMA


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert all(schema["additionalProperties"] is False for schema in [SCHEMA, *SCHEMA["$defs"].values()])


@pytest.mark.parametrize(("section", "key", "described"), [*properties()])
def test_every_key_has_a_description_and_a_valid_default(section: str, key: str, described: dict[str, Any]) -> None:
    assert described["description"]
    if "default" in described:
        jsonschema.Draft202012Validator({**described, "$defs": SCHEMA["$defs"]}).validate(described["default"])


@pytest.mark.parametrize("key", sorted({key for _, key, _ in properties()}))
def test_the_example_names_every_key(key: str) -> None:
    assert f"{key}:" in (DOCS / "example.yaml").read_text()


def test_the_example_is_good() -> None:
    VALIDATOR.validate(yaml.safe_load((DOCS / "example.yaml").read_text()))


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("file", {}),
        ("frontend", {"listen": ["*:80", "[::1]:81"]}),
        ("frontend", {"listen": "*:80, [::1]:81,127.0.0.1:82 ,"}),
        ("frontend", {"affinity": "off"}),
        ("frontend", {"affinity": True}),
        ("frontend", {"proxy_protocol_from": "10.0.0.0/8, ::1"}),
        ("frontend", {"proxy_protocol_from": ["10.0.0.0/8", "2001:db8::/32"]}),
        ("tcp", {"send_proxy": False, "idle_timeout": "1.5h", "linger_timeout": 3}),
        ("health_check", {"type": "http", "expected_status": [200, "301-308"], "body": "ok"}),
        ("health_check", {"type": False}),
        ("file", {"x-anchors": [{"any": "thing"}]}),
        ("frontend", {"listen": ["*:65535", "127.0.0.1:0"]}),
        ("frontend", {"gateway": "on", "protocol": "http"}),
        ("frontend", {"soft_limit_spill": True, "algorithm": "geo"}),
        ("frontend", {"proxy_protocol_from": ["10.1.2.0/24", "10.1.0.0/16", "0.0.0.0/0", "10.1.2.3", "10.1.2.4/30"]}),
        ("frontend", {"protocol": "http", "http": {"request_headers": {"set": {"X-A": "a b", "Hosts": ""}}}}),
    ],
)
def test_a_good_file_is_good_to_both(section: str, keys: dict[str, Any]) -> None:
    content = with_keys(section, keys)
    read_mapping(content)
    VALIDATOR.validate(content)


@pytest.mark.parametrize(
    ("section", "keys"),
    [
        ("file", {"frontend": []}),
        ("file", {"frontends": []}),
        ("file", {"global": None}),
        ("file", {"y-anchors": {}}),
        ("frontend", {"x-anchors": {}}),
        ("frontend", {"listen": "127.0.0.1:70000"}),
        ("frontend", {"listen": ["*:65536"]}),
        ("frontend", {"http": {}}),
        ("frontend", {"gateway": True}),
        ("frontend", {"gateway": "on", "protocol": "tcp"}),
        ("frontend", {"soft_limit_spill": True}),
        ("frontend", {"proxy_protocol_from": "10.0.0.1/8"}),
        ("frontend", {"proxy_protocol_from": ["10.0.0.0/33"]}),
        ("frontend", {"proxy_protocol_from": ["10.1.0.0/8"]}),
        ("frontend", {"proxy_protocol_from": "::1, 10.1.2.0/16"}),
        *(
            ("frontend", {"protocol": "http", "http": {"request_headers": changes}})
            for changes in (
                {"set": {"X-A": "a\r\nB: c"}},
                {"set": {"X-A": " a"}},
                {"set": {"X A": "a"}},
                {"set": {"Host": "a"}},
                {"remove": ["Transfer-ENCODING"]},
                {"remove": ["a b"]},
            )
        ),
        ("health_check", {"path": "/up"}),
        ("health_check", {"type": "tcp", "body": "ok"}),
        ("frontend", {"algoritm": "geo"}),
        ("frontend", {"algorithm": "random"}),
        ("frontend", {"name": 80}),
        ("frontend", {"name": "a b"}),
        ("frontend", {"listen": 80}),
        ("frontend", {"listen": "80"}),
        ("frontend", {"listen": "127.0.0.1:80 127.0.0.1:81"}),
        ("frontend", {"listen": ["*:80, *:81"]}),
        ("frontend", {"affinity": "maybe"}),
        ("frontend", {"proxy_protocol_from": ["10.0.0.0/8, ::1"]}),
        ("tcp", {"connect_timeout": "5 s"}),
        ("tcp", {"connect_timeout": 0}),
        ("tcp", {"connect_timeout_seconds": 1}),
        ("tcp", {"connect_attempts": 11}),
        ("tcp", {"send_proxy": True}),
        ("limits", {"max_connections": "4"}),
        ("pool", {"app": None}),
        ("pool", {"servers": [{"address": "10.0.0.1:80"}]}),
        ("health_check", {"body": None}),
        ("health_check", {"type": "ping"}),
        ("health_check", {"type": "http", "path": "x"}),
        ("health_check", {"type": "http", "expected_status": "2xx"}),
    ],
)
def test_a_bad_file_is_bad_to_both(section: str, keys: dict[str, Any]) -> None:
    content = with_keys(section, keys)
    with pytest.raises(ConfigError):
        read_mapping(content)
    assert not VALIDATOR.is_valid(content)


VALUES = st.one_of(
    st.sampled_from([None, True, False, 0, 1, 3, 200, 0.5, "", "on", "off", "v1", "tcp", "http", "geo", "1s", "5"]),
    st.sampled_from(["*:80", "127.0.0.1:80", "[::1]:0", "10.0.0.0/8", "200-299", "/", "pool", [], {}, ["200"], [200]]),
)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_the_schema_accepts_what_the_edge_accepts(data: st.DataObject) -> None:
    section = data.draw(st.sampled_from(["frontend", "pool", "tcp", "limits", "health_check"]))
    model = {"frontend": "Frontend", "pool": "Pool", "tcp": "TcpOptions", "limits": "Limits"}.get(
        section, "HealthCheck"
    )
    keys = st.sampled_from([*SCHEMA["$defs"][model]["properties"]])
    content = with_keys(section, data.draw(st.dictionaries(keys, VALUES, max_size=2)))
    try:
        read_mapping(content)
    except ConfigError:
        return
    VALIDATOR.validate(content)


def undescribed(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    """Yield the nodes that say nothing: a value is described by itself, by what it refers to, or by its branches."""
    for key, node in schema.get("properties", {}).items():
        yield from ([] if "description" in node else [f"{path}.{key}"])
    inner = {**schema.get("properties", {}), **schema.get("$defs", {})}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            inner[key] = schema[key]
    inner |= {f"anyOf[{n}]": node for n, node in enumerate(schema.get("anyOf", [])) if "required" not in node}
    for key, node in inner.items():
        is_described = "description" in node or "$ref" in node
        yield from ([] if is_described or key in schema.get("properties", {}) else [f"{path}.{key}"])
        yield from undescribed(node, f"{path}.{key}")


def test_every_node_has_a_description() -> None:
    assert list(undescribed(SCHEMA)) == []


def test_keys_for_anchors_are_ignored() -> None:
    text = """\
x-check: &check {type: tcp, interval: 2s}
frontends: [{name: web, listen: "*:80", backend: pool}]
backends: [{name: pool, app: "", health_check: *check}]
"""
    assert read_file(text.encode(), "edge.yaml").backends[0].health_check.type == "tcp"
    VALIDATOR.validate(yaml.safe_load(text))


def test_the_yaml_of_every_page_is_good_to_the_schema() -> None:
    parts = 0
    for page in sorted(DOCS.glob("**/*.md")):
        for text in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
            content = yaml.safe_load(text)
            if isinstance(content, dict) and {"frontends", "backends"} & content.keys():
                parts += 1
                names = [pool["name"] for pool in content.get("backends", [])]
                content.setdefault("frontends", [{"name": name, "listen": "*:80", "backend": name} for name in names])
                VALIDATOR.validate(content)
    assert parts >= 5


@pytest.mark.parametrize(
    ("why", "section", "keys"),
    [
        ("names in other places", "frontend", {"backend": "other"}),
        ("addresses in other places", "frontend", {"listen": "*:80, 127.0.0.1:80"}),
        ("host bits within an octet", "frontend", {"proxy_protocol_from": "10.0.0.1/30"}),
        ("more than syntax: an IP address", "frontend", {"listen": "999.0.0.1:80"}),
        ("two spellings of one name", "frontend", {"protocol": "http", "http": {"request_headers": {
            "set": {"X-A": "a"}, "remove": ["x-a"]}}}),
        ("the order of a range", "health_check", {"type": "http", "expected_status": "300-200"}),
        ("a range of durations with units", "tcp", {"connect_timeout": "366d"}),
    ],
)  # fmt: skip
def test_what_the_schema_cannot_say_is_left_to_check(why: str, section: str, keys: dict[str, Any]) -> None:
    content = with_keys(section, keys)
    with pytest.raises(ConfigError):
        read_mapping(content)
    assert VALIDATOR.is_valid(content), why


def test_editors_ask_for_quotes_where_check_takes_text_as_written() -> None:
    text = 'frontends: [{name: 80, listen: "*:80", backend: pool}]\nbackends: [{name: pool, app: 1.10}]\n'
    read_file(text.encode(), "edge.yaml")
    assert not VALIDATOR.is_valid(yaml.safe_load(text))
