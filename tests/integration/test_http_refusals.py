"""Refused requests: each gets its status, and nothing of it reaches an origin, however it arrives."""

import json
import random
from contextlib import ExitStack

import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_origin import Client, Origin, client_of, fresh_path, get, start_edge
from tests.unit.http1_corpus import ACCEPTED, BAD_CHUNKS, REFUSED, post

EDGE_OWN = b"X-Forwarded-For"
"""Stands in every head that the edge has forwarded, once."""


class Scene:
    """An edge before one origin, for all requests of the corpus."""

    def __init__(self, folder, stack):
        self.origin = Origin()
        stack.callback(self.origin.close)
        config = {"frontends": [frontend("web", "web", protocol="http")], "backends": [pool("web", self.origin.port)]}
        self.edge = start_edge(folder, config)
        stack.callback(self.edge.kill)

    def client(self):
        return client_of(self.edge)

    def heard_since(self, before):
        """Return what the origin got until a good request, sent now over another connection, came to it."""
        path = fresh_path()
        with self.client() as other:
            assert other.ask(get(path)).status == 200
        heard = bytes(self.origin.bytes[before:])
        own = self.origin.one(path).head
        assert heard.endswith(own)
        return heard[: -len(own)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("refusals"), stack)


def refusal(client: Client) -> tuple[int, str]:
    """Read the edge's own answer, and the end of the connection; returns status and reason."""
    message = client.response()
    said = json.loads(message.body)
    assert said["status"] == message.status
    assert message["connection"] == "close"
    assert client.rest() == b""
    return message.status, said["reason"]


def named(case) -> str:
    return f"{case.section}:{case.raw[:60]!r}"


@pytest.mark.parametrize("case", REFUSED, ids=named)
def test_a_refused_request_gets_its_status_and_the_origin_nothing(scene, case):
    before = len(scene.origin.bytes)
    with scene.client() as client:
        client.send(case.raw)
        assert refusal(client) == (case.status, case.reason)
    assert scene.heard_since(before) == b""


def test_a_refused_request_that_comes_byte_by_byte_is_refused_all_the_same(scene):
    before = len(scene.origin.bytes)
    for case in REFUSED:
        with scene.client() as client:
            for at in range(min(len(case.raw), 300)):
                client.send(case.raw[at : at + 1])
            client.send(case.raw[300:])
            assert refusal(client) == (case.status, case.reason), case
    assert scene.heard_since(before) == b""


def test_a_refused_request_that_comes_in_two_pieces_is_refused_all_the_same(scene):
    before = len(scene.origin.bytes)
    randomly = random.Random(9112)
    for case in REFUSED:
        with scene.client() as client, scene.client() as meanwhile:
            cut = randomly.randrange(1, case.raw.index(b"\r\n\r\n") + 4)
            client.send(case.raw[:cut])
            meanwhile.send(b"GET\r\n\r\n")
            assert refusal(meanwhile) == (400, "request_line")  # so the edge has seen the first piece
            client.send(case.raw[cut:])
            assert refusal(client) == (case.status, case.reason), (case, cut)
    assert scene.heard_since(before) == b""


def test_what_is_refused_behind_a_good_request_in_one_go_does_not_reach_the_origin(scene):
    for case in REFUSED:
        before, path = len(scene.origin.bytes), fresh_path()
        with scene.client() as client:
            client.send(get(path) + case.raw)
            assert client.response().body == path.encode()
            assert refusal(client) == (case.status, case.reason), case
        assert bytes(scene.origin.bytes[before:]) == scene.origin.one(path).head, case
    assert scene.heard_since(len(scene.origin.bytes)) == b""


@pytest.mark.parametrize("case", REFUSED[::20], ids=named)
def test_a_connection_that_has_served_good_requests_ends_with_a_refused_one(scene, case):
    paths = [fresh_path() for _ in range(3)]
    with scene.client() as client:
        assert [client.ask(get(path)).body.decode() for path in paths] == paths
        before = len(scene.origin.bytes)
        client.send(case.raw + get(fresh_path()))
        assert refusal(client) == (case.status, case.reason)
    assert scene.heard_since(before) == b""


@pytest.mark.parametrize("case", ACCEPTED, ids=named)
def test_the_good_requests_of_the_corpus_arrive_once_and_the_connection_goes_on(scene, case):
    method, version = case.raw.split(b" ")[0], case.raw.split(b"\r\n")[0][-3:]
    seen, before, path = len(scene.origin.requests), len(scene.origin.bytes), fresh_path()
    with scene.client() as client:
        client.send(case.raw + get(path))
        assert client.response(has_body=method != b"HEAD").status == 200
        if version != b"1.0":
            assert client.response().body == path.encode()
        else:
            assert client.rest() == b""
    arrived = scene.origin.requests[seen:]
    assert [one.path for one in arrived] == [case.target.decode(), path][: 1 if version == b"1.0" else 2]
    assert arrived[0].line == f"{method.decode()} {case.target.decode()} HTTP/1.1"
    assert arrived[0].body == (b"hello" if case.body.startswith(b"5\r\n") else case.body.removeprefix(b"0\r\n\r\n"))
    assert arrived[0]["host"] == (case.host.decode() or "{}:{}".format(*scene.edge.address))
    assert scene.origin.bytes[before:].count(EDGE_OWN + b":") == len(arrived)


# Chunks


def whole_requests_since(scene, seen: int) -> list[str]:
    return [request.path for request in scene.origin.requests[seen:]]


@pytest.mark.parametrize("section, body, reason", BAD_CHUNKS)
def test_a_bad_chunk_that_comes_with_its_head_is_refused_before_anything_is_forwarded(scene, section, body, reason):
    before = len(scene.origin.bytes)
    with scene.client() as client:
        client.send(post(b"Transfer-Encoding: chunked", body=body))
        assert refusal(client) == (400, reason)
    assert scene.heard_since(before) == b""


@pytest.mark.parametrize("section, body, reason", BAD_CHUNKS)
def test_a_bad_chunk_that_comes_later_ends_both_connections_and_the_origin_never_has_a_whole_request(
    scene, section, body, reason
):
    seen, heads = len(scene.origin.requests), len(scene.origin.heads)
    with scene.client() as client:
        client.send(post(b"Transfer-Encoding: chunked"))
        eventually(lambda: len(scene.origin.heads) > heads)
        client.send(body)
        assert refusal(client) == (400, reason)
    half = scene.origin.heads[-1].visit
    eventually(lambda: half in scene.origin.ended, what="the connection of the half request is closed")
    path = fresh_path()
    with scene.client() as other:
        assert other.ask(get(path)).status == 200
    assert whole_requests_since(scene, seen) == [path]


# Smuggling: each is one request, or none, whichever end of it a server goes by

SMUGGLED = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n"


def smuggling(*lines: str, body: str) -> bytes:
    return "\r\n".join(["POST / HTTP/1.1", "Host: shop", *lines, "", body]).encode("latin-1")


def smuggle_nothing(scene, raw: bytes) -> None:
    """Send a request that has another one within; it is refused, and neither gets to the origin."""
    seen, before = len(scene.origin.requests), len(scene.origin.bytes)
    with scene.client() as client:
        client.send(raw)
        assert refusal(client)[0] in (400, 501)
    path = fresh_path()
    with scene.client() as other:
        assert other.ask(get(path)).body == path.encode(), "the answer to somebody else's request"
    assert whole_requests_since(scene, seen) == [path]
    assert b"/smuggled" not in scene.origin.bytes[before:]


@pytest.mark.parametrize(
    "raw",
    [
        # CL.TE: the length spans the smuggled request, the chunks end before it
        smuggling("Content-Length: 46", "Transfer-Encoding: chunked", body="0\r\n\r\n" + SMUGGLED),
        smuggling("Transfer-Encoding: chunked", "Content-Length: 46", body="0\r\n\r\n" + SMUGGLED),
        # TE.CL: the chunk spans it, the length ends before it
        smuggling("Content-Length: 4", "Transfer-Encoding: chunked", body=f"29\r\n{SMUGGLED}\r\n0\r\n\r\n"),
        # TE.TE: one of the two is hidden from one of the servers
        *[
            smuggling("Content-Length: 4", line, body=f"29\r\n{SMUGGLED}\r\n0\r\n\r\n")
            for line in (
                "Transfer-Encoding: xchunked",
                "Transfer-Encoding : chunked",
                "Transfer-Encoding\t: chunked",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: x",
                "Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding:\tchunked",
                "Transfer-Encoding: \x0bchunked",
                " Transfer-Encoding: chunked",
                "X: a\nTransfer-Encoding: chunked",
                "X: a\rTransfer-Encoding: chunked",
                "Transfer-Encoding\r\n: chunked",
                "Transfer-Encoding:\r\n chunked",
                'Transfer-Encoding: "chunked"',
                "Transfer-Encoding: chunked, identity",
                "Transfer-Encoding: \xff chunked",
            )
        ],
        # CL.CL
        smuggling("Content-Length: 0", "Content-Length: 41", body=SMUGGLED),
        smuggling("Content-Length: 41", "Content-Length: 0", body=SMUGGLED),
        smuggling("Content-Length: 0, 41", body=SMUGGLED),
        smuggling("Content-Length: +0", body=SMUGGLED),
        smuggling("Content-Length: -41", body=SMUGGLED),
        smuggling("Content-Length:\r\n 41", body=SMUGGLED),
    ],
    ids=repr,
)
def test_nothing_is_smuggled_in_a_head(scene, raw):
    smuggle_nothing(scene, raw)


@pytest.mark.parametrize(
    "end",
    [
        "0\r\n\n",
        "0\n\r\n",
        "0\n\n",
        "0 \r\n\r\n",
        "00000000000000000\r\n\r\n",
        "0x0\r\n\r\n",
        "-0\r\n\r\n",
        "0;\r\n\r\n",
        "0;a\n\r\n\r\n",
        "0\r\n\r",
        "0\r\nX\r\n\r\n",
        "0\r\nContent-Length: 41\r\n\r\n",
        "0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "0\r\nHost: b\r\n\r\n",
        "1\r\naa0\r\n\r\n",
        "1\r\na\n0\r\n\r\n",
        "10000000000000001\r\na\r\n0\r\n\r\n",
    ],
    ids=repr,
)
def test_nothing_is_smuggled_behind_what_a_lax_server_takes_for_the_last_chunk(scene, end):
    smuggle_nothing(scene, smuggling("Transfer-Encoding: chunked", body=end + SMUGGLED))


def test_a_header_that_only_resembles_one_of_framing_frames_nothing(scene):
    """An underscore is no hyphen: the length holds, and what follows it is the next request of the same client."""
    seen = len(scene.origin.requests)
    with scene.client() as client:
        client.send(smuggling("Content-Length: 5", "Transfer_Encoding: chunked", body="0\r\n\r\n") + get("/next"))
        assert [client.response().body for _ in range(2)] == [b"/", b"/next"]
    assert whole_requests_since(scene, seen) == ["/", "/next"]
    assert scene.origin.requests[seen].body == b"0\r\n\r\n"


# Too long, too early


def head_of_size(size: int, path: str) -> bytes:
    without = get(path, "X: ")
    return get(path, "X: " + "a" * (size - len(without)))


def test_a_head_of_the_longest_size_passes_and_one_byte_more_is_431(scene):
    path = fresh_path()
    with scene.client() as client:
        longest = head_of_size(32_768, path)
        assert len(longest) == 32_768
        assert client.ask(longest).body == path.encode()
        before = len(scene.origin.bytes)
        client.send(head_of_size(32_769, path))
        assert refusal(client) == (431, "head_too_long")
    assert scene.heard_since(before) == b""


def test_a_head_without_end_is_431_and_the_connection_ends(scene):
    with scene.client() as client:
        client.send(get("/")[:-2] + b"X: " + b"a" * 40_000)
        assert refusal(client) == (431, "head_too_long")


def test_many_short_headers_pass(scene):
    path = fresh_path()
    with scene.client() as client:
        assert client.ask(get(path, *[f"X-{number}: {number}" for number in range(2000)])).status == 200
    request = scene.origin.one(path)
    assert [value for name, value in request.headers if name.startswith("x-") and name[2:].isdigit()] == [
        str(number) for number in range(2000)
    ]


@pytest.mark.parametrize("empty", [b"\r\n", b"\r\n\r\n", b"\r\n" * 50])
def test_empty_lines_before_a_request_are_skipped(scene, empty):
    first, second = fresh_path(), fresh_path()
    with scene.client() as client:
        assert client.ask(empty + get(first)).body == first.encode()
        assert client.ask(empty + get(second)).body == second.encode()


def test_empty_lines_count_as_a_part_of_the_head_that_never_ends(scene):
    with scene.client() as client:
        client.send(b"\r\n" * 20_000)
        assert refusal(client) == (431, "head_too_long")


@pytest.mark.parametrize("empty", [b"\n", b"\r", b"\n\r\n", b"\r\r\n"])
def test_a_bare_cr_or_lf_before_a_request_is_refused_like_one_within(scene, empty):
    with scene.client() as client:
        client.send(empty + get(fresh_path()))
        assert refusal(client)[0] == 400


def test_a_client_that_leaves_within_a_head_gets_nothing_forwarded(scene):
    before = len(scene.origin.bytes)
    with scene.client() as client:
        client.send(get(fresh_path())[:-1])
    assert scene.heard_since(before) == b""
