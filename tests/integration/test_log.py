"""The log file: one flat JSON object a line, one line for each connection, no line lost by rotation."""

from __future__ import annotations

import json
import re
import signal
import socket
from contextlib import ExitStack

import msgspec

from app.outbound.json_log import JsonLog
from tests.harness import eventually, row
from tests.integration.peers import refusing_port
from tests.traffic import ask, named, who

ACCESS_KEYS = (
    "ts event frontend listener client country region backend tier affinity attempts lease_ms connect_ms duration_ms "
    "bytes_up bytes_down termination reason"
).split()
RFC3339_UTC = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
FLAT = (str, int, float, bool, type(None))


class Line(msgspec.Struct):
    event: str


def is_flat(line):
    """Return whether every value is a scalar or a list of scalars; only `addresses` is an object by frontend."""
    return all(
        isinstance(value, FLAT)
        or (isinstance(value, list) and all(isinstance(one, FLAT) for one in value))
        or (name == "frontends" and is_flat(value))
        for name, value in line.items()
    )


def test_every_line_is_flat_json_with_a_time_and_an_event(edge, origin, routing_db):
    rows = [row("a", origin(named("a"))), row("bad", 0), row("odd", 9, weight=0, hard_limit=1)]
    proxy = edge(rows, PROXY_PROTOCOL_FROM="127.0.0.5/32")
    assert who(proxy) == "a"
    assert who(proxy, "127.0.0.5") == "", "no PROXY header"
    routing_db.unlink()
    eventually(lambda: proxy.ready()["routing"]["stale"])
    eventually(lambda: proxy.access_lines()[1:])
    assert proxy.stop() == 0
    lines = [json.loads(text) for text in proxy.log_path.read_text().splitlines()]
    assert len(lines) >= 8
    for line in lines:
        assert is_flat(line), line
        assert RFC3339_UTC.fullmatch(line["ts"])
        assert line["event"]
        assert line["event"] == "connection" or {"level", "where"} <= set(line)
    assert [line["event"] for line in lines][-1] == "stopped"


def test_an_access_line_describes_a_connection(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    with proxy.connect("127.0.0.7") as client:
        assert ask(client) == "a"
        assert ask(client) == "a"
        client.shutdown(socket.SHUT_WR)
        assert client.recv(10) == b""
    assert who(proxy, "127.0.0.7") == "a"
    first, second = eventually(lambda: proxy.access_lines()[1:] and proxy.access_lines())
    assert list(first) == ACCESS_KEYS, "in this order"
    host, port = proxy.address
    assert (first["frontend"], first["listener"], first["client"]) == ("edge", f"{host}:{port}", "127.0.0.7")
    assert (first["backend"], first["tier"], first["affinity"], first["attempts"]) == ("a", 2, "new", 1)
    assert (first["bytes_up"], first["bytes_down"]) == (8, 4)
    assert (first["termination"], first["reason"]) == ("--", None)
    assert 0 < first["lease_ms"] + first["connect_ms"] < first["duration_ms"]
    assert second["affinity"] == "hit"


def test_a_connection_without_a_backend_has_its_line_too(edge):
    proxy = edge([row("a", 9, deleted=1)], GEOIP_PATH="off")
    assert who(proxy) == ""
    line = eventually(proxy.access_lines)[0]
    assert (line["backend"], line["termination"], line["reason"]) == (None, "PE", "no_backends")


def test_a_flood_of_refusals_is_summarised_and_every_refusal_is_counted(edge):
    proxy = edge([], GEOIP_PATH="off")
    for _ in range(200):
        assert who(proxy) == ""

    def accounted_for():
        summaries = [line["event"] for line in proxy.log() if "more connections got no backend" in line["event"]]
        return len(proxy.access_lines()) + sum(int(text.split()[0]) for text in summaries) == 200

    eventually(accounted_for, what="200 refusals in lines and summaries")
    assert len(proxy.access_lines()) <= 100
    assert proxy.metrics()['edgeproxy_connections_ended_total{state="PE"}'] == 200


def test_a_balancer_that_connects_and_closes_is_no_warning_and_hides_no_refusal(edge):
    proxy = edge([], GEOIP_PATH="off", PROXY_PROTOCOL_FROM="127.1.0.0/16")
    for number in range(100):
        proxy.connect("127.1.0.1").close()
        if number % 10 == 0:
            assert who(proxy) == ""

    def summed_up():
        return [line for line in proxy.log() if line["event"].endswith("more clients left before getting a backend")]

    eventually(lambda: proxy.metrics()['edgeproxy_connections_ended_total{state="CA"}'] == 100)
    assert {line["level"] for line in eventually(summed_up)} == {"INFO"}
    assert all(is_flat(line) and line["refused_client_gone"] > 0 for line in summed_up())
    assert len([line for line in proxy.access_lines() if line["termination"] == "PE"]) == 10
    assert not [line for line in proxy.log() if line.get("level") == "WARNING"]


def test_the_summary_of_a_flood_is_flat_too(edge):
    proxy = edge([], GEOIP_PATH="off")
    for _ in range(60):
        assert who(proxy) == ""
    assert is_flat(eventually(lambda: [line for line in proxy.log() if "more connections" in line["event"]])[0])


def test_rotation_by_rename_loses_no_line(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    old, older = proxy.log_path.with_suffix(".1"), proxy.log_path.with_suffix(".2")
    asked = 0
    for rotated in (older, old):
        for _ in range(30):
            assert who(proxy) == "a"
        proxy.log_path.rename(rotated)
        for _ in range(30):
            assert who(proxy) == "a"
        asked += 60
        eventually(proxy.log_path.exists, 5, what="the file is opened anew")
    assert proxy.stop() == 0
    texts = [path.read_text() for path in (older, old, proxy.log_path)]
    lines = [json.loads(line) for text in texts for line in text.splitlines()]
    assert sum(line["event"] == "connection" for line in lines) == asked
    assert all(text.endswith("\n") for text in texts)
    assert lines[-1]["event"] == "stopped"


def test_a_missing_log_folder_is_created(tmp_path):
    path = tmp_path / "not" / "there" / "edge.jsonl"
    log = JsonLog(path)
    log.write_access(Line("first"))
    log.flush()
    assert json.loads(path.read_text()) == {"event": "first"}


def test_sigusr1_logs_the_different_stacks_of_all_greenlets_in_lines_of_bounded_length(edge, origin):
    proxy = edge([row("a", origin(named("a")))], GEOIP_PATH="off")
    with ExitStack() as stack:
        clients = [stack.enter_context(proxy.connect(f"127.0.2.{number + 1}")) for number in range(50)]
        assert [ask(client) for client in clients] == ["a"] * 50
        proxy.process.send_signal(signal.SIGUSR1)

        def logged():
            return [line["event"] for line in proxy.log() if line["event"].startswith("stack of ")]

        eventually(lambda: any("_flush_forever" in text for text in logged()))
        eventually(lambda: any(text.startswith("stack of 1 × thread") for text in logged()))
        (copying,) = [text for text in logged() if text.startswith("stack of 50 × greenlet")]
        assert "relay.py" in copying
        assert max(map(len, logged())) < 8000
        assert len(set(logged())) == len(logged())
    assert proxy.get("/live")[0] == 200


def test_a_failed_connect_is_logged_at_debug_level_only(edge, origin):
    with ExitStack() as stack:
        rows = [row("dead", refusing_port(stack)), row("alive", origin(named("alive")), region="eu", country="FR")]
        quiet, talkative = edge(rows, GEOIP_PATH="off"), edge(rows, GEOIP_PATH="off", DEBUG="true")
        for proxy in (quiet, talkative):
            assert who(proxy) == "alive"
            eventually(lambda proxy=proxy: [line for line in proxy.access_lines() if line["attempts"] == 2])
            assert proxy.stop() == 0
    assert quiet.event("client 127.0.0.1: cannot connect to backend dead") is None
    assert talkative.event("client 127.0.0.1: cannot connect to backend dead: econnrefused")["level"] == "DEBUG"
