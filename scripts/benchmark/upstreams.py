"""The servers behind the proxies: an HTTP origin (with one or many addresses), iperf3, a sink for idle connections."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.benchmark.machine import find
from scripts.benchmark.processes import free_port, is_listening, running

BULK_FILE_BYTES = 256 << 20  # all zeros; small enough to stay in the page cache; requested repeatedly
BODY_BYTES = {"/64k": 64 << 10, "/10m": 10 << 20}
SERVERS = 1_000
KINDS = ("http", "http-servers", "iperf3", "idle")

ORIGIN_CONFIGURATION = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {user}
events {{ worker_connections 4096; }}
http {{
    access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 1h;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    server {{
        {listen}
        root {folder};
        location / {{ return 404; }}
        location = / {{ return 200 ok; }}
        location = /forwarded-for {{ return 200 $http_x_forwarded_for; }}
        location = /bulk {{ }}
        location = /64k {{ }}
        location = /10m {{ }}
    }}
}}
"""


@contextmanager
def upstream(kind: str, folder: Path) -> Iterator[int]:
    """Run an upstream of one of KINDS on the cores of the load, with its files in `folder`, and yield its port."""
    port = free_port()
    folder.mkdir()
    if kind == "http":
        argv = _origin(folder, [f"127.0.0.1:{port}"])
    elif kind == "http-servers":
        argv = _origin(folder, server_addresses(port))
    elif kind == "iperf3":
        argv = ["iperf3", "--server", "--bind", "127.0.0.1", "--port", str(port)]
    else:
        argv = [sys.executable, str(Path(__file__).with_name("idle.py")), str(port)]
    with running(f"upstream {kind}", argv, folder, lambda: is_listening(port)):
        yield port


def nginx_user() -> str:
    """Return the directive that lets the worker of nginx read our private folder if root started it."""
    return "user root;" if os.geteuid() == 0 else ""


def server_addresses(port: int) -> list[str]:
    """Return the addresses of the upstream http-servers: SERVERS and one more, all on loopback."""
    return [f"127.0.{1 + number // 250}.{1 + number % 250}:{port}" for number in range(SERVERS + 1)]


def _origin(folder: Path, addresses: list[str]) -> list[str]:
    """Write nginx's configuration and the files that it serves. Returns the command."""
    for path, size in {"/bulk": BULK_FILE_BYTES, **BODY_BYTES}.items():
        with (folder / path[1:]).open("wb") as file:
            file.truncate(size)
    configuration = folder / "nginx.conf"
    listen = " ".join(f"listen {address} backlog=4096;" for address in addresses)
    configuration.write_text(ORIGIN_CONFIGURATION.format(folder=folder, listen=listen, user=nginx_user()))
    return [find("nginx") or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
