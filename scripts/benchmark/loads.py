"""Runs the load generators wrk and iperf3 and parses their figures."""

import json
import re

from scripts.benchmark.processes import MeasurementError, output_of

MILLISECONDS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


def wrk(port: int, connections: int, seconds: int, *options: str, path: str = "/") -> tuple[float, float, float]:
    """Return requests per second, and the median and 99th percentile of their latency in milliseconds."""
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
    text = output_of([*argv, *options, f"http://127.0.0.1:{port}{path}"], seconds)
    faults = re.search(r"Socket errors:.*|Non-2xx.*", text)
    if faults:
        raise MeasurementError(f"wrk: {faults[0]}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None:
        raise MeasurementError(f"wrk gave no rate: {text}")
    return float(rate[1]), percentile_ms(text, 50), percentile_ms(text, 99)


def percentile_ms(text: str, percent: int) -> float:
    """Parse a percentile of wrk's latency distribution."""
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)$", text, re.MULTILINE)
    if found is None:
        raise MeasurementError(f"wrk gave no {percent} % latency: {text}")
    return float(found[1]) * MILLISECONDS[found[2]]


def iperf3(port: int, seconds: int, *options: str) -> float:
    """Return the rate of one stream in Gbit/s, counted by the receiver."""
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
    response = json.loads(output_of(argv, seconds))
    if "sum_received" not in response.get("end", {}):
        raise MeasurementError(f"iperf3: {response.get('error', 'no sum of received bytes')}")
    return float(response["end"]["sum_received"]["bits_per_second"]) / 1e9
