"""The rows of mode TCP: the cost of copying bytes and of open connections."""

import time

from scripts.benchmark.bulk import HotFlow
from scripts.benchmark.idle import close_all, open_idle
from scripts.benchmark.loads import iperf3, wrk
from scripts.benchmark.peers import Proxy
from scripts.benchmark.processes import rss_kib
from scripts.benchmark.rows import Figure, Row
from scripts.benchmark.tcp_peers import TCP_PEERS

IDLE_COUNTS = (1_000, 5_000)
WARM_UP_CONNECTIONS = 300
SETTLE_SECONDS = 1.0


def keep_alive(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests on 50 persistent connections."""
    rate, p50, p99 = wrk(proxy.port, 50, seconds)
    return {"rate": rate, "p50": p50, "p99": p99}


def new_connections(proxy: Proxy, seconds: int) -> dict[str, float]:
    """A new connection for each small request, 50 at a time."""
    rate, _, _ = wrk(proxy.port, 50, seconds, "--header", "Connection: close")
    return {"rate": rate}


def bulk_forward(proxy: Proxy, seconds: int) -> dict[str, float]:
    """One stream from client to upstream."""
    return {"gbit": iperf3(proxy.port, seconds)}


def bulk_reverse(proxy: Proxy, seconds: int) -> dict[str, float]:
    """One stream from upstream to client."""
    return {"gbit": iperf3(proxy.port, seconds, "--reverse")}


def idle_memory(proxy: Proxy, seconds: int) -> dict[str, float]:
    """RSS growth per idle connection in KiB, without kernel memory.

    Before, a warm-up opens and closes connections and then holds as many, so that the memory of the start and its free
    lists do not count.
    """
    close_all(open_idle(proxy.port, WARM_UP_CONNECTIONS))
    held = open_idle(proxy.port, WARM_UP_CONNECTIONS)
    try:
        time.sleep(SETTLE_SECONDS)
        before_kib = rss_kib(proxy.pid)
        figures = {}
        for count in IDLE_COUNTS:
            held += open_idle(proxy.port, count + WARM_UP_CONNECTIONS - len(held))
            time.sleep(SETTLE_SECONDS)
            figures[f"kib_{count}"] = (rss_kib(proxy.pid) - before_kib) / count
    finally:
        close_all(held)
    return figures


def beside_bulk(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests on 10 persistent connections beside a bulk flow through the same process."""
    with HotFlow(proxy.port) as flow:
        rate, p50, p99 = wrk(proxy.port, 10, seconds)
        return {"p50": p50, "p99": p99, "rate": rate, "gbit": flow.gbit_per_second()}


TCP_ROWS = (
    Row(
        "keepalive",
        "http",
        ("nginx", "wrk"),
        TCP_PEERS,
        (
            Figure("rate", "Small requests, keep-alive, 50 connections", "req/s", "more"),
            Figure("p50", "– their median latency", "ms", "less", 2),
            Figure("p99", "– their 99th percentile", "ms", "less", 2),
        ),
        keep_alive,
    ),
    Row(
        "connections",
        "http",
        ("nginx", "wrk"),
        TCP_PEERS,
        (Figure("rate", "A new connection for each request", "conn/s", "more"),),
        new_connections,
    ),
    Row(
        "forward",
        "iperf3",
        ("iperf3",),
        TCP_PEERS,
        (Figure("gbit", "One bulk stream, client to backend", "Gbit/s", "more", 1),),
        bulk_forward,
    ),
    Row(
        "reverse",
        "iperf3",
        ("iperf3",),
        TCP_PEERS,
        (Figure("gbit", "One bulk stream, backend to client", "Gbit/s", "more", 1),),
        bulk_reverse,
    ),
    Row(
        "idle",
        "idle",
        (),
        TCP_PEERS,
        tuple(
            Figure(f"kib_{count}", f"Memory per idle connection, at {count:,}", "KiB RSS", "less", 1)
            for count in IDLE_COUNTS
        ),
        idle_memory,
    ),
    Row(
        "beside-bulk",
        "http",
        ("nginx", "wrk"),
        TCP_PEERS,
        (
            Figure("p50", "Beside one hot bulk flow, 10 connections: median latency", "ms", "less", 2),
            Figure("p99", "– 99th percentile", "ms", "less", 2),
            Figure("rate", "– small requests", "req/s", "more"),
            Figure("gbit", "– the bulk flow meanwhile", "Gbit/s", "more", 1),
        ),
        beside_bulk,
    ),
)
