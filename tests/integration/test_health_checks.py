"""Who is well: what probes find and what connections meet decide who serves, and every change is told and counted."""

from __future__ import annotations

import socket
import time
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from gevent.event import Event
from gevent.server import StreamServer

from tests.harness import EdgeProcess, eventually, frontend, pool, row
from tests.integration.peers import is_refused, refusing_port, reset
from tests.traffic import ask, who

QUICK = {"type": "tcp", "interval": "100ms", "timeout": "1s", "unhealthy_threshold": 2, "healthy_threshold": 2}


class Server:
    """A server on a port of its own that can go down and come back."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.arrivals: list[float] = []
        """When connections came."""
        self.questions = 0
        """How many connections said anything: probes of type tcp do not."""
        self.port = 0
        self._placeholder: socket.socket | None = None
        self.up()

    def up(self) -> None:
        """Listen, where it did before."""
        if self._placeholder is not None:
            self._placeholder.close()
            self._placeholder = None
        self._server = StreamServer(("127.0.0.1", self.port), self._serve, backlog=1024)
        self._server.start()
        self.port = self._server.server_port

    def down(self) -> None:
        """Refuse connections. The port stays taken, so that nobody else is given it."""
        if self._placeholder is not None:
            return
        self._server.stop(timeout=0.1)
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._placeholder.bind(("127.0.0.1", self.port))

    def close(self) -> None:
        self.down()
        self._placeholder.close()

    @property
    def id(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _serve(self, sock: socket.socket, _peer: object) -> None:
        self.arrivals.append(time.monotonic())
        try:
            while sock.fileno() >= 0 and sock.recv(4096):
                self.questions += 1
                self.response(sock)
        except ConnectionError:
            pass

    def response(self, sock: socket.socket) -> None:
        """Answer a question."""
        sock.sendall(self._name.encode() + b"\n")


class HttpServer(Server):
    """Answers requests by what is set, anything else by its name."""

    status, body = 200, "fine"

    def response(self, sock: socket.socket) -> None:
        """Answer a question; a request is read whole by now."""
        text = f"HTTP/1.1 {self.status} Whatever\r\nContent-Length: {len(self.body)}\r\n\r\n{self.body}"
        sock.sendall(text.encode())


@pytest.fixture
def server():
    """Start servers: `server("a")`."""
    with ExitStack() as stack:

        def start(name: str, kind: type[Server] = Server) -> Any:
            one = kind(name)
            stack.callback(one.close)
            return one

        yield start


def content(*servers: Server, **check: Any) -> dict[str, Any]:
    """Return a configuration of one frontend over these servers."""
    backends = [pool("p", *(one.port for one in servers), health_check=check)]
    return {"frontends": [frontend("web", "p")], "backends": backends}


def changes(proxy: EdgeProcess, server: Server) -> list[tuple[str, str]]:
    """Return what the log tells of a server's health: (state, cause) of each change."""
    lines = [line for line in proxy.log() if line["event"].startswith("backend ") and line.get("backend") == server.id]
    assert all(line["pool"] == "p" and line["ts"] for line in lines)
    return [(line["state"], line["cause"]) for line in lines]


def counted(proxy: EdgeProcess, metric: str, server: Server, **label: str) -> float:
    """Return a sample of a server in pool p, 0 when there is none."""
    labels = {"backend": server.id, "pool": "p", **label}
    text = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
    return proxy.metrics().get(f"edgeproxy_{metric}{{{text}}}", 0)


def await_state(proxy: EdgeProcess, server: Server, *states: str) -> None:
    """Wait until the log tells these changes of a server's health, and no others."""
    eventually(lambda: [state for state, _ in changes(proxy, server)] == list(states), what=f"{states} of {server.id}")


# Probes


def test_a_server_whose_probes_fail_gets_nobody_until_enough_have_passed_again(edge, server):
    a, b = server("a"), server("b")
    proxy = edge(config=content(a, b, **QUICK))
    await_state(proxy, a, "up")
    await_state(proxy, b, "up")
    a.down()
    await_state(proxy, a, "up", "down")
    asked = b.questions
    assert [who(proxy) for _ in range(6)] == ["b"] * 6
    assert b.questions == asked + 6
    lines = eventually(lambda: (found := proxy.access_lines())[5:] and found)
    assert {line["attempts"] for line in lines} == {1}
    assert counted(proxy, "backend_available", a) == 0
    assert proxy.ready()["pools"]["p"] == {"backends": 2, "candidates": 1, "fails_open": False}
    a.up()
    await_state(proxy, a, "up", "down", "up")
    assert sorted(who(proxy) for _ in range(4)) == ["a", "a", "b", "b"]
    assert changes(proxy, a) == [("up", "probe_passed"), ("down", "connect_refused"), ("up", "probe_passed")]
    assert counted(proxy, "backend_health_changes_total", a, state="up") == 2
    assert counted(proxy, "backend_health_changes_total", a, state="down") == 1
    assert counted(proxy, "probes_total", a, result="connect_refused") >= 2
    assert counted(proxy, "probes_total", a, result="passed") >= 3


def test_a_server_that_stands_still_under_its_connections_keeps_them(edge, server):
    a, b = server("a"), server("b")
    proxy = edge(config=content(a, b, **QUICK))
    await_state(proxy, a, "up")
    with proxy.connect() as first, proxy.connect() as second:
        assert {ask(first), ask(second)} == {"a", "b"}
        a._server.stop_accepting()
        a._server.socket.close()
        await_state(proxy, a, "up", "down")
        assert {ask(first), ask(second)} == {"a", "b"}


def test_http_probes_judge_status_and_body(edge, server):
    by_status, by_body = server("", HttpServer), server("", HttpServer)
    check = QUICK | {"type": "http", "path": "/healthz", "expected_status": "200-299", "body": "fine"}
    proxy = edge(config=content(by_status, by_body, **check))
    await_state(proxy, by_status, "up")
    await_state(proxy, by_body, "up")
    by_status.status, by_body.body = 503, "poorly"
    await_state(proxy, by_status, "up", "down")
    await_state(proxy, by_body, "up", "down")
    assert changes(proxy, by_status)[1] == ("down", "status")
    assert changes(proxy, by_body)[1] == ("down", "body")
    by_status.status = 201
    await_state(proxy, by_status, "up", "down", "up")


def test_unknown_servers_serve_until_somebody_is_known_to_be_well(edge, server):
    """The first probe of `thoughtful` gets no answer before the end, and until then it is unknown."""

    class Thoughtful(Server):
        has_thought = Event()

        def response(self, sock: socket.socket) -> None:
            if self.questions > 1:
                return super().response(sock)
            self.has_thought.wait()
            reset(sock)

    thoughtful, dead = server("thoughtful", Thoughtful), server("dead")
    dead.down()
    check = QUICK | {"type": "http", "timeout": "1m", "interval": "2m"}
    proxy = edge(config=content(thoughtful, dead, **check))
    eventually(lambda: thoughtful.questions, what="the first probe waits for an answer")
    await_state(proxy, dead, "down")
    assert [who(proxy) for _ in range(4)] == ["thoughtful"] * 4
    assert changes(proxy, thoughtful) == []
    thoughtful.has_thought.set()
    await_state(proxy, thoughtful, "down")
    assert changes(proxy, thoughtful) == [("down", "bad_response")]


def test_when_everybody_is_down_all_serve_and_it_is_told(edge, server):
    a, b = server("a"), server("b")
    check = QUICK | {"type": "http"}  # which they do not speak, and serve all the same
    proxy = edge(config=content(a, b, **check))
    await_state(proxy, a, "down")
    await_state(proxy, b, "down")
    opened = eventually(lambda: proxy.event("pool p: every backend is down"))
    assert (opened["level"], opened["pool"]) == ("ERROR", "p")
    assert proxy.metrics()['edgeproxy_pool_fail_opens_total{pool="p"}'] == 1
    assert proxy.ready()["pools"]["p"] == {"backends": 2, "candidates": 2, "fails_open": True}
    assert sorted(who(proxy) for _ in range(4)) == ["a", "a", "b", "b"]
    proxy.reload(content(a, b, **QUICK))
    await_state(proxy, a, "down", "up")
    await_state(proxy, b, "down", "up")
    assert proxy.event("pool p: healthy backends serve again")
    assert not proxy.ready()["pools"]["p"]["fails_open"]


@pytest.mark.parametrize("before", [{"type": "http", "interval": "300s"}, {"type": "off"}])
def test_a_check_that_a_reload_changes_decides_soon(edge, server, before):
    a = server("a", HttpServer)
    proxy = edge(config=content(a, **before))
    if before["type"] == "http":
        await_state(proxy, a, "up")
    known = len(changes(proxy, a))
    stricter = content(a, type="http", interval="300s", expected_status="418", unhealthy_threshold=3)
    assert proxy.reload(stricter)["level"] == "INFO"
    eventually(lambda: changes(proxy, a)[known:], what="three probes a second apart")
    assert [state for state, _ in changes(proxy, a)[known:]] == ["down"]
    assert counted(proxy, "probes_total", a, result="status") == 3


def test_two_hundred_servers_are_not_probed_in_one_burst(edge):
    """All are probed once at the start; after that each at a moment of its own."""
    arrivals: list[float] = []

    def note(sock: socket.socket, _peer: object) -> None:
        arrivals.append(time.monotonic())

    with listening(200, note) as ports:
        backends = [pool("p", *ports, health_check=QUICK | {"interval": "1s"})]
        proxy = edge(config={"frontends": [frontend("web", "p")], "backends": backends})
        eventually(lambda: len(arrivals) >= 200, what="the first round")
        eventually(lambda: len(arrivals) >= 600, what="two rounds more")
    samples = proxy.metrics()
    assert sum(value for name, value in samples.items() if 'result="passed"' in name) >= 590
    later = sorted(arrivals)[200:600]
    fullest = max(sum(start <= moment < start + 0.1 for moment in later) for start in later)
    assert fullest < 150, "evenly spread it is 20 in a tenth of the interval, in one burst 200"


@contextmanager
def listening(count: int, handle):
    """Run servers that do the same."""
    servers = [StreamServer(("127.0.0.1", 0), handle, backlog=64) for _ in range(count)]
    for one in servers:
        one.start()
    try:
        yield [one.server_port for one in servers]
    finally:
        for one in servers:
            one.stop(timeout=0.01)


def test_probes_go_on_when_no_more_connections_are_admitted(edge, server):
    a, b = server("a"), server("b")
    settings = content(a, b, **QUICK)
    settings["frontends"][0]["limits"] = {"max_connections": 1}
    proxy = edge(config=settings, MAX_CONNECTIONS=1)
    with proxy.connect() as only:
        assert ask(only) in ("a", "b")
        assert is_refused(proxy, "127.0.17.1")
        before = len(a.arrivals)
        eventually(lambda: len(a.arrivals) >= before + 3)
        a.down()
        eventually(lambda: changes(proxy, a)[-1] == ("down", "connect_refused"))
        a.up()
        eventually(lambda: changes(proxy, a)[-1] == ("up", "probe_passed"))


# Traffic


def test_refused_dials_eject_for_a_while_and_a_success_forgets_them(edge, server):
    a, b = server("a"), server("b")
    proxy = edge(config=content(a, b, unhealthy_threshold=2, cooldown="500ms"))
    a.down()
    assert [who(proxy) for _ in range(8)] == ["b"] * 8
    line = eventually(lambda: proxy.event(f"backend {a.id} is ejected for"))
    assert (line["level"], line["state"], line["cause"]) == ("WARNING", "ejected", "econnrefused")
    a.up()
    eventually(lambda: who(proxy) == "a", what="it serves again after its cool-down")
    await_state(proxy, a, "ejected", "up")
    assert changes(proxy, a) == [("ejected", "econnrefused"), ("up", "cooled_down")]
    assert counted(proxy, "backend_health_changes_total", a, state="ejected") == 1
    assert counted(proxy, "backend_errors_total", a, reason="econnrefused") == 2


def test_a_server_that_resets_before_a_byte_is_ejected_and_one_that_has_answered_is_not(edge, server):
    class Resetting(Server):
        def response(self, sock: socket.socket) -> None:
            reset(sock)

    class ResettingAfterwards(Server):
        def response(self, sock: socket.socket) -> None:
            super().response(sock)
            reset(sock)

    early, late, good = server("early", Resetting), server("late", ResettingAfterwards), server("good")
    proxy = edge(config=content(early, late, good, unhealthy_threshold=2, cooldown="1h"))
    responses = [who(proxy) for _ in range(30)]
    assert responses.count("") == 2, "one for each of the threshold"
    await_state(proxy, early, "ejected")
    assert changes(proxy, early) == [("ejected", "reset_before_a_byte")]
    assert changes(proxy, late) == []
    assert {response for response in responses if response} == {"late", "good"}


def test_no_more_than_half_are_ejected(edge, server):
    with ExitStack() as stack:
        ports = [refusing_port(stack) for _ in range(3)]
        good = server("good")
        check = {"unhealthy_threshold": 1, "cooldown": "1h"}
        backends = [pool("p", *ports, good.port, health_check=check)]
        listeners = [frontend("web", "p", tcp={"connect_attempts": 4})]
        proxy = edge(config={"frontends": listeners, "backends": backends})
        assert [who(proxy) for _ in range(8)] == ["good"] * 8
        assert proxy.ready()["pools"]["p"]["candidates"] == 2
        ejected = [name for name in proxy.metrics() if name.startswith("edgeproxy_backend_health_changes_total{")]
        assert len(ejected) == 2


# Without a file


def test_the_environment_alone_probes_the_backends_of_the_routing_database(edge, server):
    near, far = server("near", HttpServer), server("far", HttpServer)
    near.body, far.body = "near\n", "far\n"
    rows = [row("near", near.port), row("far", far.port, region="eu", country="FR")]
    variables = {"HEALTH_CHECK": "http", "HEALTH_CHECK_PATH": "/up", "HEALTH_CHECK_INTERVAL_SECS": "0.1"}
    proxy = edge(rows, GEOIP_PATH="off", REGION="sa", BINDING_MAX=0, **variables)

    def states(backend_id: str) -> list[str]:
        return [line["state"] for line in proxy.log() if line.get("backend") == backend_id and "state" in line]

    def served_by() -> str:
        with proxy.connect() as client:
            client.sendall(b"who?")
            return client.recv(1000).decode().splitlines()[-1]

    eventually(lambda: states("near") == states("far") == ["up"])
    assert served_by() == "near"
    near.status = 500
    eventually(lambda: states("near") == ["up", "down"])
    assert served_by() == "far"
    near.status = 302
    eventually(lambda: states("near") == ["up", "down", "up"])
    assert served_by() == "near"
    probes = {name: value for name, value in proxy.metrics().items() if name.startswith("edgeproxy_probes_total")}
    assert probes['edgeproxy_probes_total{backend="near",pool="default",result="status"}'] >= 3
    assert not [name for name in probes if 'backend="far"' in name and 'result="passed"' not in name]


def test_nobody_is_probed_unless_it_is_asked_for(edge, server):
    a = server("a")
    proxy = edge([row("a", a.port)], GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert len(a.arrivals) == 1
    assert not [name for name in proxy.metrics() if name.startswith("edgeproxy_probes_total{")]
