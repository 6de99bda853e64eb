"""How long an HTTP frontend waits: for a head, for the next request, for an answer; and how each of these ends."""

import json
import random
import time
from contextlib import ExitStack

import gevent
import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_origin import (
    Origin,
    client_of,
    fresh_path,
    get,
    post,
    request_line,
    response,
    start_edge,
)

QUICK = "300ms"
LONG_AFTER_SECONDS = 0.5
"""Well after a quick timeout."""


class Scene:
    """Frontends that lose patience quickly, each with one thing."""

    def __init__(self, folder, stack):
        self.origin = Origin()
        stack.callback(self.origin.close)

        def web(name, **http):
            return frontend(name, "web", protocol="http", http=http)

        config = {
            "frontends": [
                web("heads", head_timeout=QUICK),
                web("pauses", keep_alive_timeout=QUICK),
                web("answers", response_timeout=QUICK),
                frontend("quiet", "web", protocol="http", tcp={"idle_timeout": QUICK}),
            ],
            "backends": [pool("web", self.origin.port)],
        }
        self.edge = start_edge(folder, config)
        stack.callback(self.edge.kill)

    def client(self, frontend):
        return client_of(self.edge, frontend)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with ExitStack() as stack:
        yield Scene(tmp_path_factory.mktemp("timeouts"), stack)


def drip(client, data, done, pause=0.05):
    """Send byte by byte until `done()`, or all is sent."""
    for at in range(len(data)):
        if done():
            return
        client.send(data[at : at + 1])
        gevent.sleep(pause)


def dripped_response(client, data):
    """Return the answer to what is sent byte by byte, slowly; it may come before all is sent."""
    reading = gevent.spawn(client.response)
    drip(client, data, reading.ready)
    return reading.get(timeout=10)


def test_a_connection_that_is_kept_busy_is_not_quiet(scene):
    with scene.client("quiet") as client:
        deadline = time.monotonic() + 4 * LONG_AFTER_SECONDS
        while time.monotonic() < deadline:
            assert client.ask(get(fresh_path())).status == 200
            gevent.sleep(0.02)


# The head


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", get("/")[:-1]])
def test_a_head_that_stops_coming_is_408_and_the_connection_ends(scene, sent):
    before = len(scene.origin.bytes)
    with scene.client("heads") as client:
        message = client.ask(sent)
        assert (message.status, message["connection"]) == (408, "close")
        assert json.loads(message.body)["reason"] == "head_timeout"
        assert client.rest() == b""
    assert len(scene.origin.bytes) == before


def test_there_is_one_deadline_for_the_whole_head(scene):
    with scene.client("heads") as client:
        assert dripped_response(client, get("/", "X: " + "a" * 200)).status == 408


def test_the_deadline_holds_for_a_later_head_too(scene):
    with scene.client("heads") as client:
        for _ in range(2):
            assert client.ask(get(fresh_path())).status == 200
        assert dripped_response(client, get("/", "X: " + "a" * 200)).status == 408


def test_the_deadline_holds_for_a_head_that_began_to_come_with_the_request_before(scene):
    path = fresh_path()
    with scene.client("heads") as client:
        assert client.ask(get(path) + b"GET / HT").body == path.encode()
        assert client.response().status == 408


def test_a_connection_that_sends_nothing_ends_without_an_answer_or_a_line(scene):
    with scene.client("heads") as client:
        assert client.rest() == b""


def test_empty_lines_do_not_hold_a_connection(scene):
    with scene.client("heads") as client:
        ended = gevent.spawn(client.rest)
        drip(client, b"\r\n" * 12, ended.ready)
        assert ended.ready()


def test_a_slow_head_that_is_whole_in_time_is_served(scene):
    path = fresh_path()
    with scene.client("heads") as client:
        drip(client, get(path)[:4], lambda: False, pause=0.02)
        assert client.ask(get(path)[4:]).body == path.encode()


def test_the_heads_deadline_does_not_count_for_the_body_or_the_answer(scene):
    def answer_late(visit, request):
        visit.read_body(request)
        gevent.sleep(LONG_AFTER_SECONDS)
        visit.send(response(request.body))

    path = scene.origin.on(answer_late)
    with scene.client("heads") as client:
        request = post(path, b"hello")
        client.send(request[:-4])
        gevent.sleep(LONG_AFTER_SECONDS)
        assert client.ask(request[-4:]).body == b"hello"
        gevent.sleep(LONG_AFTER_SECONDS)
        assert client.ask(get(fresh_path())).status == 200, "nor for the pause between two requests"


# Between two requests


def test_a_kept_connection_that_brings_no_request_ends_silently(scene):
    with scene.client("pauses") as client:
        assert client.ask(get(fresh_path())).status == 200
        assert client.rest() == b""


def test_the_pause_before_the_first_request_is_the_heads(scene):
    with scene.client("pauses") as client:
        gevent.sleep(LONG_AFTER_SECONDS)
        assert client.ask(get(fresh_path())).status == 200


def test_requests_in_time_keep_a_connection(scene):
    with scene.client("pauses") as client:
        for _ in range(5):
            assert client.ask(get(fresh_path())).status == 200
            gevent.sleep(0.1)


# The answer


def never(visit, request):
    visit.read_body(request)
    visit.wire.to_end()
    return True


def test_a_backend_that_does_not_answer_is_504_and_the_connection_goes_on(scene):
    path = scene.origin.on(never)
    with scene.client("answers") as client:
        message = client.ask(get(path))
        assert (message.line, message["connection"]) == ("HTTP/1.1 504 Gateway Timeout", None)
        said = json.loads(message.body)
        assert (said["reason"], said["request_id"]) == ("response_timeout", scene.origin.one(path)["x-request-id"])
        assert client.ask(get(fresh_path())).status == 200
    visit = scene.origin.one(path).visit
    eventually(lambda: visit in scene.origin.ended, what="the connection that still owes an answer is closed")
    line = request_line(scene.edge, path)
    assert (line["status"], line["termination"], line["reason"]) == (504, "sW", "response_timeout")
    assert line["duration_ms"] >= 300


def test_a_backend_that_says_nothing_to_a_client_that_waits_for_100_is_504(scene):
    def silent(visit, request):
        visit.wire.to_end()
        return True

    path = scene.origin.on(silent)
    with scene.client("answers") as client:
        client.send(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n".encode())
        assert client.response().status == 504


def test_a_head_of_an_answer_that_stops_coming_is_504(scene):
    def half_a_head(visit, request):
        visit.send(b"HTTP/1.1 200 OK\r\nContent-Le")
        visit.wire.to_end()
        return True

    path = scene.origin.on(half_a_head)
    with scene.client("answers") as client:
        assert client.ask(get(path)).status == 504


def test_interim_answers_without_end_are_502(scene):
    path = scene.origin.on(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 10_000)
    with scene.client("answers") as client:
        client.send(get(path))
        while (head := client.head()).status == 103:
            pass
        assert head.status == 502
    assert request_line(scene.edge, path)["reason"] == "too_many_interim_responses"


def test_an_interim_answer_is_progress(scene):
    """A backend that says that it works is not late (RFC 9110, section 15.2)."""

    def works_on(visit, request):
        for _ in range(70):
            visit.send(b"HTTP/1.1 102 Processing\r\n\r\n")
            gevent.sleep(LONG_AFTER_SECONDS / 50)
        visit.send(response(b"done"))

    path = scene.origin.on(works_on)
    with scene.client("answers") as client:
        client.send(get(path))
        interim = 0
        while (head := client.head()).status == 102:
            interim += 1
        assert (head.status, interim) == (200, 70)


def test_an_answer_whose_head_came_in_time_may_take_longer(scene):
    def slow_body(visit, request):
        visit.send(response(b"a", length=2))
        gevent.sleep(LONG_AFTER_SECONDS)
        visit.send(b"b")

    path = scene.origin.on(slow_body)
    with scene.client("answers") as client:
        assert client.ask(get(path)).body == b"ab"


def test_the_wait_for_an_answer_begins_when_the_request_is_sent(scene):
    path = scene.origin.on(response(b"thanks"))
    with scene.client("answers") as client:
        client.send(get(path, "Content-Length: 16", method="PUT"))
        assert dripped_response(client, b"sixteen bytes ..").body == b"thanks"
    assert scene.origin.one(path).body == b"sixteen bytes .."


def test_a_wait_that_is_over_does_not_end_the_next_request(scene):
    """Answers come around the timeout, so that some are read in the very turn in which they are missed."""
    randomly = random.Random(504)

    def about_then(visit, request):
        visit.read_body(request)
        gevent.sleep(randomly.uniform(0.29, 0.38))
        visit.send(response(b"late"))

    late, statuses, wrong = scene.origin.on(about_then), set(), []

    def ask():
        with scene.client("answers") as client:
            for _ in range(5):
                path = fresh_path()
                client.send(get(late) + get(path))
                statuses.add(client.response().status)
                try:
                    second = client.response().body
                except EOFError as end:
                    wrong.append(end)
                    return
                if second != path.encode():
                    wrong.append(second)

    asking = [gevent.spawn(ask) for _ in range(120)]
    gevent.joinall(asking, raise_error=True)
    assert wrong == []
    assert statuses == {200, 504}


def test_an_unanswered_post_is_not_sent_again(scene):
    path = scene.origin.on(never)
    with scene.client("answers") as client:
        assert client.ask(post(path, b"once")).status == 504
    assert len(scene.origin.got(path)) == 1


# Silence


def test_an_answer_that_stops_coming_ends_in_a_reset(scene):
    def stuck(visit, request):
        visit.send(response(b"a", length=2))
        visit.wire.to_end()
        return True

    path = scene.origin.on(stuck)
    with scene.client("quiet") as client:
        client.send(get(path))
        assert client.head().status == 200
        with pytest.raises(ConnectionResetError):
            client.rest()
    line = request_line(scene.edge, path)
    assert (line["status"], line["termination"], line["reason"]) == (200, "tD", "idle_timeout")
