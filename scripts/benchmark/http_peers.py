"""The peers of mode HTTP. They parse requests, keep connections on both sides alive and add X-Forwarded-For."""

import http.client
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from scripts.benchmark.machine import find
from scripts.benchmark.peers import Command, Peer, edge_command
from scripts.benchmark.processes import MeasurementError, is_listening
from scripts.benchmark.upstreams import nginx_user, server_addresses

EDGE_FILE = "edge.yaml"
EDGE_CONFIGURATION = """\
frontends:
  - name: bench
    listen: "127.0.0.1:{port}"
    protocol: http
    backend: origin
    algorithm: round_robin
{options}backends:
  - name: origin
    servers:
{servers}
"""
GENERATION_OPTION = """\
    http: {{response_headers: {{set: {{X-Generation: "{generation}"}}}}}}
"""
# splice-response: splice-auto took twice the CPU time for large bodies
HAPROXY_CONFIGURATION = """\
global
    nbthread 1
    maxconn 6500
    maxpipes 200
defaults
    mode http
    option forwardfor
    option splice-response
    http-reuse always
    timeout connect 3s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port} backlog 4096
    server upstream 127.0.0.1:{upstream_port}
"""
NGINX_CONFIGURATION = """\
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {user}
worker_rlimit_nofile 16000;
events {{ worker_connections 13000; }}
http {{
    access_log off; tcp_nopush on; keepalive_requests 1000000000; keepalive_timeout 1h;
    client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
    uwsgi_temp_path {folder}; scgi_temp_path {folder};
    upstream origin {{
        server 127.0.0.1:{upstream_port};
        keepalive 1000; keepalive_requests 1000000000; keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location / {{
            proxy_pass http://origin;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_max_temp_file_size 0;
            proxy_connect_timeout 3s; proxy_read_timeout 1h;
        }}
    }}
}}
"""
CADDY_CONFIGURATION = """\
{{
    admin off
    persist_config off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy 127.0.0.1:{upstream_port} {{
        transport http {{
            dial_timeout 3s
            keepalive 1h
            keepalive_idle_conns_per_host 1000
        }}
    }}
}}
"""


def edge_file(port: int, servers: Sequence[str], options: str = "") -> str:
    """Return the edge's configuration, with additional options of its frontend."""
    return EDGE_CONFIGURATION.format(
        port=port,
        options=options,
        servers="\n".join(f'      - {{address: "{address}"}}' for address in servers),
    )


def generation_option(generation: int) -> str:
    """Return the option that adds a generation to every response as X-Generation."""
    return GENERATION_OPTION.format(generation=generation)


def adds_forwarded_for(port: int) -> bool:
    """Return whether a request through the proxy succeeds. Raises MeasurementError if X-Forwarded-For was missing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/forwarded-for")
        response = connection.getresponse()
        seen = response.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    if response.status == 200 and seen != b"127.0.0.1":
        raise MeasurementError(f"the origin received X-Forwarded-For {seen!r} instead of the client's address")
    return response.status == 200


def _edge(folder: Path, port: int, upstream_port: int) -> Command:
    """Run the edge with a configuration file of one server."""
    return _edge_with(folder, port, upstream_port, edge_file(port, [f"127.0.0.1:{upstream_port}"]))


def _edge_of_many(folder: Path, port: int, upstream_port: int) -> Command:
    """Run the edge with a configuration file of all addresses but one; a reload swaps it for another."""
    return _edge_with(
        folder, port, upstream_port, edge_file(port, server_addresses(upstream_port)[1:], generation_option(0))
    )


def _edge_with(folder: Path, port: int, upstream_port: int, text: str) -> Command:
    configuration = folder / EDGE_FILE
    configuration.write_text(text)
    command = edge_command(folder, upstream_port, {}, "--config", str(configuration))
    return replace(command, ready=lambda: command.ready() and adds_forwarded_for(port))


def _haproxy(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY_CONFIGURATION.format(port=port, upstream_port=upstream_port))
    argv = [find("haproxy") or "haproxy", "-db", "-f", str(configuration)]
    return Command(argv, lambda: is_listening(port) and adds_forwarded_for(port))


def _nginx(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "nginx.conf"
    configuration.write_text(
        NGINX_CONFIGURATION.format(folder=folder, user=nginx_user(), port=port, upstream_port=upstream_port)
    )
    argv = [find("nginx") or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    return Command(argv, lambda: is_listening(port) and adds_forwarded_for(port))


def _caddy(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "Caddyfile"
    configuration.write_text(CADDY_CONFIGURATION.format(port=port, upstream_port=upstream_port))
    argv = [find("caddy") or "caddy", "run", "--adapter", "caddyfile", "--config", str(configuration)]
    private = {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_DATA_HOME": str(folder)}
    environment = os.environ | private | {"GOMAXPROCS": "1"}
    return Command(argv, lambda: is_listening(port) and adds_forwarded_for(port), environment)


HTTP_PEERS = (
    Peer("edge", "http", (), _edge),
    Peer("haproxy", "http", ("haproxy",), _haproxy),
    Peer("nginx", "http", ("nginx",), _nginx),
    Peer("caddy", "http", ("caddy",), _caddy),
)
EDGE_OF_MANY_SERVERS = Peer("edge", "http", (), _edge_of_many)
