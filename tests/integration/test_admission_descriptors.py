"""File descriptors: the derived limit avoids running out of them, and the edge recovers if it does."""

import os
import resource
import sys
from contextlib import ExitStack
from pathlib import Path

from tests.harness import eventually, row
from tests.integration.peers import await_idle, crowd, echo, fresh_address, lines_of, read_exactly

ECHO = {"soft_limit": 1000}


def responses(client):
    try:
        client.sendall(b"ping")
        return read_exactly(client, 4) == b"ping"
    except (ConnectionResetError, BrokenPipeError):
        return False


def open_descriptors(edge):
    return len(os.listdir(f"/proc/{edge.process.pid}/fd"))


def leave_descriptors(edge, number):
    """Allow the running edge this many more descriptors than it has open."""
    pid = edge.process.pid
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (open_descriptors(edge) + number, hard))


def test_the_limit_on_connections_is_derived_from_the_descriptor_limit(edge, origin, tmp_path, monkeypatch):
    frugal_python = tmp_path / "python"
    frugal_python.write_text(f'#!/bin/sh\nulimit -n 430\nexec "{sys.executable}" "$@"\n')
    frugal_python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(frugal_python))
    proxy = edge([row("a", origin(echo), **ECHO)])
    with crowd(proxy, [fresh_address() for _ in range(60)]) as clients:
        served = sum(responses(client) for client in clients)
        samples = proxy.metrics()  # there is a descriptor left for this
    assert 10 < served < 60
    assert samples['edgeproxy_connections_refused_total{reason="max_connections"}'] == 60 - served
    assert not any(name.startswith("edgeproxy_accept_errors_total{") for name in samples)


def test_running_out_of_descriptors_harms_no_open_connection_and_is_recovered_from(edge, origin):
    proxy = edge([row("a", origin(echo), **ECHO)])
    with ExitStack() as stack:
        early = stack.enter_context(crowd(proxy, [fresh_address() for _ in range(5)]))
        assert all(responses(client) for client in early)
        leave_descriptors(proxy, 9)
        stack.enter_context(crowd(proxy, [fresh_address() for _ in range(30)]))
        assert eventually(lambda: proxy.event("accept on ")), "no error of accept"
        assert all(responses(client) for client in early)
        leave_descriptors(proxy, 200)
        with proxy.connect(fresh_address()) as late:
            assert responses(late)
    samples = await_idle(proxy)
    assert samples['edgeproxy_accept_errors_total{errno="EMFILE"}'] > 0
    assert not any(name.startswith("edgeproxy_internal_errors_total{") for name in samples)
    assert "Traceback" not in Path(proxy.log_path).read_text()


def test_descriptors_come_back_when_clients_leave(edge, origin):
    proxy = edge([row("a", origin(echo), **ECHO)])
    at_rest = open_descriptors(proxy)
    leave_descriptors(proxy, 9)
    with crowd(proxy, [fresh_address() for _ in range(30)]):
        assert eventually(lambda: proxy.event("accept on ")), "no error of accept"
    assert eventually(lambda: served_by(proxy)), "it serves again under the same limit"
    await_idle(proxy)
    eventually(lambda: open_descriptors(proxy) <= at_rest, what="no descriptor has leaked")


def served_by(edge):
    try:
        with edge.connect(fresh_address()) as client:
            return responses(client)
    except ConnectionResetError:
        return False


def test_a_lack_of_descriptors_does_not_count_against_the_backends(edge, origin):
    port = origin(echo)
    proxy = edge([row("a", port, **ECHO), row("b", port, **ECHO)])
    leave_descriptors(proxy, 9)
    sources = [fresh_address() for _ in range(30)]
    with crowd(proxy, sources):
        failed = eventually(lambda: [x for x in proxy.access_lines() if x["reason"] == "emfile"])
    assert failed[0]["client"] in sources
    assert lines_of(proxy, failed[0]["client"])[0]["termination"] == "PC"
    await_idle(proxy)
    assert proxy.event("backend ") is None, "a backend was ejected"
    assert proxy.ready()["candidates"] == 2
