"""Changing the configuration and going down, between and within requests: nobody who was accepted loses an answer."""

from __future__ import annotations

import signal
from collections import Counter
from contextlib import ExitStack

import gevent
import pytest
from gevent.event import Event

from tests.harness import eventually, pool
from tests.integration.http_peers import Origin, chunk, client_of, head, http_edge, live, request_line, whole
from tests.integration.peers import paused


class Backend:
    """An origin that says its name, to /waits only when it may."""

    def __init__(self, name):
        self.may_answer = Event()
        self.waiting = 0
        self._name = name.encode()
        self.origin = Origin(self._answer)

    def _answer(self, request):
        for _ in request.pieces():
            pass
        if request.target.startswith("/waits"):
            self.waiting += 1
            assert self.may_answer.wait(10)
            self.waiting -= 1
        request.response(self._name, f"X-Name: {self._name.decode()}")


@pytest.fixture
def backends():
    with ExitStack() as stack:
        found = {name: Backend(name) for name in "ab"}
        for one in found.values():
            stack.callback(one.origin.close)
        yield found


@pytest.fixture
def config(backends):
    """Return a configuration: `config(web="a", other="b")` has these frontends over these pools."""

    def make(mark="old", /, **pools):
        marks = {"response_headers": {"set": {"X-Mark": mark}}}
        listeners = [live(name, of, http=marks) for name, of in pools.items()]
        return {"frontends": listeners, "backends": [pool(name, one.origin.port) for name, one in backends.items()]}

    return make


@pytest.fixture
def start(tmp_path, config):
    with ExitStack() as stack:
        yield lambda config, **variables: stack.enter_context(http_edge(tmp_path, config, **variables))


def send(client, target):
    client.send(head(f"GET {target} HTTP/1.1", "Host: x"))


def told(response):
    """Return who answered, by which configuration, and what is to become of the connection."""
    return response.body.decode(), response.headers["x-mark"], response.headers.get("connection")


# Reload


def test_a_request_in_flight_keeps_its_configuration_and_the_next_has_the_new(start, config, backends):
    proxy = start(config("old", web="a"))
    with client_of(proxy) as client, client_of(proxy) as idle, client_of(proxy) as fresh:
        assert told(idle.ask()) == ("a", "old", None)
        send(client, "/waits")
        eventually(lambda: backends["a"].waiting)
        assert proxy.reload(config("new", web="b"))["event"].startswith("configuration reloaded")
        assert told(idle.ask()) == ("b", "new", None)
        assert told(fresh.ask()) == ("b", "new", None)
        backends["a"].may_answer.set()
        assert told(client.read()) == ("a", "old", None)
        assert told(client.ask()) == ("b", "new", None)


def test_a_removed_frontend_lets_its_requests_finish_and_closes_its_idle_connections(start, config, backends):
    proxy = start(config(web="a", other="b"))
    with ExitStack() as stack:
        idle, busy, far, other = (
            stack.enter_context(client_of(proxy, frontend=name)) for name in ("web", "web", "web", "other")
        )
        assert {told(client.ask()) for client in (idle, far)} == {("a", "old", None)}
        assert told(other.ask()) == ("b", "old", None)
        send(busy, "/waits")
        far.send(head("POST /waits HTTP/1.1", "Host: x", "Content-Length: 4") + b"ha")
        eventually(lambda: backends["a"].waiting)
        assert proxy.reload(config(other="b"))["event"].startswith("configuration reloaded")
        assert idle.has_ended()
        far.send(b"lf")
        backends["a"].may_answer.set()
        for client in (busy, far):
            assert told(client.read()) == ("a", "old", "close")
            assert client.has_ended()
        assert told(other.ask()) == ("b", "old", None), "the other frontend's clients notice nothing"


def test_a_refused_configuration_changes_nothing(start, config):
    proxy = start(config(web="a"))
    with client_of(proxy) as client:
        assert told(client.ask()) == ("a", "old", None)
        wrong = config("new", web="b")
        wrong["frontends"][0]["http"]["head_timeout"] = "soon"
        assert proxy.reload(wrong)["event"].startswith("configuration refused")
        assert told(client.ask()) == ("a", "old", None)


def test_twenty_reloads_under_load_fail_no_request(start, config):
    """Clients that stay and clients that come anew, while the pool and the headers change to and fro.

    The end is a plain flag: a gevent Event that some wait for with a timeout may forget those who came last.
    """
    configs = [config("old", web="a"), config("new", web="b")]
    proxy = start(configs[0])
    responses, is_over = Counter(), False

    def stay():
        with client_of(proxy) as client:
            while not is_over:
                responses[told(client.ask())] += 1
                gevent.sleep(0.002)

    def come_anew():
        while not is_over:
            with client_of(proxy) as client:
                responses[told(client.ask(method="POST", body=b"x" * 1000))] += 1
            gevent.sleep(0.002)

    clients = [gevent.spawn(work) for work in (stay, stay, come_anew, come_anew)]
    with client_of(proxy) as witness:
        for number in range(1, 21):
            proxy.write_config(configs[number % 2])
            proxy.process.send_signal(signal.SIGHUP)
            eventually(lambda mark=("old", "new")[number % 2]: told(witness.ask())[1] == mark)
            seen = responses.total()
            eventually(lambda seen=seen: responses.total() > seen + 20)
    is_over = True
    for client in clients:
        client.get(timeout=10)
    assert set(responses) == {("a", "old", None), ("b", "new", None)}
    assert min(responses.values()) >= 100


# Going down


def test_idle_connections_are_closed_at_once_and_requests_in_flight_finish(start, config, backends):
    proxy = start(config(web="a"), DRAIN_TIMEOUT_SECS=60)
    with ExitStack() as stack:
        idle, busy, uploading, collected = (stack.enter_context(client_of(proxy)) for _ in range(4))
        assert idle.ask().status == 200
        send(busy, "/waits")
        uploading.send(head("PUT / HTTP/1.1", "Host: x", "Transfer-Encoding: chunked") + chunk(b"ha"))
        collected.send(
            head("PUT / HTTP/1.1", "Host: x", "Content-Length: 4") + b"ha"
        )  # read whole before it is sent on
        eventually(lambda: len(backends["a"].origin.requests) == 3)
        proxy.process.send_signal(signal.SIGTERM)
        assert idle.has_ended()
        assert proxy.process.poll() is None
        uploading.send(chunk(b"lf") + chunk(b""))
        assert told(uploading.read()) == ("a", "old", "close")
        collected.send(b"lf")
        assert told(collected.read()) == ("a", "old", "close")
        backends["a"].may_answer.set()
        assert told(busy.read()) == ("a", "old", "close")
        assert busy.has_ended()
        assert proxy.wait() == 0
    assert request_line(proxy, "/waits")["termination"] == "--"


def test_requests_that_do_not_finish_are_ended_after_the_drain_time(start, config, backends):
    proxy = start(config(web="a"), DRAIN_TIMEOUT_SECS=0.3)
    with client_of(proxy) as busy:
        send(busy, "/waits")
        eventually(lambda: backends["a"].waiting)
        assert proxy.stop() == 0
        with pytest.raises((EOFError, ConnectionError)):
            busy.read()
    backends["a"].may_answer.set()
    line = request_line(proxy, "/waits")
    assert (line["status"], line["termination"], line["reason"]) == (None, "KD", "drain_timeout")


def test_requests_that_come_in_the_moment_of_the_signal_are_served(start, config):
    """On connections that were idle, that had only been opened, and that were not even accepted."""
    proxy = start(config(web="a"), DRAIN_TIMEOUT_SECS=60)
    with ExitStack() as stack:
        idle, opened = ([stack.enter_context(client_of(proxy)) for _ in range(20)] for _ in range(2))
        for client in idle:
            assert client.ask().status == 200
        with paused(proxy):
            queued = [stack.enter_context(client_of(proxy)) for _ in range(20)]
            for client in [*idle, *opened, *queued]:
                client.send(whole("POST / HTTP/1.1", b"x", "Host: x"))
            proxy.process.send_signal(signal.SIGTERM)
        responses = Counter(told(client.read()) for client in [*idle, *opened, *queued])
    assert set(responses) <= {("a", "old", "close"), ("a", "old", None)}
    assert responses.total() == 60
    assert proxy.wait() == 0


def test_requests_already_there_behind_one_in_flight_are_not_begun(start, config, backends):
    """Connection: close says so (RFC 9112, section 9.6): the client repeats them elsewhere."""
    proxy = start(config(web="a"), DRAIN_TIMEOUT_SECS=60)
    with client_of(proxy) as client:
        send(client, "/waits")
        send(client, "/behind")
        eventually(lambda: backends["a"].waiting)
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: proxy.event("draining: "))
        backends["a"].may_answer.set()
        assert told(client.read()) == ("a", "old", "close")
        assert client.has_ended()
    assert proxy.wait() == 0
    assert [request.target for request in backends["a"].origin.requests] == ["/waits"]


def test_under_load_every_request_that_was_accepted_is_answered(start, config):
    """Clients go on, on connections kept alive and told to close, until the kernel refuses them."""
    proxy = start(config(web="a"), DRAIN_TIMEOUT_SECS=20)
    responses = Counter()

    def work():
        while True:
            try:
                client = client_of(proxy)
            except ConnectionError:
                return
            with client:
                for turn in range(5):
                    try:
                        response = client.ask()
                    except (EOFError, ConnectionError):
                        assert turn, "a connection that was accepted is served at least once"
                        break
                    responses[response.status] += 1
                    if response.headers.get("connection") == "close":
                        break

    jobs = [gevent.spawn(work) for _ in range(8)]
    eventually(lambda: responses.total() >= 200)
    proxy.process.send_signal(signal.SIGTERM)
    for job in jobs:
        job.get(timeout=20)
    assert proxy.wait() == 0
    assert set(responses) == {200}
