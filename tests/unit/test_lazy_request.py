"""The request of a handler: werkzeug's, made at the first access."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from werkzeug.test import EnvironBuilder
from werkzeug.wrappers import Request

from app.gateway.lazy_request import LazyRequest


class Maker:
    """Makes the WSGI environment of a request, and knows how often it did."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> dict[str, Any]:
        self.count += 1
        builder = EnvironBuilder("/a/b?c=1", method="POST", json={"x": [1]}, headers={"X-One": "1"})
        return dict(builder.get_environ())


def test_it_is_made_at_the_first_look_and_once() -> None:
    make = Maker()
    request = LazyRequest(make)
    assert isinstance(request, Request)
    assert make.count == 0
    assert (request.method, request.path, request.args["c"]) == ("POST", "/a/b", "1")
    assert (request.headers["X-One"], request.get_json(), request.url) == ("1", {"x": [1]}, "http://localhost/a/b?c=1")
    assert request.environ["werkzeug.request"] is request
    assert make.count == 1


@pytest.mark.parametrize("name", ["environ", "headers", "data", "remote_addr", "content_length", "shallow", "cookies"])
def test_whatever_is_looked_at_first_is_as_in_a_request_of_werkzeugs(name: str) -> None:
    make = Maker()
    first, second = getattr(LazyRequest(make), name), getattr(Request(make()), name)
    if name == "environ":
        first, second = first["PATH_INFO"], second["PATH_INFO"]
    assert type(first) is type(second)
    assert name == "headers" or first == second


def test_a_handler_may_keep_things_in_it() -> None:
    request: Any = LazyRequest(Maker())
    request.user = "somebody"
    assert (request.user, request.method, request.user) == ("somebody", "POST", "somebody")


def test_what_a_request_has_not_is_an_attribute_error() -> None:
    request: Any = LazyRequest(Maker())
    for _ in range(2):
        with pytest.raises(AttributeError, match="'LazyRequest' object has no attribute 'nothing'"):
            request.nothing  # noqa: B018
    assert copy.copy(request).path == "/a/b"
