"""Real programs through TCP frontends of one edge: Redis, PostgreSQL, iperf3, and nginx with a PROXY header."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.harness import eventually, frontend, pool
from tests.integration.http_peers import http_edge
from tests.integration.peers import await_idle
from tests.programs import program
from tests.traffic import free_ports

NGINX = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        listen 127.0.0.1:{port} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_server_port"; }}
    }}
}}
"""


@contextmanager
def running(command, **options):
    """Run a server for the block; `signal` ends it."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def redis(port, folder):
    server = program("redis-server", "redis-server")
    command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with running(command):
        yield


@contextmanager
def iperf3(port, _folder):
    with running([program("iperf3", "iperf3"), "-s", "-B", "127.0.0.1", "-p", str(port)]):
        yield


@contextmanager
def nginx(port, folder):
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, port=port))
    with running([program("nginx", "nginx-light"), "-c", str(path), "-p", str(folder), "-e", "stderr"]):
        yield


@contextmanager
def postgresql(port, _folder):
    """Run a PostgreSQL cluster, as Debian's user if the test runs as root, which PostgreSQL refuses."""
    initdb = program("initdb", "postgresql", "/usr/lib/postgresql/*/bin")
    user = "postgres" if os.geteuid() == 0 else None
    folder = tempfile.mkdtemp()  # pytest's folders are closed to other users
    if user:
        shutil.chown(folder, user, pwd.getpwnam(user).pw_gid)
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    try:
        command = [initdb, "-D", f"{folder}/data", "-U", "tester", "-A", "trust", "--no-sync"]
        subprocess.run(command, check=True, user=user, cwd=folder, env=environment, stdout=subprocess.DEVNULL)
        server = [initdb.replace("initdb", "postgres"), "-D", f"{folder}/data", "-p", str(port), "-k", folder, "-F"]
        with running([*server, "-c", "listen_addresses=127.0.0.1"], user=user, cwd=folder, env=environment):
            state = Path(folder, "data/postmaster.pid")
            eventually(lambda: state.exists() and state.read_text().split()[-1:] == ["ready"], what="it has started")
            yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


DIAL_SECONDS = 0.5
SERVERS = {"redis": redis, "postgresql": postgresql, "iperf3": iperf3, "nginx": nginx}


@pytest.fixture(scope="module")
def ports():
    return dict(zip(SERVERS, free_ports(len(SERVERS)), strict=True))


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, ports):
    """An edge with a frontend for each server; probes find the servers down that do not run."""
    options = {"nginx": {"send_proxy": "v2"}, "iperf3": {"connect_timeout": f"{DIAL_SECONDS}s"}}
    config = {
        "frontends": [frontend(name, name, tcp=options.get(name, {})) for name in SERVERS],
        "backends": [
            pool(name, port, health_check={"type": "tcp", "interval": "100ms"}) for name, port in ports.items()
        ],
    }
    with http_edge(tmp_path_factory.mktemp("programs"), config) as proxy:
        yield proxy


@pytest.fixture
def served(proxy, ports, tmp_path):
    """Run a server for the test. Returns the address of its frontend once its probe succeeds."""
    with ExitStack() as stack:

        def serve(name):
            stack.enter_context(SERVERS[name](ports[name], tmp_path))
            eventually(lambda: listens(ports[name]), what=f"{name} listens")
            label = f'edgeproxy_backend_available{{backend="127.0.0.1:{ports[name]}",pool="{name}"}}'
            eventually(lambda: proxy.metrics()[label] == 1, what=f"{name} is up")
            return proxy.frontends[name][0]

        yield serve
    await_idle(proxy)


def output(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], check=False, capture_output=True, text=True, timeout=40, **options
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def test_redis_benchmark_meets_no_error(served):
    host, port = served("redis")
    benchmark = program("redis-benchmark", "redis-tools")
    command = [benchmark, "-h", host, "-p", port, "-c", 20, "-n", 2000, "-d", 1000, "-t", "set,get,lpush,mset", "--csv"]
    plain, pipelined = output(*command), output(*command, "-P", 16)
    for rows in (plain, pipelined):
        assert "error" not in rows.lower()
        assert {row.split('"')[1].split()[0] for row in rows.splitlines()} >= {"SET", "GET", "LPUSH", "MSET"}


def test_psql_asks_stores_and_copies(served, tmp_path):
    host, port = served("postgresql")
    rows = tmp_path / "rows.csv"
    rows.write_text("".join(f"{number},{'x' * (number % 300)}\n" for number in range(20_000)))
    script = f"""
        CREATE TABLE things (number int, word text);
        \\copy things FROM '{rows}' CSV
        SELECT count(*), sum(number), sum(length(word)) FROM things;
        \\copy (SELECT * FROM things ORDER BY number) TO '{tmp_path}/back.csv' CSV
    """
    command = [program("psql", "postgresql-client"), "-h", host, "-p", port, "-U", "tester", "-d", "postgres"]
    said = output(*command, "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", input=script)
    lengths = sum(number % 300 for number in range(20_000))
    assert said.split() == [f"20000|{sum(range(20_000))}|{lengths}"]
    assert (tmp_path / "back.csv").read_text().replace('""', "") == rows.read_text()


@pytest.mark.parametrize("options", [["-P", "2"], ["-R"]], ids=["up", "down"])
def test_iperf3_runs_longer_in_one_direction_than_a_dial_may_take(served, proxy, options):
    host, port = served("iperf3")

    def measured():
        said = json.loads(output(program("iperf3", "iperf3"), "-c", host, "-p", port, "--json", "-t", "1", *options))
        error = said.get("error", "")
        assert not error or "busy" in error, error
        return None if error else said["end"]

    end = eventually(measured, what="the server takes one client at a time, and a probe is one")
    sent, received = end["sum_sent"]["bytes"], end["sum_received"]["bytes"]
    assert sent >= received > sent / 2, "all but what was on its way at the end"
    assert end["sum_sent"]["seconds"] > DIAL_SECONDS


def test_nginx_gets_the_client_from_the_proxy_header(served):
    host, port = served("nginx")
    curl = [program("curl", "curl"), "-sS", "--interface", "127.0.4.9", f"http://{host}:{port}/"]
    assert output(*curl) == f"127.0.4.9 {port}"
