"""The peers of mode TCP, which copy bytes without parsing them."""

from pathlib import Path

from scripts.benchmark.machine import STREAM_MODULE, find
from scripts.benchmark.peers import Command, Peer, edge_command
from scripts.benchmark.processes import is_listening
from scripts.benchmark.upstreams import nginx_user

HAPROXY_CONFIGURATION = """\
global
    nbthread 1
    maxconn 6500
    maxpipes 200
defaults
    mode tcp
    option splice-auto
    timeout connect 3s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{port} backlog 4096
    server upstream 127.0.0.1:{upstream_port}
"""
NGINX_CONFIGURATION = """\
load_module {module};
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr; {user}
worker_rlimit_nofile 16000;
events {{ worker_connections 13000; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{upstream_port};
        proxy_connect_timeout 3s; proxy_timeout 1h;
    }}
}}
"""


def _edge(folder: Path, port: int, upstream_port: int) -> Command:
    """Run the edge configured by the environment alone, with geography and bindings."""
    return edge_command(folder, upstream_port, {"EDGEPROXY_LISTEN_ADDR": f"127.0.0.1:{port}"})


def _haproxy(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "haproxy.cfg"
    configuration.write_text(HAPROXY_CONFIGURATION.format(port=port, upstream_port=upstream_port))
    argv = [find("haproxy") or "haproxy", "-db", "-f", str(configuration)]
    return Command(argv, lambda: is_listening(port))


def _nginx(folder: Path, port: int, upstream_port: int) -> Command:
    configuration = folder / "nginx.conf"
    text = NGINX_CONFIGURATION.format(
        module=STREAM_MODULE, folder=folder, user=nginx_user(), port=port, upstream_port=upstream_port
    )
    configuration.write_text(text)
    argv = [find("nginx") or "nginx", "-e", "stderr", "-p", str(folder), "-c", str(configuration)]
    return Command(argv, lambda: is_listening(port))


TCP_PEERS = (
    Peer("edge", "tcp", (), _edge),
    Peer("haproxy", "tcp", ("haproxy",), _haproxy),
    Peer("nginx", "tcp", ("nginx", "nginx-stream"), _nginx),
)
