"""If the log cannot be written, lines are lost and counted; connections and the process are not affected."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import subprocess
import sys

import pytest

from tests.commands import clean_environment, edgeproxy
from tests.harness import ROOT, EdgeProcess, eventually, row, write_backends
from tests.traffic import free_ports, named, who

DROPPED = "edgeproxy_log_lines_dropped_total"
ENDED = 'edgeproxy_connections_ended_total{state="--"}'


class UnloggedEdge(EdgeProcess):
    """An edge whose log the harness cannot read: its ports are fixed by the test."""

    def __init__(self, database, log_path, stderr=subprocess.DEVNULL):
        port, metrics_port = free_ports(2)
        self.addresses, self.metrics_address = [("127.0.0.1", port)], ("127.0.0.1", metrics_port)
        environment = clean_environment(
            LISTEN_ADDR=f"127.0.0.1:{port}",
            METRICS_LISTEN_ADDR=f"127.0.0.1:{metrics_port}",
            DB_PATH=str(database),
            LOG_PATH=log_path,
            GEOIP_PATH="off",
            DRAIN_TIMEOUT_SECS="2",
        )
        self.process = subprocess.Popen(
            [sys.executable, "-m", "app", "serve"], cwd=ROOT, env=environment, stderr=stderr
        )
        eventually(self.is_up, what="the edge is ready")

    def is_up(self):
        assert self.process.poll() is None, "the edge has ended"
        try:
            return self.get("/ready")[0] == 200
        except ConnectionError:
            return False


@pytest.fixture
def unlogged(routing_db, origin):
    """Start edges with a log elsewhere, each with one backend."""
    write_backends(routing_db, [row("a", origin(named("a")))])
    started = []

    def start(log_path, **keywords):
        started.append(UnloggedEdge(routing_db, log_path, **keywords))
        return started[-1]

    yield start
    for one in started:
        one.kill()


def test_without_a_path_the_log_goes_to_stderr(unlogged):
    proxy = unlogged("", stderr=subprocess.PIPE)
    assert who(proxy) == "a"
    assert proxy.stop() == 0
    lines = [json.loads(line) for line in proxy.process.stderr.read().splitlines()]
    assert [line["backend"] for line in lines if line["event"] == "connection"] == ["a"]
    assert lines[-1]["event"] == "stopped"


def test_a_stalled_reader_of_stderr_stalls_neither_connections_nor_the_end(unlogged):
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    try:
        proxy = unlogged("", stderr=writing)
        for _ in range(60):  # several times the capacity of the pipe
            assert who(proxy) == "a"
        eventually(lambda: is_full(writing), what="the pipe is full, so the log's writer hangs")
        assert [who(proxy) for _ in range(20)] == ["a"] * 20
        eventually(lambda: proxy.metrics()[ENDED] == 80)
        assert proxy.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


def is_full(descriptor):
    """Return whether a pipe is full."""
    return not select.select([], [descriptor], [], 0)[1]


def test_a_full_disk_from_the_start_costs_lines_and_not_connections(unlogged):
    proxy = unlogged("/dev/full")
    assert [who(proxy) for _ in range(20)] == ["a"] * 20
    eventually(lambda: proxy.metrics()[DROPPED] >= 20, what="the lost lines are counted")
    assert proxy.stop() == 0


def test_a_disk_that_fills_up_and_is_cleared_costs_exactly_the_lines_counted(edge, origin):
    """A file size limit acts as a full disk: a write is cut in the middle of a line, later ones fail."""
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    limits = resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE)
    for _ in range(20):
        assert who(proxy) == "a"
    eventually(lambda: len(proxy.access_lines()) == 20, what="logged so far")
    room = proxy.log_path.stat().st_size + 1000
    resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, (room, limits[1]))
    for _ in range(40):
        assert who(proxy) == "a"
    eventually(lambda: proxy.metrics()[DROPPED] >= 36, what="the lost lines are counted")
    resource.prlimit(proxy.process.pid, resource.RLIMIT_FSIZE, limits)
    for _ in range(20):
        assert who(proxy) == "a"
    eventually(lambda: len(proxy.access_lines()) + proxy.metrics()[DROPPED] == 80, what="every line is accounted for")
    dropped = proxy.metrics()[DROPPED]
    assert proxy.stop() == 0
    lines = [json.loads(text) for text in proxy.log_path.read_text().splitlines()]  # none of them torn
    assert sum(line["event"] == "connection" for line in lines) == 80 - dropped


@pytest.mark.parametrize("path", ["/dev", "/proc/nowhere/edge.jsonl"])
def test_a_log_that_cannot_be_opened_at_the_start_is_an_exit_with_2_that_names_it(path):
    done = edgeproxy("serve", LOG_PATH=path, LISTEN_ADDR="127.0.0.1:0", METRICS_LISTEN_ADDR="127.0.0.1:0")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"EDGEPROXY_LOG_PATH='{path}'" in done.stderr


def test_a_fifo_in_its_place_blocks_nothing_and_a_file_there_is_written_again(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    moved = proxy.log_path.with_suffix(".1")
    proxy.log_path.rename(moved)
    os.mkfifo(proxy.log_path)
    assert who(proxy, "127.0.0.2") == "a"
    eventually(lambda: '"127.0.0.2"' in moved.read_text(), what="the old file is written on")
    proxy.log_path.unlink()
    assert who(proxy, "127.0.0.3") == "a"
    eventually(lambda: [line for line in proxy.access_lines() if line["client"] == "127.0.0.3"], what="a new file")
    assert proxy.metrics()[DROPPED] == 0
