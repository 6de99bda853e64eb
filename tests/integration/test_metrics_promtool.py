"""Prometheus' own linter reads what the edge exposes after some of everything has happened, and finds nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import eventually, row
from tests.traffic import named, who

POLICY = Path("/usr/sbin/policy-rc.d")
"""While this exits with 101, Debian's packages do not start their daemons."""


def install_promtool() -> str:
    """Install Debian's package without starting its daemon; returns what went wrong."""
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        return "promtool is missing and only root can apt-get install prometheus"
    has_policy = POLICY.exists()
    if not has_policy:
        POLICY.write_text("#!/bin/sh\nexit 101\n")
        POLICY.chmod(0o755)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", "prometheus"]):
            done = subprocess.run(
                ["apt-get", *command], check=False, env=environment, capture_output=True, text=True, timeout=100
            )
        return "" if done.returncode == 0 else f"apt-get install prometheus: {done.stderr}"
    finally:
        if not has_policy:
            POLICY.unlink()


@pytest.fixture(scope="module")
def promtool() -> str:
    """The path of promtool; missing, it is a failure under CI and a skip elsewhere."""
    problem = "" if shutil.which("promtool") else install_promtool()
    path = shutil.which("promtool")
    if path is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(problem or "promtool is still missing")
    return path


def test_promtool_finds_nothing(edge, origin, routing_db, promtool):
    proxy = edge([row("a", origin(named("a"))), row("bad", 0)], PROXY_PROTOCOL_FROM="127.0.0.5/32")
    assert who(proxy) == "a"
    assert who(proxy, "127.0.0.5") == "", "no PROXY header: refused"
    routing_db.unlink()
    eventually(lambda: proxy.ready()["routing"]["stale"])
    text = proxy.get("/metrics")[1]
    assert b'edgeproxy_routing_reloads_total{result="error"}' in text
    done = subprocess.run([promtool, "check", "metrics"], check=False, input=text, capture_output=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
