"""The rows of mode handler: the cost of a request to a handler of a few lines of Python."""

from scripts.benchmark.handler_peers import HANDLER_PEERS, HELLO_PATH
from scripts.benchmark.http_rows import small_requests
from scripts.benchmark.peers import Proxy
from scripts.benchmark.rows import Figure, Row


def hello(proxy: Proxy, seconds: int) -> dict[str, float]:
    """Small requests on 50 persistent connections."""
    return small_requests(proxy, seconds, HELLO_PATH)


HANDLER_ROWS = (
    Row(
        "handler",
        "http",
        ("nginx", "wrk"),
        HANDLER_PEERS,
        (
            Figure("rate", "A trivial handler, keep-alive, 50 connections", "req/s", "more"),
            Figure("p50", "– its median latency", "ms", "less", 2),
            Figure("p99", "– its 99th percentile", "ms", "less", 2),
            Figure("cpu", "– processor time of each request", "µs", "less", 1),
        ),
        hello,
    ),
)
