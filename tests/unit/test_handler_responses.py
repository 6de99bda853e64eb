"""What a handler may return, and what becomes of it; what it must not."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException, NotFound, Unauthorized
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request, Response

from app.gateway.responses import BYTES, HTML, JSON, BadHandlerResponse, HandlerResponse, response_of

REQUEST = Request(EnvironBuilder("/somewhere").get_environ())


def answered(returned: object) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and the whole body of an answer, closed as the front does it."""
    response = response_of(returned, REQUEST)
    body = response.body if isinstance(response.body, bytes) else b"".join(response.body)
    if response.on_close is not None:
        response.on_close()
    return response.status, dict(response.headers), body


@pytest.mark.parametrize(
    ("returned", "status", "content_type", "body"),
    [
        ("grüß", 200, HTML, "grüß".encode()),
        ("", 200, HTML, b""),
        (b"\x00\xff", 200, BYTES, b"\x00\xff"),
        (bytearray(b"a"), 200, BYTES, b"a"),
        (memoryview(b"a"), 200, BYTES, b"a"),
        ({"a": [1, None, "é"]}, 200, JSON, '{"a":[1,null,"é"]}'.encode()),
        ([], 200, JSON, b"[]"),
        (None, 204, None, b""),
        (("made", 201), 201, HTML, b"made"),
        (({"no": 1}, HTTPStatus.NOT_FOUND), 404, JSON, b'{"no":1}'),
        (("teapot", "418 I'M A TEAPOT"), 418, HTML, b"teapot"),
        (("plain", {"Content-Type": "text/plain"}), 200, "text/plain", b"plain"),
        (("plain", 500, [("content-type", "text/plain")]), 500, None, b"plain"),
        (("gone", 204), 204, HTML, b""),
        ((None, 202), 202, None, b""),
        ((Response("r"), 203), 203, "text/plain; charset=utf-8", b"r"),
    ],
)
def test_what_may_be_returned(returned, status, content_type, body):
    found = answered(returned)
    assert (found[0], found[1].get("Content-Type"), found[2]) == (status, content_type, body)


def test_json_knows_what_handlers_have_at_hand():
    one = uuid.UUID(int=1)
    assert answered({"at": datetime(2026, 1, 2, tzinfo=UTC), "id": one})[2] == (
        f'{{"at":"2026-01-02T00:00:00Z","id":"{one}"}}'.encode()
    )


def test_a_response_of_werkzeug_is_itself():
    closed: list[int] = []
    response = Response("body", status=202, headers={"X-A": "b", "Set-Cookie": "c=d"}, mimetype="text/css")
    response.set_cookie("e", "f")
    response.call_on_close(lambda: closed.append(1))
    response = response_of(response, REQUEST)
    assert (response.status, response.body) == (202, b"body")
    assert ("X-A", "b") in response.headers
    assert [value for name, value in response.headers if name == "Set-Cookie"] == ["c=d", "e=f; Path=/"]
    assert response.on_close is not None
    response.on_close()
    assert closed == [1]


def test_an_http_exception_is_a_response():
    assert answered(NotFound("nothing here"))[0] == 404
    status, headers, body = answered(Unauthorized(response=Response("own", 403, {"X-A": "b"})))
    assert (status, headers["X-A"], body) == (403, "b", b"own")


def test_a_stream_is_passed_on_part_by_part_and_closed():
    steps: list[object] = []

    def parts() -> Any:
        try:
            for part in ("a", b"b", bytearray(b"c")):
                steps.append(part)
                yield part
        finally:
            steps.append("closed")

    response = response_of(parts(), REQUEST)
    assert not isinstance(response.body, bytes)
    assert steps == []
    assert next(response.body) == b"a"
    assert steps == ["a"]
    assert next(response.body) == b"b"
    assert response.on_close is not None
    response.on_close()
    assert steps == ["a", b"b", "closed"]


def test_a_streamed_response_keeps_the_length_it_promised():
    status, headers, body = answered(Response((part for part in ("ab", "c")), headers={"Content-Length": "3"}))
    assert (status, headers["Content-Length"], body) == (200, "3", b"abc")
    assert "Content-Length" not in answered(Response(part for part in ("ab", "c")))[1]


def test_bodiless_responses_have_no_body_whatever_was_returned():
    for status in (204, 304):
        assert answered(Response("body", status))[::2] == (status, b"")
        assert answered(("body", status))[::2] == (status, b"")


@pytest.mark.parametrize("length", ["three", "-1", "1, 1", "", "٣"])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(BadHandlerResponse):
        response_of(Response(iter(["abc"]), headers={"Content-Length": length}), REQUEST)


def test_headers_of_the_connection_and_the_length_are_the_fronts():
    own = {"Connection": "close", "transfer-encoding": "chunked", "Upgrade": "x", "Content-Length": "99", "X-A": "b"}
    assert set(answered(("body", own))[1]) == {"Content-Type", "X-A"}
    assert set(answered(Response("body", headers=own))[1]) == {"Content-Type", "X-A"}


def test_headers_may_be_repeated_and_be_numbers():
    headers = Headers([("X-A", "1"), ("X-A", "2")])
    headers.add("X-B", 3)
    assert response_of(("x", headers), REQUEST).headers == [
        ("Content-Type", HTML), ("X-A", "1"), ("X-A", "2"), ("X-B", "3"),
    ]  # fmt: skip
    assert ("Age", "7") in response_of(("x", {"Age": 7}), REQUEST).headers


@pytest.mark.parametrize(
    "returned",
    [
        object(), 7, True, 1.5, {1, 2}, range(3), print,
        (), ("a",), ("a", 200, {}, 1), (("a", 200), 200),
        ("a", 99), ("a", 100), ("a", 101), ("a", 199), ("a", 600), ("a", "OK"), ("a", "2000"), ("a", True),
        ("a", None, {}), ("a", 3.5), ("a", ["abc"]), ("a", [("x", "y", "z")]), ("a", {1: "x"}),
        ("a", {"X A": "b"}), ("a", {"": "b"}), ("a", {"X-A": "b\r\nSet-Cookie: c"}), ("a", {"X-A": "\x00"}),
        ("a", {"X-A": "€"}), ("a", {"X-Ä": "b"}), ({"a": object()}, 200), {"a": float},
    ],
)  # fmt: skip
def test_what_must_not_be_returned(returned):
    with pytest.raises(BadHandlerResponse):
        response_of(returned, REQUEST)


def test_a_recursive_structure_is_refused():
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(BadHandlerResponse):
        response_of(endless, REQUEST)


def test_a_stream_of_something_else_fails_where_it_is_met():
    response = response_of(iter(["a", 1]), REQUEST)
    assert next(iter(response.body)) == b"a"
    with pytest.raises(BadHandlerResponse):
        next(iter(response.body))  # type: ignore[arg-type]


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@given(json_like | st.tuples(json_like, st.integers(0, 999), st.dictionaries(st.text(max_size=5), st.text(max_size=5))))
def test_any_value_is_a_response_or_refused_and_no_response_splits_its_head(returned):
    try:
        response = response_of(returned, REQUEST)
    except BadHandlerResponse:
        return
    assert isinstance(response, HandlerResponse)
    assert 200 <= response.status <= 599
    for name, value in response.headers:
        assert name.isascii() and name.isprintable() and " " not in name
        assert not set(value) & set("\r\n\0")
        value.encode("latin-1")


def test_a_streamed_body_that_the_response_must_not_have_is_closed_unread():
    closed = []

    def parts():
        try:
            yield b"x"
        finally:
            closed.append(True)

    body = parts()
    next(body)
    response = response_of((body, 204), REQUEST)
    assert (response.status, response.body) == (204, b"")
    assert response.on_close is not None
    response.on_close()
    assert closed


@pytest.mark.parametrize("parts", [[], [b"abc"], [b"abc", b"def"], [b"abcdef"]])
def test_a_body_of_another_length_than_it_promised_breaks_off_before_what_is_too_much(parts):
    response = response_of(Response(iter(parts), headers={"Content-Length": "4"}), REQUEST)
    sent = []
    with pytest.raises(BadHandlerResponse, match="the 4 bytes"):
        for part in response.body:
            sent.append(part)
    assert len(b"".join(sent)) <= 4


def test_a_body_of_the_promised_length_is_passed_on():
    response = response_of(Response(iter([b"ab", b"", b"cd"]), headers={"Content-Length": "4"}), REQUEST)
    assert b"".join(response.body) == b"abcd"


def test_an_http_exception_without_a_status_is_refused():
    with pytest.raises(BadHandlerResponse, match="no status"):
        response_of(HTTPException("of no kind"), REQUEST)
