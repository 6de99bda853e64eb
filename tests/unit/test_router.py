"""The router: hosts, typed parameters, the precedence of overlapping endpoints, and 405."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.endpoints import EndpointConflict, Match, MethodNotAllowed, parse_endpoint
from app.gateway.router import Router


def router(**paths: Any) -> Router:
    """Return a router for endpoints given as id=path or id=fields."""
    return Router(
        parse_endpoint({"id": name, **(given if isinstance(given, dict) else {"path": given})})
        for name, given in paths.items()
    )


def id_of(found: Match | MethodNotAllowed | None) -> str | None:
    """Return the id of the matching endpoint."""
    assert not isinstance(found, MethodNotAllowed)
    return found.endpoint_id if found is not None else None


def test_parameters_have_the_types_of_their_kinds() -> None:
    routes = router(
        a="/i/<int:n>", b="/f/<float:x>", c="/u/<uuid:u>", d="/p/<path:rest>", e="/s/<s>", f="/a/<any(on,off):to>"
    )
    one = uuid.uuid4()
    assert routes.match("h", "/i/007", "GET") == Match("a", {"n": 7})
    assert routes.match("h", "/f/1.5", "GET") == Match("b", {"x": 1.5})
    assert routes.match("h", f"/u/{one}", "GET") == Match("c", {"u": one})
    assert routes.match("h", "/p/a/b//c", "GET") == Match("d", {"rest": "a/b//c"})
    assert routes.match("h", "/s/x-y", "GET") == Match("e", {"s": "x-y"})
    assert routes.match("h", "/a/off", "GET") == Match("f", {"to": "off"})
    for path in ("/i/x", "/i/-1", "/i/" + "9" * 5000, "/f/1", "/u/1", "/p/", "/s/", "/s/a/b", "/a/of", "/", "", "*"):
        assert routes.match("h", path, "GET") is None, path


def test_a_path_is_decoded_before_it_is_matched() -> None:
    routes = router(a="/café/<name>", b="/x/y")
    assert routes.match("h", "/caf%C3%A9/a%20b%FF", "GET") == Match("a", {"name": "a b\ufffd"})
    assert id_of(routes.match("h", "/x%2Fy", "GET")) == "b", "as in WSGI, an encoded slash is a slash"


def test_a_slash_at_the_end_makes_no_difference_and_doubled_ones_do() -> None:
    routes = router(a="/a", root="/")
    assert [id_of(routes.match("h", path, "GET")) for path in ("/a", "/a/", "/", "//", "//a", "/a//", "/%2Fa")] == [
        "a", "a", "root", None, None, None, None,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("api.example.com", "exact"),
        ("API.example.com.:8080", "exact"),
        ("x.example.com", "wide"),
        ("x.y.example.com", "wide"),
        ("x.eu.example.com", "wide-eu"),
        ("example.com", "any"),
        ("badexample.com", "any"),
        ("127.0.0.1:80", "any"),
        ("[::1]:80", "any"),
        ("[::1]", "any"),
        ("", "any"),
        ("a..b", "any"),
        ("x" * 300, "any"),
        ("é", "any"),
        ("a/b", "any"),
        ("a|b", "any"),
        (":80", "any"),
    ],
)
def test_exact_domains_precede_wildcards_the_longer_first_and_those_precede_none(host: str, found: str) -> None:
    routes = router(
        **{
            "any": {"path": "/<a>"},
            "exact": {"path": "/<a>", "domain": "api.example.com"},
            "wide": {"path": "/<a>", "domain": "*.example.com"},
            "wide-eu": {"path": "/<a>", "domain": "*.eu.example.com"},
        }
    )
    assert routes.match(host, "/x", "GET") == Match(found, {"a": "x"})


def test_a_wider_domain_serves_paths_that_a_narrower_one_lacks() -> None:
    routes = router(a={"path": "/a", "domain": "api.example.com"}, b={"path": "/b", "domain": "*.example.com"}, c="/c")
    assert [id_of(routes.match("api.example.com", path, "GET")) for path in ("/a", "/b", "/c")] == ["a", "b", "c"]


def test_text_precedes_parameters_and_narrow_kinds_precede_wide_ones() -> None:
    routes = router(
        text="/x/me",
        around="/x/m<a>",
        choice="/x/<any(you,them):a>",
        number="/x/<int:a>",
        uuid="/x/<uuid:a>",
        string="/x/<a>",
        path="/x/<path:a>",
    )
    found = [
        id_of(routes.match("h", f"/x/{part}", "GET")) for part in ("me", "mine", "you", "7", uuid.uuid4(), "s", "s/t")
    ]
    assert found == ["text", "around", "choice", "number", "uuid", "string", "path"]


def test_segments_are_matched_from_the_left_with_backtracking() -> None:
    routes = router(left="/a/<x>/c", right="/<x>/b/c", deep="/a/b/d")
    assert [id_of(routes.match("h", path, "GET")) for path in ("/a/b/c", "/a/b/d", "/z/b/c")] == [
        "left",
        "deep",
        "right",
    ]


@pytest.mark.parametrize("order", [("a", "b"), ("b", "a")])
def test_equal_endpoints_are_ordered_by_id(order: tuple[str, str]) -> None:
    paths = {"a": "/<string(minlength=2):x>", "b": "/<string(maxlength=9):x>"}
    assert id_of(router(**{name: paths[name] for name in order}).match("h", "/xyz", "GET")) == "a"


def test_a_number_out_of_bounds_matches_nothing() -> None:
    routes = router(a="/<int(max=5):n>", b="/<s>")
    assert [id_of(routes.match("h", path, "GET")) for path in ("/5", "/x", "/6")] == ["a", "b", None]


def test_405_names_the_methods_of_every_endpoint_that_fits() -> None:
    routes = router(
        a={"path": "/a", "methods": ["GET"]},
        b={"path": "/<x>", "methods": ["PUT"]},
        c={"path": "/<path:x>", "methods": ["DELETE"]},
    )
    assert routes.match("h", "/a", "POST") == MethodNotAllowed(("DELETE", "GET", "HEAD", "PUT"))
    assert routes.match("h", "/a/", "POST") == MethodNotAllowed(("DELETE", "GET", "HEAD", "PUT"))
    assert id_of(routes.match("h", "/a", "HEAD")) == "a"
    assert id_of(routes.match("h", "/a", "PUT")) == "b", "one whose method does not fit is passed over"


def test_a_disabled_endpoint_matches_nothing_but_still_conflicts() -> None:
    assert router(a={"path": "/a", "is_enabled": False}).match("h", "/a", "GET") is None
    with pytest.raises(EndpointConflict):
        router(a={"path": "/a", "is_enabled": False}, b="/a")


def test_a_router_of_nothing() -> None:
    assert Router().match("h", "/", "GET") is None


def test_many_hosts_take_bounded_memory() -> None:
    routes = router(a="/a")
    for number in range(2000):
        assert id_of(routes.match(f"h{number}", "/a", "GET")) == "a"
    assert len(routes._hosts) <= 256


def test_a_repeated_path_has_the_same_match_and_its_own_parameters() -> None:
    routes = router(a={"path": "/a", "domain": "x.example"}, b="/b/<int:n>", c={"path": "/a", "methods": ["PUT"]})
    for _ in range(3):
        for found, wanted in (
            (routes.match("x.example", "/a", "GET"), "a"),
            (routes.match("x.example", "/a", "PUT"), "c"),
            (routes.match("y.example", "/a", "PUT"), "c"),
            (routes.match("h", "/b/1", "GET"), "b"),
            (routes.match("h", "/none", "GET"), None),
        ):
            assert id_of(found) == wanted
            if isinstance(found, Match):
                assert found.params == ({"n": 1} if wanted == "b" else {})
                found.params["changed"] = "by a handler"  # type: ignore[index]
        assert routes.match("y.example", "/a", "GET") == MethodNotAllowed(("PUT",))


def test_many_requests_take_bounded_memory() -> None:
    routes = router(a="/a", b="/b/<int:n>")
    for number in range(3000):
        routes.match(f"h{number}", "/a", "GET")
        routes.match("h", f"/b/{number}", "GET")
    routes.match("h" * 1000, "/a", "GET")
    assert len(routes._cache) <= 1024
    assert max(sum(map(len, request)) for request in routes._cache) <= 256


@pytest.mark.parametrize(
    "rule",
    [
        "/<path:a>/x/<b>/y",
        "/x<path:a>y/<int:c>",
        "/<a>/<b>/<c>/<d>/z",
        "/<path:a>/<b>/<c>/<d>/<e>",
        "/<any(a,aa):x>/<path:q>/raw",
    ],
)
def test_a_long_path_is_matched_quickly(rule: str) -> None:
    routes = router(a=rule)
    started = time.process_time()
    for path in ("x/" * 16_000, "x" * 32_000, "x/y/" * 8_000 + "!", "a/raw" * 6_000, "/x" * 16_000 + "/1/yy"):
        routes.match("h", f"/{path}", "GET")
    assert time.process_time() - started < 0.5, "it takes 5 ms"


ROUTES = router(a="/a/<int:n>", b={"path": "/<path:p>/x", "domain": "*.example.com", "methods": ["POST"]}, c="/<s>")


@given(st.text(max_size=40), st.text(max_size=60), st.text(max_size=8))
def test_any_request_is_matched_or_not_and_never_raises(host: str, path: str, method: str) -> None:
    for one in (path, f"/{path}"):
        found = ROUTES.match(host, one, method)
        assert found is None or isinstance(found, Match | MethodNotAllowed)
