"""What goes in comes out, both ways, at any framing and chunking, at a bounded cost; what is cut short looks so."""

from __future__ import annotations

import hashlib
import os
import random
from contextlib import suppress

import gevent
import pytest
from gevent.event import Event

from tests.harness import eventually, pool
from tests.integration.http_peers import (
    Origin,
    chunk,
    client_of,
    head,
    http_edge,
    leases,
    live,
    request_line,
    say_who,
)
from tests.integration.peers import await_idle, read_until_reset, reset
from tests.integration.test_copying_backpressure import KERNEL_BUFFERS, MEGABYTE, OUR_MEMORY, send_until_stuck

SIZES = [0, 1, 65_535, 65_536, 262_143, 262_145, (1 << 20) + 7]
"""Around the edge's buffer and around where it begins to splice."""
CONTENT = MEGABYTE * 2


@pytest.fixture(scope="module")
def origin():
    origin = Origin()
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, origin):
    config = {
        "frontends": [
            live("web", "web", http={"response_timeout": "30s"}),
            live("hasty", "web", http={"response_timeout": "300ms"}),
        ],
        "backends": [pool("web", origin.port)],
    }
    with http_edge(tmp_path_factory.mktemp("bodies"), config) as proxy:
        yield proxy


def digest(pieces):
    found = hashlib.sha256()
    size = 0
    for piece in pieces:
        found.update(piece)
        size += len(piece)
    return f"{size} {found.hexdigest()}"


def cut(content, most, chance):
    """Give the content in pieces of random size."""
    at = 0
    while at < len(content):
        size = chance.randint(1, most)
        yield content[at : at + size]
        at += size


def send_body(sock, pieces, *, is_chunked):
    for piece in pieces:
        sock.sendall(chunk(piece) if is_chunked else piece)
    if is_chunked:
        sock.sendall(b"0\r\n\r\n")


def framing(size, *, is_chunked):
    return "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {size}"


def resident_bytes(proxy):
    with open(f"/proc/{proxy.process.pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def close(sock):
    sock.close()


def send_on(sock):
    """Send until the connection fails."""
    with suppress(OSError):
        while True:
            sock.sendall(MEGABYTE)


def tell_digest(request):
    """Answer with size and SHA-256 of the request's body."""
    request.response(digest(request.pieces()).encode())


# Equal in and out


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_uploads_and_downloads_of_any_size_and_piece_arrive_whole(proxy, origin, is_chunked):
    chance = random.Random(3)

    def part(request):
        """Give the body back when it has come."""
        content = b"".join(request.pieces())
        request.sock.sendall(head("HTTP/1.1 200 OK", framing(len(content), is_chunked=is_chunked)))
        send_body(request.sock, cut(content, max(1, len(content) // 5), chance), is_chunked=is_chunked)

    origin.play(part)
    with client_of(proxy) as client:
        for size in SIZES:
            at = chance.randrange(1 << 20)
            content = CONTENT[at : at + size]
            for most in (size // 9 + 1, size + 1):
                client.send(head("PUT / HTTP/1.1", "Host: x", framing(size, is_chunked=is_chunked)))
                send_body(client.sock, cut(content, most, chance), is_chunked=is_chunked)
                response = client.read()
                assert (response.status, len(response.body), response.body == content) == (200, size, True)
    assert len(set(origin.used)) == 1, "bodies of every kind leave a connection that can be used again"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_64_mib_up_and_down_at_once_come_out_as_they_went_in(proxy, origin, is_chunked):
    size = 64 << 20
    pieces = [MEGABYTE[n * 999 :] + MEGABYTE[: n * 999] for n in range(64)]

    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", framing(size, is_chunked=is_chunked)))
        send_body(request.sock, request.pieces(), is_chunked=is_chunked)

    origin.play(part)
    with client_of(proxy) as client:
        client.send(head("POST /echo HTTP/1.1", "Host: x", framing(size, is_chunked=is_chunked)))
        sender = gevent.spawn(send_body, client.sock, pieces, is_chunked=is_chunked)
        response = client.read_head()
        assert digest(client.wire.body(response.headers, {})) == digest(pieces)
        sender.get(timeout=10)


def test_traffic_of_all_kinds_at_once_does_not_mix(proxy, origin):
    """Every client knows its own content again, whatever the size and framing of its requests and answers."""

    def part(request):
        body = b"".join(request.pieces())
        is_chunked = len(body) % 3 == 0
        ends = len(body) % 7 == 0
        connection = "close" if ends else "keep-alive"
        request.sock.sendall(
            head("HTTP/1.1 200 OK", framing(len(body), is_chunked=is_chunked), f"Connection: {connection}")
        )
        send_body(request.sock, cut(body, 100_000, random.Random(len(body))), is_chunked=is_chunked)
        return ends

    def work(number):
        chance = random.Random(number)
        with client_of(proxy) as client:
            for _ in range(15):
                size = chance.choice([0, chance.randrange(1000), chance.randrange(600_000)])
                at = chance.randrange(1 << 20)
                content, is_chunked = CONTENT[at : at + size], chance.random() < 0.5
                client.send(head("PUT /mixed HTTP/1.1", "Host: x", framing(size, is_chunked=is_chunked)))
                sender = gevent.spawn(send_body, client.sock, cut(content, 50_000, chance), is_chunked=is_chunked)
                response = client.read()
                sender.get(timeout=10)
                outcomes.append((response.status, response.body == content))

    outcomes = []
    origin.play(part)
    for job in [gevent.spawn(work, number) for number in range(8)]:
        job.get(timeout=30)
    assert outcomes == [(200, True)] * 120


def test_a_body_that_ends_with_the_connection_is_whole(proxy, origin):
    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK") + CONTENT)
        return True

    origin.play(part)
    with client_of(proxy) as client:
        response = client.ask()
        assert (response.headers["connection"], response.body == CONTENT) == ("close", True)


def test_thousands_of_small_chunks_arrive_in_both_directions(proxy, origin):
    chance = random.Random(5)
    content = CONTENT[:30_000]

    def part(request):
        body = b"".join(request.pieces())
        request.sock.sendall(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked"))
        send_body(request.sock, cut(body, 10, chance), is_chunked=True)

    origin.play(part)
    with client_of(proxy) as client:
        client.send(head("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"))
        sender = gevent.spawn(send_body, client.sock, cut(content, 10, chance), is_chunked=True)
        assert client.read().body == content
        sender.get(timeout=10)


def test_trailers_and_chunk_extensions_change_nothing_and_trailers_arrive(proxy, origin):
    body = b'3;a=b\r\nabc\r\n4;q="x;y"\r\ndefg\r\n0;last\r\nX-Sum: 7\r\nX-More: yes\r\n\r\n'

    def part(request):
        assert b"".join(request.pieces()) == b"abcdefg"
        assert request.trailers == {"x-sum": "7", "x-more": "yes"}
        request.sock.sendall(head("HTTP/1.1 200 OK", "Transfer-Encoding: chunked") + body)

    origin.play(part)
    with client_of(proxy) as client:
        for _ in range(2):
            client.send(head("POST / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked") + body)
            response = client.read()
            assert (response.body, response.trailers) == (b"abcdefg", {"x-sum": "7", "x-more": "yes"})
    assert origin.used[0] == origin.used[1]


# Time


def test_a_body_dripped_for_longer_than_the_answer_may_take_is_served(proxy, origin):
    """The backend has the time for its answer from the end of the request on: it cannot answer before."""
    origin.play(tell_digest)
    with client_of(proxy, frontend="hasty") as client:
        client.send(head("POST /dripped HTTP/1.1", "Host: x", "Content-Length: 10"))
        for _ in range(10):
            gevent.sleep(0.15)
            client.send(b"x")
        response = client.read()
    assert (response.status, response.body) == (200, digest([b"x" * 10]).encode())


def test_a_backend_that_is_silent_after_the_last_byte_of_a_body_is_late(proxy, origin):
    def part(request):
        body = b"".join(request.pieces())
        assert request.wire.some() == b"", body
        return True

    origin.play(part)
    with client_of(proxy, frontend="hasty") as client:
        client.send(head("POST /silent HTTP/1.1", "Host: x", "Transfer-Encoding: chunked"))
        client.send(chunk(b"x"))
        eventually(lambda: origin.requests)
        client.send(b"0\r\n\r\n")
        response = client.read()
        assert (response.status, b"response_timeout" in response.body) == (504, True)
    assert origin.await_end() is None


def test_a_backend_that_takes_no_more_of_a_body_is_late(proxy, origin):
    """Frozen, for example. It is the backend that everybody waits for, not the client."""
    may_end = Event()
    origin.play(lambda request: may_end.wait(20))
    with client_of(proxy, frontend="hasty") as client:
        client.send(head("POST /frozen HTTP/1.1", "Host: x", f"Content-Length: {1 << 30}"))
        client.sock.settimeout(3)
        sender = gevent.spawn(send_on, client.sock)
        try:
            assert client.read().status == 504
        finally:
            may_end.set()
            sender.kill()


def test_a_dripped_answer_is_passed_on_as_it_comes(proxy, origin):
    go_on = Event()

    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", "Content-Length: 10"))
        for number in range(10):
            request.sock.sendall(b"%d" % number)
            assert go_on.wait(10)
            go_on.clear()

    origin.play(part)
    with client_of(proxy) as client:
        client.send(head("GET / HTTP/1.1", "Host: x"))
        client.read_head()
        for number in range(10):
            assert client.wire.some() == b"%d" % number
            go_on.set()


# An answer before the end of the request


@pytest.mark.parametrize("ends", [True, False], ids=["backend closes", "backend reads nothing"])
def test_an_answer_given_while_the_body_still_comes_arrives_and_ends_the_connection(proxy, origin, ends):
    is_read = Event()

    def part(request):
        request.response(b"too big", "Connection: close", status="413 Content Too Large")
        if not ends:
            assert is_read.wait(10)
        return True

    origin.play(part)
    target = f"/early-{ends}"
    with client_of(proxy) as client:
        client.send(head(f"POST {target} HTTP/1.1", "Host: x", f"Content-Length: {1 << 30}") + MEGABYTE)
        response = client.read()
        is_read.set()
        assert (response.status, response.body) == (413, b"too big")
        assert response.headers["connection"] == "close"
        assert client.has_ended()
    assert request_line(proxy, target)["status"] == 413
    assert origin.await_end() is None


@pytest.mark.parametrize("leave", [close, reset])
def test_a_backend_that_leaves_within_an_upload_is_a_bad_gateway_and_the_client_hears_of_it(proxy, origin, leave):
    def part(request):
        assert request.wire.some()
        leave(request.sock)
        return True

    origin.play(part)
    with client_of(proxy) as client:
        client.send(head("POST / HTTP/1.1", "Host: x", f"Content-Length: {1 << 30}") + MEGABYTE)
        response = client.read()
        assert (response.status, response.headers["connection"]) == (502, "close")
        assert client.has_ended()


def test_a_connection_with_an_unread_body_is_not_used_again(proxy, origin):
    def part(request):
        request.response(str(request.connection).encode())

    origin.play(part)
    for _ in range(2):
        with client_of(proxy) as client:
            client.send(head("POST / HTTP/1.1", "Host: x", "Content-Length: 100000") + b"half")
            assert client.read().status == 200
    assert origin.used[0] != origin.used[1]


# Back-pressure


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_client_that_does_not_read_stops_the_answer_at_a_bounded_cost(proxy, origin, is_chunked):
    sent = []

    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", framing(1 << 30, is_chunked=is_chunked)))
        if is_chunked:
            request.sock.sendall(b"40000000\r\n")
        sent.append(send_until_stuck(request.sock))
        return True

    origin.play(part)
    with client_of(proxy) as client:
        client.send(head("GET / HTTP/1.1", "Host: x"))
        client.read_head()
        assert len(client.wire.some(100)) > 0
        before = resident_bytes(proxy)
        eventually(lambda: sent)
        assert sent[0] < KERNEL_BUFFERS
        assert resident_bytes(proxy) - before < OUR_MEMORY
        assert proxy.get("/live")[0] == 200
        got = len(read_until_reset(client.sock))
        assert got > sent[0] // 2, "what was queued arrives before the cut"


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_backend_that_does_not_read_stops_the_client_at_a_bounded_cost(proxy, origin, is_chunked):
    may_read, size = Event(), 256 << 20

    def part(request):
        assert may_read.wait(20)
        tell_digest(request)

    origin.play(part)
    with client_of(proxy) as client:
        before = resident_bytes(proxy)
        client.send(head("POST / HTTP/1.1", "Host: x", framing(size, is_chunked=is_chunked)))
        if is_chunked:
            client.send(b"%x\r\n" % size)
        sent = send_until_stuck(client.sock)
        assert sent < KERNEL_BUFFERS
        assert resident_bytes(proxy) - before < OUR_MEMORY
        may_read.set()
        reset(client.sock)
    assert isinstance(origin.await_end(), EOFError | ConnectionError)


def test_small_requests_are_served_beside_a_hot_download(proxy, origin):
    def part(request):
        if request.target != "/hot":
            return say_who(request)
        request.sock.sendall(head("HTTP/1.1 200 OK", f"Content-Length: {1 << 40}"))
        while True:
            request.sock.sendall(MEGABYTE)

    origin.play(part)
    with client_of(proxy) as hot, client_of(proxy) as small:
        hot.send(head("GET /hot HTTP/1.1", "Host: x"))
        hot.read_head()
        reader = gevent.spawn(lambda: sum(len(hot.wire.some()) for _ in range(10**9)))
        before = hot.wire.received
        for _ in range(50):
            assert small.ask().status == 200
        eventually(lambda: hot.wire.received > before + (1 << 20))
        assert not reader.ready()
        reader.kill()


# Ends within a body


@pytest.mark.parametrize("size", [1 << 16, 1 << 26], ids=["copied", "spliced"])
@pytest.mark.parametrize("leave", [close, reset])
def test_a_client_that_vanishes_within_its_upload_is_seen_by_the_backend(proxy, origin, size, leave):
    origin.play(tell_digest)
    target = f"/upload-{size}-{leave.__name__}"
    client = client_of(proxy)
    client.send(head(f"POST {target} HTTP/1.1", "Host: x", f"Content-Length: {size}") + MEGABYTE[: size // 2])
    eventually(lambda: origin.requests)
    leave(client.sock)
    assert isinstance(origin.await_end(), EOFError | ConnectionError)
    line = request_line(proxy, target)
    assert (line["status"], line["termination"][0], line["reason"]) == (None, "C", "client_gone")
    eventually(lambda: leases(proxy) == 0)


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
def test_a_client_that_vanishes_within_its_download_is_seen_by_the_backend(proxy, origin, is_chunked):
    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", framing(1 << 40, is_chunked=is_chunked)))
        while True:
            request.sock.sendall(chunk(MEGABYTE) if is_chunked else MEGABYTE)

    origin.play(part)
    target = f"/download-{is_chunked}"
    with client_of(proxy) as client:
        client.send(head(f"GET {target} HTTP/1.1", "Host: x"))
        client.read_head()
    assert isinstance(origin.await_end(), ConnectionError)
    line = request_line(proxy, target)
    assert (line["status"], line["termination"][0], line["reason"]) == (200, "C", "client_gone")
    eventually(lambda: leases(proxy) == 0)


def test_a_client_that_resets_while_the_answer_pauses_ended_it_within_data(proxy, origin):
    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", "Content-Length: 100000") + b"half")
        assert request.wire.some() == b""
        return True

    origin.play(part)
    client = client_of(proxy)
    client.send(head("GET /pauses HTTP/1.1", "Host: x"))
    client.read_head()
    assert client.wire.some() == b"half"
    reset(client.sock)
    assert origin.await_end() is None
    line = request_line(proxy, "/pauses")
    assert (line["status"], line["termination"], line["reason"]) == (200, "CD", "client_gone")


def test_a_client_that_resets_while_it_waits_is_seen_by_the_backend(proxy, origin):
    def part(request):
        assert request.wire.some() == b""
        return True

    origin.play(part)
    client = client_of(proxy)
    client.send(head("GET /waits HTTP/1.1", "Host: x"))
    eventually(lambda: origin.requests)
    reset(client.sock)
    assert origin.await_end() is None
    line = request_line(proxy, "/waits")
    assert (line["status"], line["termination"], line["reason"]) == (None, "CW", "client_gone")


def test_a_client_that_has_ended_its_side_still_gets_its_answer(proxy, origin):
    origin.play(say_who)
    with client_of(proxy) as client:
        client.send(head("GET / HTTP/1.1", "Host: x"))
        client.sock.shutdown(1)
        response = client.read()
        assert response.status == 200
        assert client.has_ended()


@pytest.mark.parametrize("is_chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("size", [1000, 1 << 22], ids=["small", "large"])
def test_an_answer_that_is_cut_short_is_cut_short_for_the_client(proxy, origin, is_chunked, size):
    def part(request):
        request.sock.sendall(head("HTTP/1.1 200 OK", framing(size, is_chunked=is_chunked)))
        request.sock.sendall(b"%x\r\n" % size * is_chunked + MEGABYTE[: size // 2])
        return True

    origin.play(part)
    target = f"/cut-{size}-{is_chunked}"
    with client_of(proxy) as client, pytest.raises((EOFError, ConnectionError)):
        client.ask(target)
    line = request_line(proxy, target)
    assert (line["status"], line["termination"], line["reason"]) == (200, "SD", "closed_within_response")


def test_nothing_is_left_behind(proxy):
    await_idle(proxy)
    assert not [name for name in proxy.metrics() if "internal_errors" in name]
