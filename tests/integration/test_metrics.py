"""/metrics counts exactly, with the names of app.domain.metric_names; /live and /ready give their reasons."""

from __future__ import annotations

import http.client
import json
import re
import socket

import pytest

from app.domain import metric_names as names
from tests.harness import eventually, row, write_backends
from tests.traffic import ask, named, who

BACKEND_A = '{backend="a",pool="default"}'
OPEN = 'edgeproxy_connections_active{frontend="edge"}'
ACCEPTED = 'edgeproxy_connections_total{frontend="edge"}'


def request(edge, method, path):
    """Return (status, headers, body) of one request to the metrics listener."""
    connection = http.client.HTTPConnection(*edge.metrics_address, timeout=10)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


def test_every_metric_of_the_table_is_there_with_its_kind_and_help(edge, origin):
    proxy = edge([row("a", origin(named("a")))])
    assert who(proxy) == "a"
    text = proxy.get("/metrics")[1].decode()
    for metric in names.ALL:
        assert f"# TYPE {metric.exposed_name} {metric.kind}\n" in text
        assert f"# HELP {metric.exposed_name} {metric.help}\n" in text
    known = {metric.exposed_name for metric in names.ALL}
    assert set(re.findall(r"^# TYPE (edgeproxy_\w+)", text, re.MULTILINE)) == known
    for metric in ("process_open_fds", "process_resident_memory_bytes", "process_cpu_seconds_total", "python_info"):
        assert f"# TYPE {metric} " in text


def test_known_traffic_is_counted_exactly(edge, origin):
    proxy = edge([row("a", origin(named("a"))), row("refuses", 1, weight=0)], GEOIP_PATH="off")
    for _ in range(6):
        assert who(proxy) == "a"  # 4 bytes there, 2 back
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        assert ask(staying) == "a"
        eventually(lambda: proxy.metrics()[OPEN] == 1)
        samples = eventually(lambda: (found := proxy.metrics())["edgeproxy_bytes_sent_total"] == 16 and found)
        assert samples[ACCEPTED] == 7
        assert samples["edgeproxy_bytes_received_total"] == 32
        assert samples["edgeproxy_backend_connections_active" + BACKEND_A] == 1
        assert samples['edgeproxy_connections_ended_total{state="--"}'] == 6
    samples = eventually(lambda: (found := proxy.metrics())[OPEN] == 0 and found)
    assert samples['edgeproxy_connections_ended_total{state="--"}'] == 7
    assert samples["edgeproxy_backend_connections_total" + BACKEND_A] == 7
    assert samples["edgeproxy_backend_connections_active" + BACKEND_A] == 0
    assert samples["edgeproxy_backend_rtt_seconds_count" + BACKEND_A] == 7
    assert samples['edgeproxy_backend_rtt_seconds_bucket{backend="a",le="+Inf",pool="default"}'] == 7
    assert 0 < samples["edgeproxy_backend_rtt_seconds_sum" + BACKEND_A] < 7
    assert samples['edgeproxy_leases_total{outcome="new"}'] == 1
    assert samples['edgeproxy_leases_total{outcome="hit"}'] == 6
    assert samples["edgeproxy_bindings"] == 1
    assert samples["edgeproxy_backend_available" + BACKEND_A] == 1
    assert samples['edgeproxy_routing_reloads_total{result="ok"}'] >= 1
    assert samples['edgeproxy_actor_mailbox_depth{actor="registry"}'] == 0
    assert samples["edgeproxy_bindings_evicted_total"] == 0
    assert samples["edgeproxy_log_lines_dropped_total"] == 0
    for labelled in (names.INTERNAL_ERRORS, names.ACTOR_RESTARTS, names.ACCEPT_ERRORS, names.BACKEND_ERRORS):
        assert not [name for name, value in samples.items() if name.startswith(labelled) and value], (
            "nothing went wrong"
        )


def test_failed_dials_and_refusals_are_counted_by_their_reason(edge, origin):
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # nothing listens there
        rows = [row("a", origin(named("a")), weight=0), row("dead", bound.getsockname()[1])]
        proxy = edge(rows, GEOIP_PATH="off", PROXY_PROTOCOL_FROM="127.0.0.5/32")
        assert who(proxy) == ""
        assert who(proxy, "127.0.0.5") == ""
    samples = eventually(lambda: (found := proxy.metrics()).get(ACCEPTED) == 2 and found)
    errors = {name: value for name, value in samples.items() if name.startswith("edgeproxy_backend_errors_total")}
    assert errors == {'edgeproxy_backend_errors_total{backend="dead",pool="default",reason="econnrefused"}': 1}
    assert samples['edgeproxy_connections_refused_total{reason="bad_proxy_header"}'] == 1
    assert samples['edgeproxy_connections_ended_total{state="SC"}'] == 1
    assert samples['edgeproxy_connections_ended_total{state="PA"}'] == 1


def test_the_series_of_removed_backends_are_removed(edge, origin, routing_db):
    a, b = row("a", origin(named("a"))), row("b", origin(named("b")))
    proxy = edge([a], GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert [name for name in proxy.metrics() if BACKEND_A[1:-1] in name]
    write_backends(routing_db, [b])
    eventually(lambda: who(proxy) == "b")
    eventually(lambda: not [name for name in proxy.metrics() if BACKEND_A[1:-1] in name], what="a's series are gone")
    assert proxy.metrics()['edgeproxy_backend_connections_total{backend="b",pool="default"}'] >= 1


def test_a_backends_id_may_hold_any_printable_text(edge, origin):
    proxy = edge([row('a "quoted" \\ é', origin(named("a")))], GEOIP_PATH="off")
    assert who(proxy) == "a"
    assert proxy.metrics()['edgeproxy_backend_connections_total{backend="a \\"quoted\\" \\\\ é",pool="default"}'] == 1


def test_ready_names_the_candidates_or_the_reasons(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a"))), row("out", 9, healthy=0), row("bad", 0)])
    status, body = proxy.get("/ready")
    ready = json.loads(body)
    assert (status, ready["ready"], ready["reasons"]) == (200, True, [])
    assert (ready["backends"], ready["candidates"], ready["connections"]) == (2, 1, 0)
    assert ready["listeners"] == ["{}:{}".format(*proxy.address)]
    assert (ready["frontends"], ready["dark_frontends"]) == ({"edge": ready["listeners"]}, [])
    assert ready["pools"] == {"default": {"backends": 2, "candidates": 1, "fails_open": False}}
    assert ready["routing"]["rows_refused"] == 1
    assert ready["geography"]["age_days"] >= 0
    write_backends(routing_db, [row("a", 9, healthy=0), row("b", 9, weight=0), row("c", 9, deleted=1)])
    status, body = eventually(lambda: (response := proxy.get("/ready"))[0] == 503 and response)
    assert json.loads(body) | {"routing": 0, "geography": 0, "listeners": 0, "frontends": 0} == {
        "ready": False, "reasons": ["no candidate backend"], "backends": 3, "candidates": 0, "connections": 0,
        "pools": {"default": {"backends": 3, "candidates": 0, "fails_open": False}}, "configuration_is_current": True,
        "routing": 0, "replica": None, "geography": 0, "listeners": 0, "frontends": 0, "dark_frontends": ["edge"],
        "gateway": {"restore_error": "", "damaged_rows": {}},
    }  # fmt: skip
    line = eventually(lambda: proxy.event("no candidate backend for frontend edge"))
    assert (line["level"], line["frontends"]) == ("WARNING", ["edge"])
    write_backends(routing_db, [row("a", 9)])
    assert eventually(lambda: proxy.event("a candidate backend again for frontend edge"))["frontends"] == ["edge"]


def test_full_backends_are_not_candidates(edge, origin):
    proxy = edge([row("a", origin(named("a")), hard_limit=1)], GEOIP_PATH="off")
    with proxy.connect() as staying:
        assert ask(staying) == "a"
        assert proxy.get("/ready")[0] == 503
    eventually(lambda: proxy.get("/ready")[0] == 200)


def test_other_paths_and_methods_are_refused_politely(edge):
    proxy = edge([], GEOIP_PATH="off")
    for path in ("/", "/metrics/", "/nothing"):
        status, _, body = request(proxy, "GET", path)
        assert status == 404
        assert json.loads(body)["routes"] == ["/metrics", "/live", "/ready"]
    for method in ("POST", "DELETE", "PUT"):
        status, headers, _ = request(proxy, method, "/live")
        assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert request(proxy, "GET", "/live?verbose=1")[::2] == (200, b'{"live":true}\n')
    for path in ("/live", "/ready", "/metrics"):
        status, headers, body = request(proxy, "HEAD", path)
        assert (status, body) == (503 if path == "/ready" else 200, b"")
        assert int(headers["Content-Length"]) > 0
    assert request(proxy, "GET", "/metrics")[1]["Content-Type"].startswith("text/plain; version=0.0.4")


def test_silent_clients_do_not_lock_others_out_of_the_metrics(edge):
    proxy = edge([], GEOIP_PATH="off")
    silent = [socket.create_connection(proxy.metrics_address, 10) for _ in range(80)]
    silent[0].sendall(b"GET /live HTTP/1.1\r\nHost: half")
    try:
        assert request(proxy, "GET", "/live")[0] == 200
        silent[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # its time is not over: the one idle longest made room
            silent[-1].recv(1)
    finally:
        for one in silent:
            one.close()
    assert not [line for line in proxy.log() if "traceback" in line]


def test_metrics_over_ipv6(edge):
    proxy = edge([], GEOIP_PATH="off", METRICS_LISTEN_ADDR="[::1]:0")
    assert proxy.metrics_address[0] == "::1"
    assert proxy.get("/live")[0] == 200
