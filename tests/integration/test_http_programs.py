"""Real programs through an HTTP frontend: curl and wrk as clients, HAProxy in front, nginx behind."""

from __future__ import annotations

import hashlib
import json
import os
import re
import socket
import subprocess
from contextlib import contextmanager

import pytest

from tests.harness import eventually, pool
from tests.integration.http_peers import Origin, client_of, http_edge, live, request_line
from tests.integration.peers import await_idle
from tests.programs import program
from tests.traffic import free_ports

CONTENT = os.urandom(3 << 20)
NGINX = """\
daemon off; pid {folder}/pid; error_log stderr; worker_processes 1; {user}
events {{}}
http {{
    access_log off; client_max_body_size 8m; keepalive_requests 7;
    client_body_temp_path {folder}/temp; proxy_temp_path {folder}/temp; fastcgi_temp_path {folder}/temp;
    uwsgi_temp_path {folder}/temp; scgi_temp_path {folder}/temp;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/files;
        location / {{ dav_methods PUT DELETE; client_body_in_file_only on; }}
        location /who {{ return 200 "$http_x_forwarded_for $http_host $server_protocol"; }}
        location /early {{ client_max_body_size 1k; }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode tcp
    timeout connect 3s
    timeout client 30s
    timeout server 30s
listen front
    bind 127.0.0.1:{port}
    server edge 127.0.0.1:{edge} send-proxy-v2
"""


@contextmanager
def running(command, port):
    """Run a server for the block, from when it listens."""
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:

        def listens():
            assert process.poll() is None, process.stderr.read().decode()
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0

        try:
            eventually(listens, what=f"{command[0]} listens")
            yield process
        finally:
            process.terminate()
            process.stderr.close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory):
    """The port of an nginx that keeps files."""
    folder = tmp_path_factory.mktemp("nginx")
    for name in ("files", "temp"):
        (folder / name).mkdir()
    (folder / "files/content").write_bytes(CONTENT)
    (folder / "files/small").write_text("small")
    (port,) = free_ports(1)
    path = folder / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    path.write_text(NGINX.format(folder=folder, port=port, user=user))
    with running([program("nginx", "nginx-light"), "-c", str(path), "-p", str(folder), "-e", "stderr"], port):
        yield port


@pytest.fixture(scope="module")
def origin():
    origin = Origin(lambda request: request.response(json.dumps(request.headers).encode()))
    yield origin
    origin.close()


@pytest.fixture(scope="module")
def proxy(tmp_path_factory, nginx, origin):
    config = {
        "frontends": [
            live("web", "nginx"),
            live("behind", "nginx", proxy_protocol_from=["127.0.0.1"]),
            live("echo", "origin"),
        ],
        "backends": [pool("nginx", nginx), pool("origin", origin.port)],
    }
    with http_edge(tmp_path_factory.mktemp("programs"), config) as proxy:
        yield proxy


@pytest.fixture
def curl(proxy):
    """Run curl on a path of a frontend; returns what it printed, headers included."""
    path = program("curl", "curl")

    def run(target, *options, frontend="web"):
        host, port = proxy.frontends[frontend][0]
        url = f"http://{host}:{port}{target}"
        command = [path, "-sS", "-i", "--fail-with-body", "--max-time", "20", *options, url]
        done = subprocess.run(command, check=False, capture_output=True, timeout=30)
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout

    return run


def test_curl_gets_a_file_of_nginx(curl, proxy):
    response, _, body = curl("/content").partition(b"\r\n\r\n")
    assert response.startswith(b"HTTP/1.1 200 OK\r\n")
    assert hashlib.sha256(body).digest() == hashlib.sha256(CONTENT).digest()
    line = request_line(proxy, "/content")
    assert (line["status"], line["termination"], line["bytes_down"]) == (200, "--", len(response) + 4 + len(CONTENT))


def test_curl_gets_a_range_and_a_not_modified(curl):
    assert curl("/content", "-r", "1000-1999").partition(b"\r\n\r\n")[2] == CONTENT[1000:2000]
    tag = re.search(rb"ETag: (\S+)", curl("/small"))[1].decode()
    assert curl("/small", "-H", f"If-None-Match: {tag}").startswith(b"HTTP/1.1 304 ")
    assert curl("/small", "-I").endswith(b"\r\n\r\n")


@pytest.mark.parametrize("options", [[], ["-H", "Transfer-Encoding: chunked"]], ids=["length", "chunked"])
def test_curl_puts_a_file_with_and_without_waiting_for_100(curl, tmp_path, options):
    """curl sends Expect: 100-continue with files over 1 MiB."""
    file = tmp_path / "file"
    file.write_bytes(CONTENT[::-1])
    for name, expect in (("waited", []), ("not", ["-H", "Expect:"])):
        target = f"/{name}-{bool(options)}"
        response = curl(target, "-T", str(file), *options, *expect)
        assert response.startswith(b"HTTP/1.1 100 Continue" if name == "waited" else b"HTTP/1.1 201 ")
        assert b"HTTP/1.1 201 Created" in response
        assert curl(target).partition(b"\r\n\r\n")[2] == CONTENT[::-1]


def test_curl_is_told_early_that_a_file_is_too_big(proxy, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    host, port = proxy.address
    command = [program("curl", "curl"), "-sS", "-i", "-T", str(file), f"http://{host}:{port}/early/file"]
    done = subprocess.run(command, check=False, capture_output=True, timeout=30)
    assert done.stdout.startswith(b"HTTP/1.1 413 ")


def test_curl_speaks_http_1_0(curl):
    response = curl("/small", "--http1.0")
    assert response.endswith(b"\r\n\r\nsmall")
    assert b"transfer-encoding" not in response.lower()


def test_curl_keeps_its_connection(curl, proxy):
    host, port = proxy.address
    response = curl("/small", "-w", "%{num_connects}", f"http://{host}:{port}/small", "-w", "%{num_connects}")
    assert response.endswith(b"small0")


def test_backends_hear_who_asks_for_what(curl, proxy):
    host, port = proxy.address
    assert curl("/who").endswith(f"127.0.0.1 {host}:{port} HTTP/1.1".encode())
    headers = json.loads(curl("/", "-d", "name=value", frontend="echo").partition(b"\r\n\r\n")[2])
    assert (headers["content-length"], headers["user-agent"].split("/")[0]) == ("10", "curl")


def test_nginx_closes_kept_connections_after_some_requests_and_nobody_notices(proxy):
    """It does after seven, here."""
    with client_of(proxy, frontend="web") as client:
        assert [client.ask("/small").body for _ in range(50)] == [b"small"] * 50
        assert [client.ask("/small", method="POST", body=b"x").status for _ in range(50)] == [405] * 50


def test_wrk_meets_no_error(proxy):
    host, port = proxy.address
    url = f"http://{host}:{port}/small"
    done = subprocess.run(
        [program("wrk", "wrk"), "-t1", "-c20", "-d1s", url], check=False, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert "Socket errors" not in done.stdout
    assert "Non-2xx" not in done.stdout
    assert int(re.search(r"(\d+) requests in", done.stdout)[1]) > 100


def test_haproxy_in_front_says_who_the_client_is(proxy, tmp_path):
    (port,) = free_ports(1)
    path = tmp_path / "haproxy.cfg"
    path.write_text(HAPROXY.format(port=port, edge=proxy.frontends["behind"][0][1]))
    with running([program("haproxy", "haproxy"), "-db", "-f", str(path)], port):
        command = [program("curl", "curl"), "-sS", "--interface", "127.0.4.7", f"http://127.0.0.1:{port}/who?front"]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=30)
    assert done.stdout == f"127.0.4.7 127.0.0.1:{port} HTTP/1.1"
    line = request_line(proxy, "/who?front")
    assert (line["frontend"], line["client"]) == ("behind", "127.0.4.7")


def test_nothing_is_left_behind(proxy):
    await_idle(proxy)
    assert not [name for name in proxy.metrics() if "internal_errors" in name]
