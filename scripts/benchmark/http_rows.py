"""The rows of mode HTTP: the cost of parsing requests, and the effect of a reload on requests in progress."""

import os
import signal
import socket
import time

from scripts.benchmark.bodies import fetch, read_head
from scripts.benchmark.http_peers import EDGE_FILE, EDGE_OF_MANY_SERVERS, HTTP_PEERS, edge_file, generation_option
from scripts.benchmark.idle import close_all, open_idle
from scripts.benchmark.loads import wrk
from scripts.benchmark.paced import RATE_PER_SECOND, PacedRequests
from scripts.benchmark.peers import Proxy
from scripts.benchmark.processes import processor_seconds, rss_kib
from scripts.benchmark.rows import Figure, Row
from scripts.benchmark.tcp_rows import SETTLE_SECONDS, WARM_UP_CONNECTIONS, new_connections
from scripts.benchmark.upstreams import BODY_BYTES, SERVERS, server_addresses

IDLE_CONNECTIONS = 1_000
BIG_BODY_CONNECTIONS = 4
RELOADS = 5
KIB_PER_MIB = 1024


def keep_alive(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests on 50 persistent connections, and the memory of the proxy after them."""
    return small_requests(proxy, seconds, "/") | {"rss": rss_kib(proxy.pid) / KIB_PER_MIB}


def small_requests(proxy: Proxy, seconds: int, path: str) -> dict[str, float]:
    """Small requests on 50 persistent connections, and their CPU time, which other programs disturb least."""
    used = processor_seconds(proxy.pid)
    rate, p50, p99 = wrk(proxy.port, 50, seconds, path=path)
    return {"rate": rate, "p50": p50, "p99": p99, "cpu": (processor_seconds(proxy.pid) - used) / (rate * seconds) * 1e6}


def middling_bodies(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Bodies of 64 KiB on 50 persistent connections."""
    rate, _, p99 = wrk(proxy.port, 50, seconds, path="/64k")
    return {"rate": rate, "p99": p99}


def big_bodies(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Bodies of 10 MiB on a few persistent connections, and the memory of the proxy after them.

    A proxy that splices is faster than the core of the load; the use of its own core shows which was the limit.
    """
    started, used = time.monotonic(), processor_seconds(proxy.pid)
    gbit = fetch(proxy.port, "/10m", BODY_BYTES["/10m"], BIG_BODY_CONNECTIONS, seconds)
    core = (processor_seconds(proxy.pid) - used) / (time.monotonic() - started)
    return {"gbit": gbit, "core": core * 100, "rss": rss_kib(proxy.pid) / KIB_PER_MIB}


def idle_memory(proxy: Proxy, seconds: int) -> dict[str, float]:
    """RSS with 1,000 idle persistent connections, each after one request, and its growth per connection.

    The warm-up is that of the TCP row, for the same reason.
    """
    close_all(open_idle(proxy.port, WARM_UP_CONNECTIONS, request_once))
    held = open_idle(proxy.port, WARM_UP_CONNECTIONS, request_once)
    try:
        time.sleep(SETTLE_SECONDS)
        before_kib = rss_kib(proxy.pid)
        held += open_idle(proxy.port, IDLE_CONNECTIONS - len(held), request_once)
        time.sleep(SETTLE_SECONDS)
        after_kib = rss_kib(proxy.pid)
    finally:
        close_all(held)
    return {"rss": after_kib / KIB_PER_MIB, "kib": (after_kib - before_kib) / (IDLE_CONNECTIONS - WARM_UP_CONNECTIONS)}


def request_once(connection: socket.socket) -> bool:
    """Send a small request. Returns whether the response is complete."""
    connection.sendall(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")
    return read_head(connection, len(b"ok")) == len(b"ok") or connection.recv(2) == b"ok"


def reload(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests at a fixed rate, first undisturbed, then during reloads of a file of 1,000 servers.

    Every reload adds one server and removes one. The next reload follows when responses show that it is in force.
    """
    with PacedRequests(proxy.port) as warm_up:
        time.sleep(SERVERS / RATE_PER_SECOND)  # until every server has an upstream connection
    warm_up.latencies_ms()
    with PacedRequests(proxy.port) as quiet:
        time.sleep(seconds)
    files = [file_of_generation(proxy, generation) for generation in range(1, RELOADS + 1)]
    with PacedRequests(proxy.port) as reloading:
        for generation, text in enumerate(files, 1):
            time.sleep(seconds / RELOADS)
            replace_file(proxy, text)
            os.kill(proxy.pid, signal.SIGHUP)
            reloading.await_generation(str(generation))
    without, with_reloads = quiet.latencies_ms(), reloading.latencies_ms()
    return {
        "p999": per_mille(with_reloads, 999),
        "max": with_reloads[-1],
        "p999_quiet": per_mille(without, 999),
        "max_quiet": without[-1],
        "added": with_reloads[-1] - without[-1],
    }


def file_of_generation(proxy: Proxy, generation: int) -> str:
    """Return the file of 1,000 servers without the server of that number."""
    addresses = server_addresses(proxy.upstream_port)
    return edge_file(proxy.port, addresses[:generation] + addresses[generation + 1 :], generation_option(generation))


def replace_file(proxy: Proxy, text: str) -> None:
    """Replace the edge's file atomically, so that it is never read half-written."""
    new = proxy.folder / "new.yaml"
    new.write_text(text)
    new.replace(proxy.folder / EDGE_FILE)


def per_mille(ascending: list[float], rank: int) -> float:
    """Return the value that `rank` of 1,000 do not exceed."""
    return ascending[min(len(ascending) - 1, len(ascending) * rank // 1000)]


HTTP_ROWS = (
    Row(
        "http-keepalive",
        "http",
        ("nginx", "wrk"),
        HTTP_PEERS,
        (
            Figure("rate", "Small requests, keep-alive, 50 connections", "req/s", "more"),
            Figure("p50", "– their median latency", "ms", "less", 2),
            Figure("p99", "– their 99th percentile", "ms", "less", 2),
            Figure("cpu", "– processor time of each", "µs", "less", 1),
            Figure("rss", "– memory after them", "MiB RSS", "less", 1),
        ),
        keep_alive,
    ),
    Row(
        "http-connections",
        "http",
        ("nginx", "wrk"),
        HTTP_PEERS,
        (Figure("rate", "A new connection for each request", "conn/s", "more"),),
        new_connections,
    ),
    Row(
        "http-64k",
        "http",
        ("nginx", "wrk"),
        HTTP_PEERS,
        (
            Figure("rate", "Bodies of 64 KiB, keep-alive, 50 connections", "req/s", "more"),
            Figure("p99", "– their 99th percentile", "ms", "less", 2),
        ),
        middling_bodies,
    ),
    Row(
        "http-10m",
        "http",
        ("nginx",),
        HTTP_PEERS,
        (
            Figure("gbit", f"Bodies of 10 MiB, keep-alive, {BIG_BODY_CONNECTIONS} connections", "Gbit/s", "more", 1),
            Figure("core", "– of its core the proxy used", "%", "less"),
            Figure("rss", "– memory after them", "MiB RSS", "less", 1),
        ),
        big_bodies,
    ),
    Row(
        "http-idle",
        "http",
        ("nginx",),
        HTTP_PEERS,
        (
            Figure("rss", f"Memory with {IDLE_CONNECTIONS:,} idle connections", "MiB RSS", "less", 1),
            Figure("kib", "– per idle connection", "KiB RSS", "less", 1),
        ),
        idle_memory,
    ),
    Row(
        "http-reload",
        "http-servers",
        ("nginx",),
        (EDGE_OF_MANY_SERVERS,),
        (
            Figure(
                "p999",
                f"{RELOADS} reloads of {SERVERS:,} servers, {RATE_PER_SECOND} req/s: 99.9th percentile",
                "ms",
                "less",
                1,
            ),
            Figure("max", "– longest request", "ms", "less", 1),
            Figure("p999_quiet", "– 99.9th percentile without reloads", "ms", "less", 1),
            Figure("max_quiet", "– longest request without reloads", "ms", "less", 1),
            Figure("added", "– what reloads add to the longest", "ms", "less", 1),
        ),
        reload,
    ),
)
