"""The units of the repository, and systemd's own programs."""

from __future__ import annotations

import re
import subprocess
import sys

from app.config import load
from tests.commands import clean_environment
from tests.harness import ROOT, eventually, row, write_backends
from tests.integration.peers import is_listened_on
from tests.integration.service_manager import answer
from tests.programs import program
from tests.traffic import free_ports, named

UNITS = ROOT / "docs" / "systemd"


def test_systemd_verifies_the_units(tmp_path):
    analyze, clone = program("systemd-analyze", "systemd"), tmp_path / "clone"
    python = tmp_path / "python"
    clone.symlink_to(ROOT)  # whose path may have spaces, which a unit would have to quote
    python.symlink_to(sys.executable)
    for path in UNITS.iterdir():
        unit = path.read_text().replace("/srv/edgeproxy/.venv/bin/python", str(python))
        (tmp_path / path.name).write_text(unit.replace("/srv/edgeproxy", str(clone)))
    done = subprocess.run(
        [analyze, "verify", "--man=no", *(tmp_path / path.name for path in UNITS.iterdir())],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_the_socket_unit_has_the_addresses_that_the_edge_listens_on_by_default():
    written = (UNITS / "edgeproxy.socket").read_text()
    addresses = ",".join(re.findall(r"^ListenStream=(.+)$", written, re.MULTILINE))
    (default,) = load({}).frontends
    assert load({"EDGEPROXY_LISTEN_ADDR": addresses}).frontends == (default,)
    assert "BindIPv6Only=ipv6-only" in written


def test_a_socket_that_systemd_itself_opens_and_passes(tmp_path, routing_db, origin):
    write_backends(routing_db, [row("a", origin(named("a")))])
    activate = program("systemd-socket-activate", "systemd")
    port, metrics_port = free_ports(2)
    environment = clean_environment(
        LISTEN_ADDR=f"127.0.0.1:{port}", METRICS_LISTEN_ADDR=f"127.0.0.1:{metrics_port}", DB_PATH=str(routing_db),
        LOG_PATH=str(tmp_path / "log"), GEOIP_PATH="off",
    )  # fmt: skip
    passed = [f"--setenv={name}" for name in environment if name.startswith("EDGEPROXY_")]
    command = [activate, f"--listen=127.0.0.1:{port}", *passed, sys.executable, "-m", "app", "serve"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: is_listened_on(("127.0.0.1", port)), what="systemd listens")
            assert answer(("127.0.0.1", port)) == "a"
        finally:
            process.terminate()
            assert process.wait(30) == 0
