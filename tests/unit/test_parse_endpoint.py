"""The one validation of an endpoint: what is accepted, what absence means, that every fault is named, and conflicts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admin.endpoints import NewEndpoint
from app.domain.endpoints import (
    COLUMNS,
    BadEndpoint,
    Endpoint,
    EndpointConflict,
    check_conflicts,
    parse_endpoint,
)
from app.gateway.router import Router
from tests.unit.described import is_described

SMALLEST = {"id": "hello", "path": "/hello"}
FULL = {
    "id": "user-files",
    "name": "Files of a user",
    "path": "/users/<int:id>/files/<path:name>",
    "domain": "api.example.com",
    "methods": ["put", "GET", "PUT"],
    "timeout_seconds": 2,
    "max_concurrency": 7,
    "max_body_bytes": 1000,
    "is_enabled": False,
}


def parse(**fields: Any) -> Endpoint:
    return parse_endpoint({**SMALLEST, **fields})


def faults(**fields: Any) -> list[str]:
    """Return the names of the fields at fault."""
    with pytest.raises(BadEndpoint) as caught:
        parse(**fields)
    return [fault.column for fault in caught.value.faults]


def test_the_smallest_and_what_absence_means() -> None:
    smallest = parse_endpoint(SMALLEST)
    assert smallest == Endpoint("hello", "hello", "/hello", None, ("GET",), 30.0, 100, 1 << 20, True)
    assert parse_endpoint({**dict.fromkeys(COLUMNS), **SMALLEST}) == smallest, "None counts as absent"


def test_a_full_one() -> None:
    assert parse_endpoint(FULL) == Endpoint(
        "user-files",
        "Files of a user",
        "/users/<int:id>/files/<path:name>",
        "api.example.com",
        ("GET", "PUT"),
        2.0,
        7,
        1000,
        False,
    )


def test_every_fault_is_named_at_once_with_the_value_and_the_rule() -> None:
    wrong = {
        "id": "No!",
        "name": "",
        "path": "hello",
        "domain": "a_b.c",
        "methods": ["FETCH"],
        "timeout_seconds": 0,
        "max_concurrency": -1,
        "max_body_bytes": 1.5,
        "is_enabled": "yes",
        "tiemout": 3,
    }
    with pytest.raises(BadEndpoint) as caught:
        parse_endpoint(wrong)
    assert {fault.column: fault.value for fault in caught.value.faults} == wrong
    assert "methods=['FETCH']: must be a list with at least one of DELETE, GET" in str(caught.value)
    assert "tiemout=3: is unknown; known: id, name" in str(caught.value)


@pytest.mark.parametrize("value", [None, "", "-a", "A", "a b", "a/b", "é", "a" * 64, 7])
def test_an_id_is_short_and_plain(value: object) -> None:
    assert faults(id=value) == ["id"]


@pytest.mark.parametrize(
    ("domain", "kept"),
    [
        ("localhost", "localhost"),
        ("API.Example.com", "api.example.com"),
        ("*.example.com", "*.example.com"),
        ("my-site.example.com", "my-site.example.com"),
    ],
)
def test_domains(domain: str, kept: str) -> None:
    assert parse(domain=domain).domain == kept
    assert is_described(NewEndpoint, {**SMALLEST, "domain": domain})


@pytest.mark.parametrize(
    "domain", ["", "*", "*.", "a.*.b", "a..b", ".a", "a.", "a:80", "http://a", "-a", "a-", "é.de", "x" * 64, "a b", 1]
)
def test_an_invalid_domain_is_refused(domain: object) -> None:
    assert faults(domain=domain) == ["domain"]
    assert not is_described(NewEndpoint, {**SMALLEST, "domain": domain})


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b.html",
        "/café/~x:@!$&'()*+,;=",
        "/<a>",
        "/v<int:major>/x",
        "/<string(length=2):lang>/<any(about,help,\"in quotes\"):page>",
        "/<int(signed=True):a>/<int(min=1, max=5):b>/<int(fixed_digits=4):c>",
        "/<float(min=0.5):a>/<uuid:b>/<path:rest>",
        "/<path:a>/raw",
        "/<string(minlength=2,maxlength=2):a>",
    ],
)  # fmt: skip
def test_paths(path: str) -> None:
    assert parse(path=path).path == path
    assert is_described(NewEndpoint, {**SMALLEST, "path": path})
    Router([parse(path=path)])


def test_a_slash_at_the_end_makes_no_difference() -> None:
    assert parse(path="/a/").path == "/a"
    assert parse(path="/").path == "/"


@pytest.mark.parametrize(
    "path",
    [
        None,
        7,
        "",
        "a",
        "//",
        "//a",
        "/a//b",
        "/a/../b",
        "/.",
        "/a b",
        "/a%20b",
        "/a?b",
        "/a#b",
        "/a|b",
        "/a\\b",
        "/a\n",
        "/<",
        "/<>",
        "/a>b",
        "/<a><b>",
        "/<a>-<b>",
        "/<_a>",
        "/<a>/<a>",
        "/<path:a>/<path:b>",
        "/<regex:a>",
        "/<default:a>",
        "/<uuid(x=1):a>",
        "/<path():a>",
        "/<int(1):a>",
        "/<int(min=x):a>",
        "/<int(min=1.5):a>",
        "/<int(min=-1):a>",
        "/<int(min=5,max=1):a>",
        "/<int(signed=1):a>",
        "/<int(min=True):a>",
        "/<int(min=1,min=2):a>",
        "/<float(fixed_digits=1):a>",
        "/<string(length=0):a>",
        "/<string(length=99999):a>",
        "/<string(length=1,minlength=1):a>",
        "/<string(minlength=3,maxlength=2):a>",
        "/<any:a>",
        "/<any():a>",
        "/<any(1,2):a>",
        "/<any(True):a>",
        '/<any(""):a>',
        "/<any(a/b):x>",
        "/" + "a" * 500,
    ],
)
def test_an_invalid_path_is_refused(path: object) -> None:
    assert set(faults(path=path)) == {"path"}


def test_every_fault_of_a_path_is_named() -> None:
    assert faults(path="/a b/<regex:x>/<int(min=x):x>") == ["path"] * 4


@pytest.mark.parametrize("methods", [[], "GET", ["TRACE"], ["CONNECT"], [1], {"GET": 1}])
def test_invalid_methods_are_refused(methods: object) -> None:
    assert faults(methods=methods) == ["methods"]


@pytest.mark.parametrize("seconds", [0, 5e-324, 0.0099, -1, 3601, float("nan"), float("inf"), True, "5"])
def test_an_invalid_timeout_is_refused(seconds: object) -> None:
    assert faults(timeout_seconds=seconds) == ["timeout_seconds"]


def test_the_edges_of_the_limits() -> None:
    assert parse(timeout_seconds=0.01).timeout_seconds == 0.01
    assert is_described(NewEndpoint, {**SMALLEST, "timeout_seconds": 0.01})
    assert not is_described(NewEndpoint, {**SMALLEST, "timeout_seconds": 5e-324})
    assert parse(timeout_seconds=3600, max_concurrency=0, max_body_bytes=0).max_concurrency == 0
    assert parse(max_concurrency=1_000_000, max_body_bytes=1 << 30).max_body_bytes == 1 << 30
    assert faults(max_concurrency=1_000_001, max_body_bytes=(1 << 30) + 1) == ["max_concurrency", "max_body_bytes"]


PIECES = st.sampled_from(
    [
        "a",
        "<b>",
        "<int:c>",
        "<path:d>",
        "<any(x,y):e>",
        "<string(length=2):f>",
        "<",
        ">",
        "(",
        ":",
        "%",
        "x<g>y",
        "",
        ",",
    ]
)


@given(st.lists(st.lists(PIECES, max_size=3).map("".join), max_size=4).map(lambda parts: "/" + "/".join(parts)))
def test_whatever_is_accepted_can_be_routed(path: str) -> None:
    try:
        endpoint = parse(path=path)
    except BadEndpoint:
        return
    assert is_described(NewEndpoint, {**SMALLEST, "path": path})
    Router([endpoint]).match("example.com", "/a/xy/1/b", "GET")


@given(st.text(max_size=30))
def test_any_text_is_a_path_or_a_fault(text: str) -> None:
    try:
        endpoint = parse(path=f"/{text}")
    except BadEndpoint:
        return
    assert is_described(NewEndpoint, {**SMALLEST, "path": f"/{text}"})
    Router([endpoint]).match("example.com", f"/{text}", "GET")


@given(st.text(max_size=210))
def test_every_accepted_name_is_described(text: str) -> None:
    try:
        parse(name=text)
    except BadEndpoint:
        return
    assert is_described(NewEndpoint, {**SMALLEST, "name": text})


def conflict(*endpoints: dict[str, Any]) -> EndpointConflict:
    with pytest.raises(EndpointConflict) as caught:
        check_conflicts(parse_endpoint({"id": f"e{number}", **one}) for number, one in enumerate(endpoints))
    return caught.value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("/a", "/a/"),
        ("/<int:id>", "/<int:user>"),
        ("/<id>", "/<string:id>"),
        ("/x<id>/<int(min=1,max=2):n>", "/x<name>/<int(max=2, min=1):n>"),
    ],
)
def test_one_shape_is_a_conflict(one: str, other: str) -> None:
    found = conflict({"path": one}, {"path": other})
    assert (found.endpoint_id, found.taken_by, found.methods) == ("e1", "e0", ("GET", "HEAD"))
    assert str(found) == "endpoint 'e1' conflicts with 'e0': same domain, same path, GET, HEAD"


def test_get_takes_head_too() -> None:
    assert conflict({"path": "/a"}, {"path": "/a", "methods": ["HEAD", "POST"]}).methods == ("HEAD",)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"path": "/a"}, {"path": "/a", "methods": ["POST"]}),
        ({"path": "/a"}, {"path": "/a", "domain": "example.com"}),
        ({"path": "/a", "domain": "*.example.com"}, {"path": "/a", "domain": "example.com"}),
        ({"path": "/<a>"}, {"path": "/<int:a>"}),
        ({"path": "/<a>"}, {"path": "/a"}),
    ],
)
def test_other_domains_shapes_and_methods_are_none(one: dict[str, Any], other: dict[str, Any]) -> None:
    check_conflicts([parse_endpoint({"id": "a", **one}), parse_endpoint({"id": "b", **other})])
