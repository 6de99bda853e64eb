"""Every block of docs/how-to/register.md, run unchanged except for the ports and the address of the edge."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness import ROOT, eventually, write_backends
from tests.integration.registered_services import home, is_alive
from tests.traffic import free_ports, named, serving

__all__ = ["home"]

PAGE = (ROOT / "docs/how-to/register.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMAND, CURL, LIBRARY = (source for _, source in BLOCKS)


@pytest.fixture
def port(home) -> int:
    write_backends(home.database, [])
    home.edge.wait_for_backends(0)
    return free_ports(1)[0]


def here(home, source: str, port: int) -> str:
    return source.replace("3000", str(port)).replace("localhost:8081", f"127.0.0.1:{home.port}")


def begin(home, *command: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "EDGEPROXY_API_URL": home.url,
    }
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=home.folder, env=environment, stdout=pipe, stderr=pipe, text=True)


def test_the_blocks_are_those_that_are_run_here():
    assert [kind for kind, _ in BLOCKS] == ["sh", "sh", "python"]


@pytest.mark.parametrize("procfile", [False, True], ids=["block", "Procfile"])
def test_the_command(home, port, procfile):
    line = re.search(r"`web: (exec .*?)`", PAGE, re.DOTALL)[1] if procfile else f"exec {COMMAND}"
    process = begin(home, "bash", "-c", here(home, line, port))
    eventually(home.rows, 20, "it is registered")
    (row,) = home.rows().values()
    assert (row["app"], row["port"]) == ("web", port)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGTERM
    steps = ("is registered at", "is draining", "is deregistered")
    assert all(f"register: {row['id']} {step}" in said for step in steps)
    assert home.rows() == {}


def test_plain_http(home):
    with serving(named("web-1")) as port:
        states = []
        source = here(home, CURL, port)
        for line in (setting := source.rpartition("\n\n"))[2].splitlines():
            process = begin(home, "bash", "-ec", f"{setting[0]}\n{line}")
            response, errors = process.communicate(timeout=20)
            assert (process.returncode, errors) == (0, "")
            states.append((response, {name: row["draining"] for name, row in home.rows().items()}))
    renewed = '{"ttl_seconds":15,"is_new":false}'
    assert states == [
        ('{"ttl_seconds":15,"is_new":true}', {"web-1": 0}),
        (renewed, {"web-1": 0}),
        (renewed, {"web-1": 1}),
        ("", {}),
    ]
    assert states[0][0] in PAGE


def test_in_python(home, port):
    process = begin(home, sys.executable, "-c", here(home, LIBRARY, port))
    eventually(home.rows, 20, "it is registered")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == 0
    assert home.rows() == {}
    assert not is_alive(process.pid)
