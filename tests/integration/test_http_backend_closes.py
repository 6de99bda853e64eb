"""A backend ends its idle connections while requests come: each request goes to a connection that is still good."""

from __future__ import annotations

import _socket
import random
import socket
from contextlib import ExitStack

import gevent
import pytest
import yaml

from app.domain.model import parse_backend
from app.inbound.http import proxying
from app.inbound.http.stream import UpstreamStream
from app.inbound.http.upstream_pool import UpstreamPool
from tests.edge_in_process import edge_in_process
from tests.harness import pool, row
from tests.integration.http_peers import Client, Origin, client_of, http_edge, live

LOOPS = 40


def test_a_taken_connection_belongs_to_who_took_it():
    """The pool's watcher was still live then: an end that came before it was used ended it for the pool, too."""
    backend = parse_backend(row("a", 1))
    idle, (ours, theirs) = UpstreamPool(3), socket.socketpair()
    stream = UpstreamStream(_socket.socket(fileno=ours.detach()), (backend.host, backend.port))
    idle.give(stream, 10.0, 3)
    assert idle.take(backend) is stream
    assert stream.is_silent()
    theirs.close()
    gevent.sleep(0.01)  # the loop sees the end: nothing may come of that
    assert (len(idle), stream.sock.fileno() > 0, stream.is_silent()) == (0, True, False)
    stream.close()


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
@pytest.mark.parametrize("last_words", [b"", b"HTTP/1.1 408 Request Timeout\r\n\r\n"])
def test_an_end_just_before_a_request_is_sent_costs_a_connection_only(tmp_path, monkeypatch, method, last_words):
    origin = Origin()
    file = tmp_path / "edge.yaml"
    file.write_text(yaml.safe_dump({"frontends": [live("web", "web")], "backends": [pool("web", origin.port)]}))
    is_due, waits = [False], proxying.let_others_catch_up

    def end_it_meanwhile(wake):
        if is_due.pop():
            kept = origin.requests[0].sock
            kept.sendall(last_words)
            kept.shutdown(socket.SHUT_WR)
        is_due.append(False)
        waits(wake)

    monkeypatch.setattr(proxying, "let_others_catch_up", end_it_meanwhile)
    with edge_in_process(tmp_path, [], CONFIG=file) as inside:
        with Client(inside.connect()) as client:
            assert client.ask().status == 200
            is_due[0] = True
            second = client.ask(method=method, body=b"content" if method != "GET" else None)
            assert second.status == 200
        assert origin.used == [1, 2]
        assert not [name for name in inside.metrics() if name.startswith("edgeproxy_backend_errors_total{")]
    origin.close()


def test_many_clients_post_while_a_backend_ends_its_idle_connections(tmp_path):
    chance = random.Random(4)
    crossed = []
    """Requests that came after the backend had ended its side."""

    def part(request):
        for _ in request.pieces():
            pass
        request.response()
        request.sock.settimeout(chance.choice((0.002, 0.005, 0.02)))  # how long it keeps an idle connection
        try:
            return not request.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            request.sock.settimeout(10)
            request.sock.shutdown(socket.SHUT_WR)
            crossed.extend([data] if (data := request.sock.recv(65536)) else [])
            return True

    origin = Origin(part)
    config = {"frontends": [live("web", "web")], "backends": [pool("web", origin.port)]}
    with http_edge(tmp_path, config) as proxy, ExitStack() as stack:
        clients = [stack.enter_context(client_of(proxy)) for _ in range(60)]

        def post(client):
            found = []
            for _ in range(LOOPS):
                found.append(client.ask(method="POST", body=b"x" * 100).status)
                gevent.sleep(chance.choice((0.001, 0.004, 0.015)))
            return found

        jobs = [gevent.spawn(post, client) for client in clients]
        statuses = [status for job in jobs for status in job.get(timeout=60)]
        assert not [line for line in proxy.log() if line.get("level") == "ERROR"]
        assert proxy.metrics().get('edgeproxy_internal_errors_total{where="request"}', 0) == 0
    assert origin.accepted < len(statuses), "some connections were used again"
    assert set(statuses) <= {200, 502}
    # Only an end that crosses a request cannot be known before, and a POST is not sent twice (RFC 9110, section 9.2.2).
    assert statuses.count(502) == len(crossed)
    origin.close()


def test_idle_connections_to_a_backend_are_kept_as_configured(tmp_path):
    origin = Origin()
    config = {
        "frontends": [
            live("short", "web", http={"backend_idle_timeout": "100ms"}),
            live("none", "web", http={"max_idle_per_backend": 0}),
        ],
        "backends": [pool("web", origin.port)],
    }
    with http_edge(tmp_path, config) as proxy:
        for frontend in ("none", "short"):  # frontends share what they keep
            with client_of(proxy, frontend=frontend) as client:
                assert client.ask().status == 200
                origin.await_end(len(origin.requests) - 1)
                assert client.ask().status == 200
        assert origin.used == [1, 2, 3, 4]
    origin.close()
