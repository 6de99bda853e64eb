"""What is measured: each row puts one load on a proxy and yields one or more figures."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

from scripts.benchmark.bulk import HotFlow
from scripts.benchmark.idle import close_all, open_idle
from scripts.benchmark.peers import Proxy
from scripts.benchmark.processes import MeasurementError, output_of, rss_kib

IDLE_COUNTS = (1_000, 5_000)
WARM_UP_CONNECTIONS = 300
SETTLE_SECONDS = 1.0
MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Figure:
    """One line of the table; `better` is 'more' or 'less'; `digits` follow the decimal point."""

    key: str
    label: str
    unit: str
    better: str
    digits: int = 0


@dataclass(frozen=True)
class Row:
    """One measurement: `measure(proxy, seconds)` returns a value for each figure's key."""

    key: str
    upstream: str
    needs: tuple[str, ...]
    figures: tuple[Figure, ...]
    measure: Callable[[Proxy, int], dict[str, float]]


def keep_alive(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests on 50 kept connections."""
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
    """RSS growth per idle connection in KiB; kernel memory is not in it.

    A warm-up opened and closed, then as many connections held, come first: the memory of the start and
    the free lists it leaves are neither charged nor credited to the connections counted.
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
    """Small requests on 10 kept connections while one hot flow runs through the same process."""
    with HotFlow(proxy.port) as flow:
        rate, p50, p99 = wrk(proxy.port, 10, seconds)
        return {"p50": p50, "p99": p99, "rate": rate, "gbit": flow.gbit_per_second()}


def wrk(port: int, connections: int, seconds: int, *options: str) -> tuple[float, float, float]:
    """Return requests a second, and the median and 99th percentile of their latency in milliseconds."""
    argv = [
        "wrk",
        "--threads",
        "1",
        "--connections",
        str(connections),
        "--duration",
        f"{seconds}s",
        "--latency",
    ]
    text = output_of([*argv, *options, f"http://127.0.0.1:{port}/"], seconds)
    faults = re.search(r"Socket errors:.*|Non-2xx.*", text)
    if faults:
        raise MeasurementError(f"wrk: {faults[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise MeasurementError(f"wrk gave no rate: {text}")
    return float(rate[1]), percentile_ms(text, 50), percentile_ms(text, 99)


def percentile_ms(text: str, percent: int) -> float:
    """Read a percentile of wrk's latency distribution."""
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"wrk gave no {percent} % latency: {text}")
    return float(found[1]) * MILLISECONDS[found[2]]


def iperf3(port: int, seconds: int, *options: str) -> float:
    """Return what one stream carried as the receiver counted it, in Gbit/s."""
    argv = [
        "iperf3",
        "--client",
        "127.0.0.1",
        "--port",
        str(port),
        "--time",
        str(seconds),
        "--json",
        *options,
    ]
    answer = json.loads(output_of(argv, seconds))
    if "sum_received" not in answer.get("end", {}):
        raise MeasurementError(f"iperf3: {answer.get('error', 'no sum of what was received')}")
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


ROWS = {
    row.key: row
    for row in (
        Row(
            "keepalive",
            "http",
            ("nginx", "wrk"),
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
            (Figure("rate", "A new connection for each request", "conn/s", "more"),),
            new_connections,
        ),
        Row(
            "forward",
            "iperf3",
            ("iperf3",),
            (Figure("gbit", "One bulk stream, client to backend", "Gbit/s", "more", 1),),
            bulk_forward,
        ),
        Row(
            "reverse",
            "iperf3",
            ("iperf3",),
            (Figure("gbit", "One bulk stream, backend to client", "Gbit/s", "more", 1),),
            bulk_reverse,
        ),
        Row(
            "idle",
            "idle",
            (),
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
            (
                Figure("p50", "Beside one hot bulk flow, 10 connections: median latency", "ms", "less", 2),
                Figure("p99", "– 99th percentile", "ms", "less", 2),
                Figure("rate", "– small requests", "req/s", "more"),
                Figure("gbit", "– the bulk flow meanwhile", "Gbit/s", "more", 1),
            ),
            beside_bulk,
        ),
    )
}
