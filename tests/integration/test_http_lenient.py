"""Backends that break a rule harmlessly: 502, or a response that keeps the rules where the pool takes the fault."""

from __future__ import annotations

from typing import get_args

import pytest

from app.config.model import Lenience
from tests.harness import pool
from tests.integration.http_peers import Origin, client_of, http_edge, live

PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CASES = {
    "repeated_content_length": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\ncontent-length: 2, 2\r\n\r\nok",
    "folded_headers": b"HTTP/1.1 200 OK\r\nX-A: b  \r\n\t c\r\nContent-Length:\r\n 2\r\n\r\nok",
    "leading_empty_lines": b"\r\n\r\n" + PLAIN,
    "any_status": PLAIN.replace(b"200", b"799"),
    "padded_chunk_sizes": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\t\r\nX-T: 1\r\n\r\n",
}


@pytest.fixture(scope="module")
def origin():
    def answer(request):
        name, _, size = request.target[1:].partition("?")
        data, size = CASES[name], int(size)
        for start in range(0, len(data), size):
            request.sock.sendall(data[start : start + size])

    origin = Origin(answer)
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def edge(tmp_path_factory, origin):
    config = {
        "frontends": [live(name, name) for name in ("strict", *CASES)],
        "backends": [pool("strict", origin.port), *(pool(name, origin.port, lenient=[name]) for name in CASES)],
    }
    with http_edge(tmp_path_factory.mktemp("lenient"), config) as edge:
        yield edge


def test_every_switch_is_tried():
    assert set(CASES) == set(get_args(get_args(Lenience)[0]))


@pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "at once"])
@pytest.mark.parametrize("name", CASES)
def test_a_pool_takes_what_it_names_and_no_other_does(edge, name, size):
    with client_of(edge, frontend=name) as client:
        response = client.ask(f"/{name}?{size}")
        assert (response.status, response.body) == (799 if name == "any_status" else 200, b"ok")
        assert response.headers.get("content-length", "2") == "2"
        assert response.headers.get("x-a", "b") in ("b", "b c")
        assert not response.trailers
        assert client.ask(f"/{name}?{size}").body == b"ok", "the connection is kept"
    others = [other for other in ("strict", *CASES) if other != name]
    for other in others:
        with client_of(edge, frontend=other) as client:
            if name == "padded_chunk_sizes":  # found within the body: the response is cut
                with pytest.raises((EOFError, ConnectionError, AssertionError)):
                    assert client.ask(f"/{name}?{size}").status == 200
            else:
                assert client.ask(f"/{name}?{size}").status == 502, other
