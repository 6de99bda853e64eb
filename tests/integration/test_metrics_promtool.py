"""Prometheus' own linter reads what the edge exposes after some of everything has happened, and finds nothing."""

from __future__ import annotations

import subprocess

from tests.harness import eventually, row
from tests.programs import program
from tests.traffic import named, who


def test_promtool_finds_nothing(edge, origin, routing_db):
    proxy = edge([row("a", origin(named("a"))), row("bad", 0)], PROXY_PROTOCOL_FROM="127.0.0.5/32")
    assert who(proxy) == "a"
    assert who(proxy, "127.0.0.5") == "", "no PROXY header: refused"
    routing_db.unlink()
    eventually(lambda: proxy.ready()["routing"]["stale"])
    text = proxy.get("/metrics")[1]
    assert b'edgeproxy_routing_reloads_total{result="error"}' in text
    done = subprocess.run(
        [program("promtool", "prometheus"), "check", "metrics"],
        check=False,
        input=text,
        capture_output=True,
        timeout=30,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
