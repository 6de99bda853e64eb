"""Faults that an adversary found, and the correct behaviour."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from app.config import ConfigError, load
from app.outbound.maxmind_geo import SHIPPED_DATABASE, GeoDatabaseError, MaxmindGeo
from tests.harness import eventually, row
from tests.integration.peers import refusing_port
from tests.traffic import named, who


def limit_descriptors(pid: int, soft: int) -> None:
    _, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def test_without_descriptors_accepting_backs_off_every_time(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    errors = 'edgeproxy_accept_errors_total{errno="EMFILE"}'
    with ExitStack() as stack:
        scrape = stack.enter_context(socket.create_connection(proxy.metrics_address))

        def samples() -> dict[str, float]:
            scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: edge\r\n\r\n")
            _head, _, body = receive(scrape).partition(b"\r\n\r\n")
            lines = body.decode().splitlines()
            return {n: float(v) for n, _, v in (x.rpartition(" ") for x in lines if not x.startswith("#"))}

        samples()
        limit_descriptors(proxy.process.pid, len(os.listdir(f"/proc/{proxy.process.pid}/fd")))
        stack.enter_context(proxy.connect())
        started = time.monotonic()
        eventually(lambda: samples().get(errors, 0) >= 5, what="five errors of accept")
        assert samples()[errors] <= 2 + (time.monotonic() - started) * 20, "ten a second, not thousands"
        limit_descriptors(proxy.process.pid, 1000)
    eventually(lambda: who(proxy) == "a")


def receive(sock: socket.socket) -> bytes:
    """Read one response of known length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += sock.recv(65536)
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
    while len(body) < length:
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


def test_an_address_that_cannot_be_used_is_a_failed_dial_and_another_backend_serves(edge, origin):
    rows = [row("odd", 9, wg_ip="fe80::1%nope"), row("good", origin(named("good")), region="eu", country="FR")]
    proxy = edge(rows, GEOIP_PATH="off")
    assert [who(proxy) for _ in range(5)] == ["good"] * 5
    errors = 'edgeproxy_backend_errors_total{backend="odd",pool="default",reason="unusable_address"}'
    assert proxy.metrics()[errors] >= 1
    assert proxy.event("connection from") is None, "no traceback"


def test_a_binding_outlives_an_outage_of_every_backend(edge, origin, routing_db):
    with ExitStack() as stack:
        dead = [row(name, refusing_port(stack)) for name in ("b", "c")]
        proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
        assert who(proxy) == "a"
        from tests.harness import write_backends

        write_backends(routing_db, [row("a", refusing_port(stack)), *dead])
        proxy.wait_for_backends(3)
        assert who(proxy) == "", "all three refuse"
        home = origin(named("a"))
        write_backends(routing_db, [row("a", home), row("b", home), row("c", home)])
        eventually(lambda: len([x for x in proxy.log() if x["event"].startswith("routing:")]) == 3)
        assert who(proxy) == "a"
        lines = eventually(lambda: [line for line in proxy.access_lines() if line["termination"] == "--"][1:])
        assert (lines[0]["backend"], lines[0]["affinity"]) == ("a", "hit")


def test_refused_rows_are_logged_once_however_often_they_are_loaded(edge, origin, tmp_path):
    import sqlite3

    path = tmp_path / "keyless.db"
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE backends (id TEXT, wg_ip TEXT, port INTEGER, region TEXT)")
        database.executemany("INSERT INTO backends VALUES ('a', '127.0.0.1', ?, 'sa')", [(origin(named("a")),), (1,)])
    database.close()
    proxy = edge(DB_PATH=path, GEOIP_PATH="off", DB_RELOAD_SECS=0.1)
    before = proxy.metrics()['edgeproxy_routing_reloads_total{result="ok"}']
    eventually(lambda: proxy.metrics()['edgeproxy_routing_reloads_total{result="ok"}'] >= before + 3)
    assert len([line for line in proxy.log() if line["event"].startswith("row refused")]) == 1
    assert len([line for line in proxy.log() if line["event"].startswith("routing:")]) == 1


def test_a_routing_database_that_hangs_is_stale_and_does_not_hold_up_the_end(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    os.mkfifo(routing_db.with_name("routing.db-journal"))  # SQLite opens it, and waits for the other end
    eventually(lambda: (proxy.ready()["routing"]["stale"] or "").startswith("no response for"), seconds=15)
    assert who(proxy) == "a"
    line = eventually(lambda: proxy.event("routing database: no response for 5 s; waiting"), what="it is logged")
    assert line["level"] == "WARNING"
    assert proxy.stop() == 0


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """Use up the descriptors of this process for the block."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(map(int, os.listdir("/proc/self/fd")))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    fillers: list[int] = []
    try:
        with suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        yield
    finally:
        for filler in fillers:
            os.close(filler)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def damaged(tmp_path: Path) -> Path:
    import lzma

    content = bytearray(lzma.decompress(SHIPPED_DATABASE.read_bytes()))
    at = content.rfind(b"\xab\xcd\xefMaxMind.com") + 14
    content[at + 1 : at + 40] = b"\xe1" * 39
    path = tmp_path / "damaged.mmdb"
    path.write_bytes(content)
    return path


def test_a_damaged_country_database_is_refused_for_any_error_of_the_decoder(tmp_path):
    with pytest.raises(GeoDatabaseError):
        MaxmindGeo(damaged(tmp_path))


def test_a_country_database_that_could_not_be_read_is_tried_again(tmp_path):
    path = tmp_path / "country.mmdb.xz"
    path.write_bytes(SHIPPED_DATABASE.read_bytes())
    geo = MaxmindGeo(path)
    fresh = tmp_path / "fresh.xz"
    fresh.write_bytes(SHIPPED_DATABASE.read_bytes())
    fresh.replace(path)
    with no_descriptors_left(), pytest.raises(GeoDatabaseError, match="Too many open files"):
        geo.reload()
    assert geo.has_changed()
    geo.reload()
    assert not geo.has_changed()


@pytest.mark.parametrize(
    ("variables", "rule"),
    [
        ({"LISTEN_ADDR": "127.0.0.1:8080,127.0.0.1:8080"}, "127.0.0.1:8080 is given twice"),
        ({"LISTEN_ADDR": "*:8080", "METRICS_LISTEN_ADDR": "[::]:8080"}, "[::]:8080 is given twice"),
        ({"LISTEN_ADDR": "[::ffff:127.0.0.1]:8080"}, "is an IPv4-mapped address; use the IPv4 address"),
        ({"PROXY_PROTOCOL_FROM": "::ffff:10.0.0.0/104"}, "use the IPv4 network"),
        ({"DB_PATH": "/tmp"}, "is a directory"),
        ({"LOG_PATH": "/tmp"}, "is a directory"),
        ({"BINDING_SNAPSHOT": "/nonexistent/x"}, "its directory does not exist"),
        ({"IDLE_TIMEOUT_SECS": "1e-6"}, "must be at least 0.01"),
    ],
)
def test_a_configuration_that_can_never_work_is_refused(variables, rule):
    with pytest.raises(ConfigError) as refused:
        load({f"EDGEPROXY_{name}": text for name, text in variables.items()})
    assert rule in str(refused.value)


def test_too_few_descriptors_are_refused_at_the_start():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        with pytest.raises(ConfigError, match="file-descriptor limit 256 leaves none"):
            load({})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
